"""Equal calls of several runs at the same time are one call, and each run ends as if alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from agentflow import Budget, Context, Engine, Limits, tool, workflow
from agentflow.clock import now
from agentflow.errors import (
    BudgetExceeded,
    CallCancelled,
    CallTimeout,
    DeadlineExceeded,
    RunCancelled,
    RunFailed,
)
from agentflow.events import Event, NodeEmitted, NodeReused
from agentflow.executor.run import Run
from agentflow.testing import Gate, Scripted, Timeline
from agentflow.tools.tool import Tool


class Slow:
    """A pure tool that takes ten seconds, and one more to clean up after."""

    def __init__(self, *script: Any, **options: Any) -> None:
        self.line = Timeline()
        self.script: Scripted[Any] = Scripted(*(script or ("value",)))

        @tool(name="slow", **{"pure": True, **options})
        async def slow() -> Any:
            try:
                with self.line.span("work"):
                    await asyncio.sleep(10)
                    return await self.script()
            except asyncio.CancelledError:
                with self.line.span("cleaning"):
                    await asyncio.sleep(1)
                raise

        self.tool: Tool[..., Any] = slow

    def begin(self, engine: Engine, budget: Budget | None = None, **options: Any) -> Run[Any]:
        """Call it in a run of its own."""
        called = self.tool.with_(**options) if options else self.tool

        @workflow(budget=budget)
        async def once() -> Any:
            return await called()

        return engine.start(once)

    @property
    def calls(self) -> int:
        return len([what for _, what in self.line.notes if what == "work started"])

    def ended(self, what: str) -> float:
        return self.line.at(f"{what} ended")


async def outcomes(*runs: Run[Any]) -> list[Any]:
    """What came of runs: a value, or the error behind it."""
    ended = await asyncio.gather(*(run.result() for run in runs), return_exceptions=True)
    return [end.__cause__ if isinstance(end, RunFailed) else end for end in ended]


async def test_runs_share_one_call(engine: Engine) -> None:
    slow = Slow()
    told: list[Event] = []
    engine.subscribe(told.append)
    runs = []
    for _ in range(4):
        runs.append(slow.begin(engine))
        await asyncio.sleep(2)
    assert await outcomes(*runs) == ["value"] * 4
    assert (slow.calls, now()) == (1, 10)
    reused = [event for event in told if isinstance(event, NodeReused)]
    assert [event.source for event in reused] == ["shared"] * 3
    assert [event.saved for event in reused] == pytest.approx([2, 4, 6])


@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_a_run_that_is_cancelled_does_not_hurt_the_others(
    engine: Engine, leaver: int
) -> None:
    slow = Slow()
    runs = [slow.begin(engine) for _ in range(3)]
    await asyncio.sleep(4)
    runs[leaver].cancel()
    results = await outcomes(*runs)
    assert isinstance(results.pop(leaver), RunCancelled)
    assert results == ["value", "value"]
    assert (slow.calls, now()) == (1, 10)


@pytest.mark.parametrize("hurried", [0, 1])
async def test_a_run_past_its_deadline_does_not_hurt_the_others(
    engine: Engine, hurried: int
) -> None:
    slow = Slow()
    runs = [
        slow.begin(engine, Budget(deadline=3) if place == hurried else None) for place in range(2)
    ]
    results = await outcomes(*runs)
    assert isinstance(results.pop(hurried), DeadlineExceeded)
    assert results == ["value"]
    assert (slow.calls, now()) == (1, 10)


@pytest.mark.parametrize("hurried", [0, 1])
async def test_a_call_that_has_less_time_does_not_hurt_the_others(
    engine: Engine, hurried: int
) -> None:
    slow = Slow()
    runs = [slow.begin(engine, timeout=3 if place == hurried else 60) for place in range(2)]
    results = await outcomes(*runs)
    assert isinstance(results.pop(hurried), CallTimeout)
    assert results == ["value"]
    assert (slow.calls, now()) == (1, 10)


async def test_a_call_has_its_whole_time_from_when_it_joined(engine: Engine) -> None:
    slow = Slow()
    first = slow.begin(engine, timeout=3)
    await asyncio.sleep(2)
    second = slow.begin(engine, timeout=9)
    results = await outcomes(first, second)
    assert isinstance(results[0], CallTimeout)
    assert (results[1], slow.calls, now()) == ("value", 1, 10)


async def test_the_last_who_leaves_ends_the_call_and_its_run_ends_after_it(engine: Engine) -> None:
    slow = Slow()
    runs = [slow.begin(engine) for _ in range(2)]
    await asyncio.sleep(4)
    for run in runs:
        run.cancel()
    await asyncio.gather(*(run.ended() for run in runs))
    assert (slow.ended("work"), slow.ended("cleaning"), now()) == (4, 5, 5)
    again = slow.begin(engine)
    assert await outcomes(again) == ["value"]
    assert slow.calls == 2


async def test_a_call_is_made_again_while_one_that_nobody_wants_cleans_up(engine: Engine) -> None:
    slow = Slow()
    first = slow.begin(engine)
    await asyncio.sleep(4)
    first.cancel()
    await asyncio.sleep(0.5)
    assert await outcomes(slow.begin(engine)) == ["value"]
    assert (slow.calls, now()) == (2, 14.5)


async def test_a_failure_is_shared_by_all_who_wait_and_by_nobody_after(engine: Engine) -> None:
    slow = Slow(OSError("down"), "value")
    failed = await outcomes(*(slow.begin(engine) for _ in range(3)))
    assert [str(error) for error in failed] == ["down"] * 3
    assert await outcomes(slow.begin(engine)) == ["value"]
    assert slow.calls == 2


@pytest.mark.parametrize(
    "error", [BudgetExceeded("spent", asked=2, left=1, unit="tokens"), DeadlineExceeded("late")]
)
async def test_what_limits_one_run_is_not_shared_by_others(
    engine: Engine, error: Exception
) -> None:
    slow = Slow(error, "value")
    results = await outcomes(*(slow.begin(engine) for _ in range(4)))
    assert results == [error, "value", "value", "value"]
    assert (slow.calls, now()) == (2, 20)


async def test_a_tool_that_awaits_what_was_cancelled_fails_alone(engine: Engine) -> None:
    slow = Slow(asyncio.CancelledError(), "value")
    results = await outcomes(*(slow.begin(engine) for _ in range(3)))
    assert isinstance(results[0], CallCancelled)
    assert results[1:] == ["value", "value"]


async def test_retries_are_each_callers_own(engine: Engine) -> None:
    slow = Slow(OSError("1"), OSError("2"), "value", backoff=0)
    results = await outcomes(slow.begin(engine), slow.begin(engine, retries=2))
    assert [str(result) for result in results] == ["1", "value"]
    assert slow.calls == 3


async def test_a_fallback_is_each_callers_own(engine: Engine) -> None:
    slow = Slow(OSError("1"))
    results = await outcomes(slow.begin(engine), slow.begin(engine, fallback="instead"))
    assert [str(result) for result in results] == ["1", "instead"]
    assert slow.calls == 1


async def test_a_gate_for_one_lets_equal_calls_through_as_soon_as_the_value_is_there(
    engine: Engine,
) -> None:
    slow = Slow(limit=1)
    assert await outcomes(*(slow.begin(engine) for _ in range(5))) == ["value"] * 5
    assert (slow.calls, now()) == (1, 10)


async def test_a_gate_for_one_does_not_keep_a_call_whose_caller_has_left(engine: Engine) -> None:
    slow = Slow(limit=1)
    runs = [slow.begin(engine) for _ in range(3)]
    await asyncio.sleep(4)
    runs[0].cancel()
    results = await outcomes(*runs)
    assert isinstance(results[0], RunCancelled)
    assert results[1:] == ["value", "value"]
    assert (slow.calls, now()) == (2, 15)


async def test_calls_of_one_run_share_too(engine: Engine) -> None:
    calls = 0

    @tool(reads="web")
    async def look() -> int:
        nonlocal calls
        calls += 1
        await asyncio.sleep(10)
        return calls

    @workflow
    async def both() -> list[int]:
        one, other = look(), look()
        return [await one, await other]

    assert await engine.run(both) == [1, 1]
    assert now() == 10


class Thing:
    """What no JSON gives back."""


async def test_a_value_that_cannot_be_copied_is_not_shared(engine: Engine) -> None:
    slow = Slow(Thing(), Thing(), Thing())
    results = await outcomes(*(slow.begin(engine) for _ in range(3)))
    assert [type(result) for result in results] == [Thing] * 3
    assert len(set(map(id, results))) == 3
    assert now() == 20, "those who joined the first call in vain do not wait for each other"


async def test_a_value_that_cannot_be_copied_is_had_and_paid_by_the_first_who_is_left(
    engine: Engine,
) -> None:
    slow = Slow(Thing(), Thing(), usd="0.25")
    runs = [slow.begin(engine) for _ in range(3)]
    await asyncio.sleep(5)
    runs[0].cancel()
    results = await outcomes(*runs)

    assert isinstance(results[0], RunCancelled)
    assert [type(result) for result in results[1:]] == [Thing] * 2
    assert results[1] is not results[2]
    assert slow.calls == 2 and now() == 20
    assert [str(run.ledger.spent.usd) for run in runs] == ["0", "0.25", "0.25"]


async def test_a_thread_is_shared(engine: Engine) -> None:
    calls, release = [], threading.Event()

    @tool(pure=True)
    def think() -> str:
        calls.append(threading.current_thread().name)
        release.wait()
        return "thought"

    @workflow
    async def once() -> str:
        return await think()

    runs = [engine.start(once) for _ in range(3)]
    await asyncio.sleep(0)
    while not calls:
        await asyncio.sleep(0)
    runs[0].cancel()
    release.set()
    results = await outcomes(*runs)
    assert isinstance(results[0], RunCancelled)
    assert (results[1:], len(calls)) == (["thought"] * 2, 1)


async def test_a_generator_goes_on_when_who_began_it_leaves_who_is_then_told_nothing(
    engine: Engine,
) -> None:
    @tool(pure=True)
    async def items() -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(10)
            yield number

    @workflow
    async def once() -> list[int]:
        return await items()

    told: list[Event] = []
    engine.subscribe(told.append)
    first, second = engine.start(once), engine.start(once)
    await asyncio.sleep(15)
    first.cancel()
    results = await outcomes(first, second)
    assert isinstance(results[0], RunCancelled)
    assert results[1] == [0, 1, 2]
    emitted = [(event.run, event.data) for event in told if isinstance(event, NodeEmitted)]
    assert emitted == [(first.id, 0)]


async def test_a_context_of_who_began_the_call_can_still_be_used_when_they_have_left(
    engine: Engine,
) -> None:
    @tool(pure=True)
    async def careful(ctx: Context | None = None) -> str:
        assert ctx is not None
        await asyncio.sleep(10)
        ctx.emit("working")
        assert ctx.idempotency_key
        return "value"

    @workflow
    async def once() -> str:
        return await careful()

    first, second = engine.start(once), engine.start(once)
    await asyncio.sleep(5)
    first.cancel()
    results = await outcomes(first, second)
    assert isinstance(results[0], RunCancelled)
    assert results[1] == "value"


async def test_a_closed_engine_leaves_no_call_behind() -> None:
    slow, gate = Slow(), Gate()

    @tool(pure=True)
    async def stubborn() -> None:
        while True:
            with suppress(asyncio.CancelledError):
                await gate.wait()
                return

    @workflow
    async def resist() -> None:
        await stubborn()

    async with Engine(limits=Limits(grace=3)) as engine:
        runs = [slow.begin(engine) for _ in range(2)]
        stuck = engine.start(resist)
        await asyncio.sleep(4)
    assert [type(result) for result in await outcomes(*runs, stuck)] == [RunCancelled] * 3
    assert (slow.ended("work"), slow.ended("cleaning")) == (4, 5)
    assert now() == 7
    gate.release.set()
    await asyncio.sleep(1)
    left = [task for task in asyncio.all_tasks() if "TestRunner" not in repr(task.get_coro())]
    assert left == []
