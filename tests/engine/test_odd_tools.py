"""Tools, subscribers and values that misbehave: the run ends, and says why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pydantic
import pytest

from agentflow import Engine, Plan, tool, workflow
from agentflow.clock import now
from agentflow.errors import ArgumentError, ResultError, RunCancelled, RunFailed
from agentflow.events import Event, RunFinished
from agentflow.planner.plan import GATHER, Node, Ref
from agentflow.testing import Timeline, run_virtual


class Alarm(BaseException):
    """Not an Exception."""


def plan(*nodes: Node) -> Plan:
    return Plan(nodes)


async def failure(engine: Engine, plan: Plan, *tools: Any) -> BaseException | None:
    with pytest.raises(RunFailed) as failed:
        await engine.run(plan, tools=tools)
    return failed.value.__cause__


async def test_an_exception_that_is_none_is_a_failure_like_others(engine: Engine) -> None:
    alarm = Alarm("fire")

    @tool
    async def ring() -> None:
        raise alarm

    assert await failure(engine, plan(Node("ring")), ring) is alarm


async def test_it_reaches_a_workflow_and_may_be_caught_there(engine: Engine) -> None:
    @tool
    async def ring() -> None:
        raise Alarm("fire")

    @workflow
    async def calm() -> str:
        try:
            await ring()
        except Alarm as alarm:
            return str(alarm)
        return "nothing"

    assert await engine.run(calm) == "fire"


async def test_a_workflow_that_raises_one_fails(engine: Engine) -> None:
    @workflow
    async def ring() -> None:
        raise Alarm("fire")

    with pytest.raises(RunFailed, match="Alarm: fire"):
        await engine.run(ring)


async def test_stop_iteration_from_a_tool_is_a_runtime_error(engine: Engine) -> None:
    @tool
    async def stop() -> None:
        raise StopIteration(1)

    error = await failure(engine, plan(Node("stop")), stop)
    assert isinstance(error, RuntimeError) and "StopIteration" in str(error)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_a_tool_ends_the_program_and_hangs_nothing(
    interrupt: type[BaseException],
) -> None:
    line = Timeline()

    @tool
    async def stop() -> None:
        await asyncio.sleep(1)
        raise interrupt

    @tool
    async def other() -> None:
        with line.span("other"):
            await asyncio.sleep(100)

    async def main() -> None:
        async with Engine(tools=[stop, other]) as engine:
            await engine.run(plan(Node("stop"), Node("other")))

    with pytest.raises(interrupt):
        run_virtual(main())
    assert line.at("other ended") == 1.0


async def test_a_generator_that_fails_midway_fails_its_call(engine: Engine) -> None:
    @tool
    async def some() -> AsyncIterator[int]:
        yield 1
        raise OSError("cut off")

    error = await failure(engine, plan(Node("some")), some)
    assert isinstance(error, OSError)


async def test_a_generator_is_closed_when_its_call_is_cancelled(engine: Engine) -> None:
    line = Timeline()

    @tool
    async def endless() -> AsyncIterator[int]:
        with line.span("endless"):
            while True:
                await asyncio.sleep(1)
                yield 1

    run = engine.start(plan(Node("endless")), tools=[endless])
    await asyncio.sleep(3.5)
    run.cancel()
    with pytest.raises(RunCancelled):
        await run
    assert line.at("endless ended") == 3.5


async def test_a_value_that_the_annotation_does_not_allow_fails_the_call(engine: Engine) -> None:
    @tool
    async def count() -> int:
        return "many"  # type: ignore[return-value]  # meant

    error = await failure(engine, plan(Node("count")), count)
    assert isinstance(error, ResultError) and error.tool == "count"
    assert "count returned what '-> int' does not allow" in str(error)


async def test_a_value_of_the_wrong_type_for_the_next_call_fails_that_call(
    engine: Engine,
) -> None:
    @tool
    async def word() -> str:
        return "seven"

    @tool
    async def double(n: int) -> int:
        return 2 * n

    error = await failure(engine, plan(Node("word"), Node("double", (Ref(0),))), word, double)
    assert isinstance(error, ArgumentError) and error.argument == "n"


async def test_a_path_that_leads_nowhere_fails_the_call_that_takes_it(engine: Engine) -> None:
    @tool
    async def page() -> dict[str, Any]:
        return {"title": "t"}

    @tool
    async def show(text: Any) -> Any:
        return text

    nodes = plan(Node("page"), Node("show", (Ref(0, ("body",)),)))
    error = await failure(engine, nodes, page, show)
    assert isinstance(error, LookupError)
    assert "in the value of $1: there is no 'body' among 'title'" in str(error)


async def test_a_value_nested_too_deep_to_copy_fails_its_user_and_not_the_run(
    engine: Engine,
) -> None:
    @tool
    async def deep() -> Any:
        value: Any = []
        for _ in range(100_000):
            value = [value]
        return value

    @tool
    async def show(text: Any) -> Any:
        return text

    @workflow
    async def look() -> str:
        try:
            await deep()
        except RecursionError:
            return "too deep"
        return "fine"

    assert await engine.run(look) == "too deep"
    nodes = plan(Node("deep"), Node("show", (Ref(0),)), Node(GATHER, (Ref(0),)))
    assert isinstance(await failure(engine, nodes, deep, show), RecursionError)


async def test_a_model_that_cannot_be_copied_fails_whoever_awaits_it(engine: Engine) -> None:
    class Locked(pydantic.BaseModel):
        def model_copy(self, **_: Any) -> Any:
            raise OSError("locked")

    @tool
    async def lock() -> Locked:
        return Locked()

    @workflow
    async def look() -> Locked:
        return await lock()

    with pytest.raises(RunFailed, match="locked"):
        await engine.run(look)


async def test_a_subscriber_that_raises_is_told_nothing_more_and_disturbs_nobody(
    engine: Engine,
) -> None:
    heard: list[Event] = []
    faults: list[dict[str, Any]] = []
    calls = 0

    def bad(event: Event) -> None:
        nonlocal calls
        calls += 1
        raise OSError("subscriber")

    @tool
    async def one() -> int:
        return 1

    asyncio.get_running_loop().set_exception_handler(lambda _loop, fault: faults.append(fault))
    engine.subscribe(bad)
    engine.subscribe(heard.append)
    assert await engine.run(plan(Node("one")), tools=[one]) == {0: 1}
    assert calls == 1 and isinstance(heard[-1], RunFinished)
    assert [type(fault["exception"]) for fault in faults] == [OSError]


async def test_an_error_of_the_engine_itself_ends_the_run(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Timeline()

    @tool
    async def slow() -> None:
        with line.span("slow"):
            await asyncio.sleep(50)

    @workflow
    async def wait() -> None:
        await slow()

    run = engine.start(wait)
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, fault: faults.append(fault))

    def broken(_happening: object) -> Any:
        raise ZeroDivisionError("a bug")

    await asyncio.sleep(1)
    monkeypatch.setattr(run.driver.state, "react", broken)
    with pytest.raises(ZeroDivisionError):
        run.cancel(call=0)
    with pytest.raises(RunFailed) as failed:
        await run
    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    assert now() == line.at("slow ended") == 1.0
