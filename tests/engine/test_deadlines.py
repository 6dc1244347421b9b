"""Deadlines: what would be late is not begun, nor waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentflow import Budget, Context, Engine, Plan, gather, tool, workflow
from agentflow.clock import now
from agentflow.errors import BackendBusy, BudgetExceeded, DeadlineExceeded, RunFailed
from agentflow.executor.calls.hedging import ENOUGH, EVERY
from agentflow.planner.plan import Node
from agentflow.tools.tool import Tool

AnyTool = Tool[..., Any]


def naps(seconds: list[float], **options: Any) -> tuple[AnyTool, list[float]]:
    """A tool that takes as long as the list says, and when it was called."""
    called: list[float] = []

    @tool(**options)
    async def nap() -> float:
        called.append(now())
        took = seconds[min(len(called), len(seconds)) - 1]
        await asyncio.sleep(took)
        return took

    return nap, called


async def make(engine: Engine, nap: AnyTool, times: int = 1, **limits: Any) -> None:
    """Call a tool so many times, one after the other."""
    limits = {"deadline": 1e6} | limits
    chain = [Node("nap", after=(n - 1,) if n else ()) for n in range(times)]
    await engine.run(Plan(tuple(chain)), tools=[nap], budget=Budget(**limits))


async def refused(engine: Engine, nap: AnyTool, **limits: Any) -> BudgetExceeded:
    """How a call is refused, at once."""
    began = now()
    with pytest.raises(RunFailed) as failed:
        await make(engine, nap, **limits)
    assert now() == began
    assert isinstance(failed.value.__cause__, BudgetExceeded)
    return failed.value.__cause__


# Calls whose tools are known to be too slow


async def test_a_call_that_will_not_end_in_time_is_not_begun(engine: Engine) -> None:
    nap, called = naps([10.0])
    await make(engine, nap, ENOUGH)

    error = await refused(engine, nap, deadline=9)

    assert (error.unit, error.asked, error.left) == ("seconds", 10.0, 9.0)
    assert str(error) == (
        "nap was not called, for 95% of its last calls took longer: 10 s do not fit: 9 of 9 s "
        "are left; allow more with Budget(deadline=...)"
    )
    assert len(called) == ENOUGH
    await make(engine, nap, deadline=10.5)


async def test_a_tool_of_which_little_is_known_is_called(engine: Engine) -> None:
    nap, called = naps([10.0])
    await make(engine, nap, ENOUGH - 1)

    with pytest.raises(DeadlineExceeded):
        await make(engine, nap, deadline=9)
    assert len(called) == ENOUGH


async def test_one_call_in_twenty_that_was_quick_is_reason_to_begin(engine: Engine) -> None:
    nap, called = naps([1.0, 2.0] + [10.0] * 18)
    await make(engine, nap, 20)

    with pytest.raises(DeadlineExceeded):
        await make(engine, nap, deadline=9)
    assert len(called) == 21


@pytest.mark.parametrize(
    ("chance", "deadline", "begun"),
    [(0.1, 5, True), (0.3, 5, False), (0.01, 0.5, False), (0.0, 0.5, True)],
)
async def test_how_certain_it_must_be_is_the_budgets_to_say(
    engine: Engine, chance: float, deadline: float, begun: bool
) -> None:
    nap, called = naps([1.0] * 4 + [10.0] * 16)
    await make(engine, nap, 20)

    with pytest.raises(DeadlineExceeded if begun else RunFailed):
        await make(engine, nap, deadline=deadline, least_chance=chance)
    assert len(called) == 20 + begun


async def test_without_a_deadline_nothing_is_refused_nor_measured(engine: Engine) -> None:
    nap, called = naps([10.0])
    plan = Plan(tuple(Node("nap") for _ in range(ENOUGH)))
    await engine.run(plan, tools=[nap])

    with pytest.raises(DeadlineExceeded):
        await make(engine, nap, deadline=5)
    assert len(called) == ENOUGH + 1


async def test_a_tool_that_becomes_faster_is_noticed(engine: Engine) -> None:
    nap, called = naps([10.0] * ENOUGH + [1.0])
    await make(engine, nap, ENOUGH)

    refusals = 0
    for _ in range(3 * EVERY):
        try:
            await make(engine, nap, deadline=5)
        except RunFailed:
            refusals += 1

    assert refusals == 2 * (EVERY - 1)
    assert len(called) == ENOUGH + 3 * EVERY - refusals


async def test_a_call_whose_value_is_known_is_never_late(engine: Engine) -> None:
    nap, called = naps([10.0], reads="nap", ttl="1h")

    @tool(writes="nap")
    async def change() -> None:
        pass

    chain = [Node("nap" if n % 2 else "change", after=(n - 1,) if n else ()) for n in range(60)]
    await engine.run(Plan(tuple(chain)), tools=[nap, change], deadline=1e6)
    assert len(called) == 30

    await make(engine, nap, deadline=1)
    await engine.changed("nap")
    await refused(engine, nap, deadline=1)


async def test_a_write_that_will_not_end_in_time_is_not_begun(engine: Engine) -> None:
    nap, called = naps([10.0], writes="nap")
    await make(engine, nap, ENOUGH)

    await refused(engine, nap, deadline=5)
    assert len(called) == ENOUGH


async def test_a_call_that_is_refused_costs_nothing(engine: Engine) -> None:
    nap, _ = naps([10.0], usd="0.01")
    await make(engine, nap, ENOUGH)
    before = engine.ledger.spent

    await refused(engine, nap, deadline=5)

    assert engine.ledger.spent == before


async def test_a_refused_call_may_have_a_fallback(engine: Engine) -> None:
    nap, _ = naps([10.0], fallback=-1.0)
    await make(engine, nap, ENOUGH)

    plan = Plan((Node("nap"),))
    assert await engine.run(plan, tools=[nap], deadline=5) == {0: -1.0}


async def test_what_is_in_time_is_finished_when_a_call_would_be_late(engine: Engine) -> None:
    nap, _ = naps([10.0])
    await make(engine, nap, ENOUGH)

    @tool
    async def quick(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    began, plan = (
        now(),
        Plan((Node("quick", (4.0,)), Node("quick", (1.0,)), Node("nap", after=(1,)))),
    )
    with pytest.raises(RunFailed) as failed:
        await engine.run(plan, tools=[quick, nap], deadline=8)

    assert now() - began == 4.0 and failed.value.results == {0: 4.0, 1: 1.0}


# Pauses that pass the deadline


async def test_no_pause_before_another_attempt_passes_the_deadline(engine: Engine) -> None:
    tries: list[float] = []

    @tool(retries=5, retry_on=BackendBusy)
    async def ask() -> None:
        tries.append(now())
        raise BackendBusy("later", url="http://x", retry_after=4.0)

    with pytest.raises(RunFailed) as failed:
        await engine.run(Plan((Node("ask"),)), tools=[ask], deadline=10)

    assert tries == [0.0, 4.0, 8.0] and now() == 8.0
    assert isinstance(failed.value.__cause__, BackendBusy)
    assert failed.value.__cause__.__notes__ == [
        "not tried again: after a pause of 4 s the run's time is over"
    ]


async def test_no_turn_that_comes_after_the_deadline_is_waited_for(engine: Engine) -> None:
    nap, called = naps([0.0], rate=0.1)  # one in ten seconds

    with pytest.raises(RunFailed) as failed:
        await make(engine, nap, 3, deadline=15)

    error = failed.value.__cause__
    assert isinstance(error, BudgetExceeded) and (error.unit, error.left) == ("seconds", 5.0)
    assert "rate limit" in str(error)
    assert called == [0.0, 10.0] and now() == 10.0
    await make(engine, nap, deadline=15)
    assert called[2:] == [20.0]  # the turn that was not waited for was given back


# Many calls


@pytest.mark.parametrize("seconds", [10, 5])
async def test_at_the_deadline_of_thousands_of_calls_no_further_one_begins(
    engine: Engine, seconds: float
) -> None:
    begun: list[int] = []

    @tool
    async def work(n: int) -> int:
        begun.append(n)
        await asyncio.sleep(seconds)
        return n

    @workflow(budget=Budget(deadline=5))
    async def flow() -> None:
        try:
            await gather(*[work(n) for n in range(2_000)])
        finally:
            await work(-1)

    run = engine.start(flow)
    with pytest.raises(DeadlineExceeded) as late:
        await run
    await run.ended()

    assert now() == 5.0 and len(late.value.pending) == 2_001
    assert len(begun) == 1_000 and -1 not in begun


# The time that is left


async def test_a_call_learns_how_long_it_has(engine: Engine) -> None:
    left: list[float | None] = []

    @tool
    async def look(context: Context = Context()) -> None:
        left.append(context.remaining())
        await asyncio.sleep(1)

    @workflow(budget=Budget(deadline=3))
    async def inner() -> None:
        await look()
        await look()

    @workflow(budget=Budget(deadline=10))
    async def outer() -> None:
        await look()
        await inner()
        await look()

    await engine.run(outer)
    await engine.run(Plan((Node("look"),)), tools=[look])

    assert left == [10.0, 3.0, 2.0, 7.0, None]


async def test_the_deadline_of_an_engine_counts_from_its_first_run() -> None:
    nap, called = naps([3.0])
    async with Engine(budget=Budget(deadline=10)) as engine:
        await asyncio.sleep(5)
        plan = Plan((Node("nap"),))

        for _ in range(3):
            await engine.run(plan, tools=[nap])
        with pytest.raises(DeadlineExceeded):
            await engine.run(plan, tools=[nap])

    assert called == [5.0, 8.0, 11.0, 14.0] and now() == 15.0
