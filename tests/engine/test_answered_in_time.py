"""Whatever calls do, the caller has an answer when the deadline passes, and others end later."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from agentflow import Budget, Engine, Limits, Plan, Task, gather, tool, workflow
from agentflow.clock import now
from agentflow.errors import DeadlineExceeded, RunError
from agentflow.events import RunFailed
from agentflow.executor.driver import MANY
from agentflow.executor.run import Run
from agentflow.planner.plan import Node
from agentflow.testing import VirtualLoop

DEADLINE = 3.0


@pytest.fixture
def over(anyio_backend: object) -> Iterator[threading.Event]:
    """Set at the end of the test: a thread that waits for it hangs until then."""
    patience, VirtualLoop.patience = VirtualLoop.patience, 0.01
    event = threading.Event()
    yield event
    event.set()
    VirtualLoop.patience = patience


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def deaf(stop: asyncio.Event) -> None:
    """Goes on when it is cancelled, until it is told to stop."""
    while not stop.is_set():
        try:
            await stop.wait()
        except asyncio.CancelledError:
            continue


async def answered(run: Run[Any]) -> RunError:
    """How a run ends, at its deadline."""
    with pytest.raises(RunError) as failed:
        await run
    assert now() == run.deadline
    return failed.value


# One call


def hangs(_stop: asyncio.Event) -> Any:
    @tool
    async def work() -> None:
        await forever()

    return work


def does_not_listen(stop: asyncio.Event) -> Any:
    @tool
    async def work() -> None:
        await deaf(stop)

    return work


def writes(stop: asyncio.Event) -> Any:
    @tool(writes="disk")
    async def work() -> None:
        await deaf(stop)

    return work


def streams(stop: asyncio.Event) -> Any:
    @tool
    async def work() -> AsyncIterator[int]:
        yield 1
        await deaf(stop)

    return work


def hedges(stop: asyncio.Event) -> Any:
    @tool(pure=True, hedge=1.0)
    async def work() -> None:
        await deaf(stop)

    return work


def tidies_up(_stop: asyncio.Event) -> Any:
    @tool
    async def work() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(1)

    return work


CALLS = [hangs, does_not_listen, writes, streams, hedges, tidies_up]


@pytest.mark.parametrize("kind", CALLS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("within", ["plan", "workflow", "child"])
async def test_a_call_that_does_not_end(kind: Callable[[asyncio.Event], Any], within: str) -> None:
    stop = asyncio.Event()
    work = kind(stop)
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

    async with Engine() as engine:
        if within == "plan":
            plan = Plan((Node("done"), Node("work", after=(0,))))
            run = engine.start(plan, tools=[done, work], budget=budget)
        else:
            run = engine.start(flow)
        error = await answered(run)
        assert isinstance(error, DeadlineExceeded)
        assert error.results == {0: 1} and error.pending == (1,)
        stop.set()


async def test_a_thread_that_does_not_end(over: threading.Event) -> None:
    @tool
    def work() -> None:
        over.wait(5)

    async with Engine() as engine:
        run = engine.start(Plan((Node("work"),)), tools=[work], deadline=DEADLINE)
        error = await answered(run)
        assert error.unfinished == ("work",)
        over.set()


async def test_a_workflow_whose_code_does_not_end() -> None:
    stop = asyncio.Event()

    @workflow(budget=Budget(deadline=DEADLINE))
    async def flow() -> None:
        await deaf(stop)

    async with Engine() as engine:
        await answered(engine.start(flow))
        stop.set()


# Many calls


class Crowd:
    """Calls that do not end, and how many of them have been cancelled."""

    def __init__(self, calls: int) -> None:
        self.cancelled = 0

        @tool
        async def work(n: int) -> None:
            try:
                await forever()
            finally:
                self.cancelled += 1

        self.tools = [work]
        self.plan = Plan(tuple(Node("work", (n,)) for n in range(calls)))


async def test_of_many_calls_the_caller_has_an_answer_before_they_are_ended() -> None:
    crowd = Crowd(4 * MANY)
    async with Engine(limits=Limits(run=2 * MANY)) as engine:
        run = engine.start(crowd.plan, tools=crowd.tools, deadline=DEADLINE)
        error = await answered(run)
        assert (len(error.pending), crowd.cancelled) == (4 * MANY, 0)
        await run.ended()
        assert crowd.cancelled == 2 * MANY


async def test_so_has_one_who_awaits_it_through_others() -> None:
    crowd = Crowd(2 * MANY)
    async with Engine() as engine, asyncio.timeout(10), asyncio.TaskGroup() as group:
        run = engine.start(crowd.plan, tools=crowd.tools, deadline=DEADLINE)
        error = await group.create_task(asyncio.wait_for(answered(run), 10))
        assert (len(error.pending), crowd.cancelled) == (2 * MANY, 0)


async def test_so_has_one_who_reads_its_events() -> None:
    crowd = Crowd(2 * MANY)
    async with Engine() as engine:
        async for event in engine.stream(crowd.plan, tools=crowd.tools, deadline=DEADLINE):
            if isinstance(event, RunFailed):
                assert isinstance(event.error, DeadlineExceeded)
                assert (now(), crowd.cancelled) == (DEADLINE, 0)
    assert isinstance(event, RunFailed)


# No call


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
        error = await answered(engine.start(targets[target], **options))
    assert isinstance(error, DeadlineExceeded) and called == []
