"""On the real clock: whatever calls do, the caller has an answer when the deadline passes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from agentflow import Budget, Engine, Limits, Plan, Task, gather, llm, tool, workflow
from agentflow.clock import now
from agentflow.errors import DeadlineExceeded, RunError
from agentflow.events import RunFailed
from agentflow.executor.run import Run
from agentflow.planner.plan import Node
from agentflow.testing import Call, Reply, ScriptedServer

DEADLINE = 0.08
"""Seconds."""

LATE = 0.05
"""Seconds after the deadline, as the loop comes to it, within which the caller has an answer."""

QUICK = Limits(grace=0.05)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """The real clock."""
    return ("asyncio", {})


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """Set at the end of the test: what hangs in a thread hangs until then."""
    event = threading.Event()
    yield event
    event.set()


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def deaf(stop: asyncio.Event) -> None:
    """Goes on when it is cancelled, until it is told to stop."""
    while not stop.is_set():
        try:
            await stop.wait()
        except asyncio.CancelledError:
            continue


class Deadline:
    """Notes when the loop comes to a deadline; it may be late itself on a busy machine."""

    def __init__(self, at: float) -> None:
        self.at = at
        self._came = at
        asyncio.get_running_loop().call_at(at - 0.002, self._note)

    def _note(self) -> None:
        self._came = max(self.at, now())

    def check(self) -> None:
        """Check that it has not passed long ago."""
        assert now() <= self._came + LATE


async def answered(start: Callable[[], Run[Any]]) -> RunError:
    """How a run ends, which must be in time."""
    run = start()
    assert run.deadline is not None
    deadline = Deadline(run.deadline)
    with pytest.raises(RunError) as failed:
        await run
    deadline.check()
    assert now() >= run.deadline - 0.001
    return failed.value


# Tools


async def hangs(_stop: asyncio.Event) -> Any:
    @tool
    async def work() -> None:
        await forever()

    return work


async def is_deaf(stop: asyncio.Event) -> Any:
    @tool
    async def work() -> None:
        await deaf(stop)

    return work


async def writes(stop: asyncio.Event) -> Any:
    @tool(writes="disk")
    async def work() -> None:
        await deaf(stop)

    return work


async def streams(stop: asyncio.Event) -> Any:
    @tool
    async def work() -> AsyncIterator[int]:
        yield 1
        await deaf(stop)

    return work


async def hedges(stop: asyncio.Event) -> Any:
    @tool(pure=True, hedge="10ms")
    async def work() -> None:
        await deaf(stop)

    return work


TOOLS = [hangs, is_deaf, writes, streams, hedges]


@pytest.mark.parametrize("kind", TOOLS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("within", ["plan", "workflow", "child"])
async def test_a_call_that_does_not_end(
    kind: Callable[[asyncio.Event], Awaitable[Any]], within: str
) -> None:
    stop = asyncio.Event()
    work = await kind(stop)
    budget = Budget(deadline=DEADLINE)

    @tool
    async def done() -> int:
        return 1

    @workflow
    async def child() -> None:
        await gather(work(), work())

    @workflow(budget=budget)
    async def flow() -> None:
        await done()
        await (child() if within == "child" else work())

    plan = Plan((Node("done"), Node("work", after=(0,))))
    async with Engine(limits=QUICK) as engine:
        if within == "plan":
            error = await answered(lambda: engine.start(plan, tools=[done, work], budget=budget))
        else:
            error = await answered(lambda: engine.start(flow))
        assert isinstance(error, DeadlineExceeded)
        assert error.results == {0: 1} and error.pending == (1,)
        stop.set()


async def test_a_thread_that_does_not_end(over: threading.Event) -> None:
    @tool
    def work() -> None:
        over.wait(5)

    async with Engine(limits=QUICK) as engine:
        plan = Plan((Node("work"),))
        error = await answered(lambda: engine.start(plan, tools=[work], deadline=DEADLINE))
        assert error.unfinished == ("work",)
        over.set()


async def test_a_workflow_whose_code_does_not_end() -> None:
    stop = asyncio.Event()

    @workflow(budget=Budget(deadline=DEADLINE))
    async def flow() -> None:
        await deaf(stop)

    async with Engine(limits=QUICK) as engine:
        await answered(lambda: engine.start(flow))
        stop.set()


async def test_thousands_of_calls_that_do_not_end() -> None:
    @tool
    async def work(n: int) -> None:
        await forever()

    nodes = tuple(Node("work", (n,)) for n in range(20_000))
    async with Engine(limits=Limits(run=10_000)) as engine:
        plan = Plan(nodes)
        error = await answered(lambda: engine.start(plan, tools=[work], deadline=0.8))
        assert len(error.pending) == 20_000


async def test_whoever_reads_its_events() -> None:
    @tool
    async def work(n: int) -> None:
        await forever()

    plan = Plan(tuple(Node("work", (n,)) for n in range(1_000)))
    async with Engine() as engine:
        stream = engine.stream(plan, tools=[work], deadline=0.3)
        deadline = Deadline((await anext(stream)).at + 0.3)
        seen = [event async for event in stream]
        deadline.check()
    assert isinstance(seen[-1], RunFailed) and isinstance(seen[-1].error, DeadlineExceeded)


# Models


async def silent(_call: object) -> str:
    """A model that never answers."""
    await forever()
    raise AssertionError


async def connected(engine: Engine, name: str | None = None) -> None:
    """Have a client made, which takes a while the first time."""
    model: Any = engine.model(name)
    await model.connect()


@pytest.mark.parametrize("models", [["small"], ["small", "large"]], ids=["one", "several"])
async def test_a_call_whose_models_never_answer(models: list[str]) -> None:
    @llm(model=models, samples=(1, 2), repairs=0)
    async def ask(text: str) -> str:
        """Answer {text}"""
        raise NotImplementedError

    @workflow(budget=Budget(deadline=0.3))
    async def flow() -> list[str]:
        return await gather(ask("a"), ask("b"))

    async with (
        ScriptedServer(silent) as server,
        Engine(base_url=server.base_url, model="m", limits=QUICK) as engine,
    ):
        for name in models:
            await connected(engine, name)
        error = await answered(lambda: engine.start(flow))
        assert isinstance(error, DeadlineExceeded) and server.requests


@pytest.mark.parametrize("strategy", ["plan", "react"])
async def test_a_model_that_never_answers(strategy: Any) -> None:
    async with (
        ScriptedServer(silent) as server,
        Engine(base_url=server.base_url, model="m", limits=QUICK) as engine,
    ):
        task = Task("Which?", strategy=strategy, budget=Budget(deadline=DEADLINE))
        await answered(lambda: engine.start(task))


@pytest.mark.parametrize("strategy", ["plan", "react"])
async def test_a_model_whose_call_does_not_end(strategy: Any) -> None:
    stop, began = asyncio.Event(), asyncio.Event()

    @tool(reads="web")
    async def work() -> None:
        began.set()
        await deaf(stop)

    said = "$1 = work()\njoin()" if strategy == "plan" else Reply(Call("work", {}))
    async with (
        ScriptedServer([said]) as server,
        Engine(base_url=server.base_url, model="m", tools=[work], limits=QUICK) as engine,
    ):
        await connected(engine)
        task = Task("Which?", strategy=strategy, budget=Budget(deadline=0.3))
        error = await answered(lambda: engine.start(task))
        assert began.is_set() and error.unfinished == ("work",)
        stop.set()


# Before the first call


@pytest.mark.parametrize("target", ["plan", "workflow", "task"])
async def test_a_deadline_that_has_passed_already(target: str) -> None:
    called: list[int] = []

    @tool
    async def work() -> None:
        called.append(1)

    budget = Budget(deadline=0)

    @workflow(budget=budget)
    async def flow() -> None:
        await work()

    targets: dict[str, Any] = {
        "plan": Plan((Node("work"),)),
        "workflow": flow,
        "task": Task("Which?", tools=[work], budget=budget),
    }
    options = {"tools": [work], "budget": budget} if target == "plan" else {}
    async with Engine() as engine:
        error = await answered(lambda: engine.start(targets[target], **options))
    assert isinstance(error, DeadlineExceeded) and called == []
