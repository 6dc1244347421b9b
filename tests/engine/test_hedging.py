"""A second attempt beside a slow one: when it is made, who wins, and what becomes of the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from agentflow import Budget, Engine, tool, workflow
from agentflow.clock import now
from agentflow.errors import CallTimeout, DefinitionError, RunCancelled, RunFailed
from agentflow.events import Event, NodeEmitted, NodeHedged
from agentflow.executor.calls.hedging import ENOUGH, LONGER
from agentflow.executor.run import Run
from agentflow.testing import Timeline
from agentflow.tools.policy import DEFAULT
from agentflow.tools.tool import Tool

READS: dict[str, Any] = {"reads": "web", "ttl": 0}


class Attempts:
    """A tool whose attempts take as long as a list says; a failure fails when its time is over."""

    def __init__(self, *script: float | Exception, **options: Any) -> None:
        self.line = Timeline()
        self.script = list(script)
        self.begun: list[float] = []

        @tool(name="call", **{**READS, **options})
        async def call() -> int:
            number = len(self.begun)
            self.begun.append(now())
            step = self.script[number]
            with self.line.span(f"{number}"):
                await asyncio.sleep(1 if isinstance(step, Exception) else step)
            if isinstance(step, Exception):
                raise step
            return number

        self.tool: Tool[..., Any] = call

    def begin(self, engine: Engine) -> Run[Any]:
        @workflow
        async def once() -> Any:
            return await self.tool()

        return engine.start(once)


async def test_a_quick_call_is_made_once(engine: Engine) -> None:
    calls = Attempts(2.9, hedge=3)
    assert await calls.begin(engine) == 0
    assert calls.begun == [0]


async def test_a_slow_call_is_made_again_and_the_first_answer_wins(engine: Engine) -> None:
    calls = Attempts(100, 5, hedge=3)
    assert await calls.begin(engine) == 1
    assert (calls.begun, now()) == ([0, 3], 8)
    await asyncio.sleep(0.001)
    assert calls.line.at("0 ended") == 8, "the slower one is cancelled"


async def test_the_first_attempt_may_still_win(engine: Engine) -> None:
    calls = Attempts(5, 100, hedge=3)
    assert await calls.begin(engine) == 0
    await asyncio.sleep(0.001)
    assert (calls.begun, calls.line.at("1 ended")) == ([0, 3], 5)


async def test_there_is_never_a_third_attempt(engine: Engine) -> None:
    calls = Attempts(100, 200, hedge=3)
    assert await calls.begin(engine) == 0
    assert calls.begun == [0, 3]


async def test_a_failure_of_the_first_is_not_the_end(engine: Engine) -> None:
    calls = Attempts(OSError("first"), 5, hedge=0.5)
    assert await calls.begin(engine) == 1
    assert now() == 5.5


async def test_a_failure_of_the_second_is_not_the_end(engine: Engine) -> None:
    calls = Attempts(5, OSError("second"), hedge=0.5)
    assert await calls.begin(engine) == 0
    assert now() == 5


async def test_when_both_fail_it_is_the_first_failure_that_is_told(engine: Engine) -> None:
    calls = Attempts(OSError("first"), OSError("second"), hedge=0.5)
    with pytest.raises(RunFailed) as failed:
        await calls.begin(engine)
    assert str(failed.value.__cause__) == "first"


async def test_a_failure_before_the_time_is_up_is_not_made_good_by_a_second_attempt(
    engine: Engine,
) -> None:
    calls = Attempts(OSError("first"), 1, hedge=3)
    with pytest.raises(RunFailed, match="first"):
        await calls.begin(engine)
    assert len(calls.begun) == 1


async def test_a_cancelled_call_cancels_both_and_waits_for_them(engine: Engine) -> None:
    line = Timeline()

    @tool(**READS, hedge=1)
    async def slow() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            line.note("cleaned")

    @workflow
    async def once() -> None:
        await slow()

    run = engine.start(once)
    await asyncio.sleep(5)
    run.cancel()
    with pytest.raises(RunCancelled):
        await run
    await run.ended()
    assert line.notes == [(6, "cleaned"), (6, "cleaned")]


async def test_a_time_limit_is_for_both_together(engine: Engine) -> None:
    calls = Attempts(100, 100, hedge=3, timeout=10)
    with pytest.raises(RunFailed) as failed:
        await calls.begin(engine)
    assert isinstance(failed.value.__cause__, CallTimeout)
    assert now() == calls.line.at("1 ended") == 10


async def test_each_attempt_of_a_retry_is_hedged(engine: Engine) -> None:
    script = (OSError("1"), OSError("2"), 100, 1)
    calls = Attempts(*script, hedge=0.5, retries=1, backoff=0)
    assert await calls.begin(engine) == 3
    assert calls.begun == [0, 0.5, 1.5, 2.0]


async def test_each_attempt_has_its_own_arguments(engine: Engine) -> None:
    seen: list[list[int]] = []

    @tool(**READS, hedge=1)
    async def change(given: list[int]) -> list[int]:
        seen.append(list(given))
        given.append(8)
        await asyncio.sleep(100 if len(seen) == 1 else 1)
        return given

    @workflow
    async def once() -> list[int]:
        return await change([7])

    assert await engine.run(once) == [7, 8]
    assert seen == [[7], [7]]


async def test_items_of_the_second_attempt_are_not_heard_beside_those_of_the_first(
    engine: Engine,
) -> None:
    pauses = [[1.0, 1.0, 100.0], [1.0, 1.0, 1.0]]

    @tool(**READS, hedge=2.5)
    async def items() -> AsyncIterator[int]:
        for number, pause in enumerate(pauses.pop(0)):
            await asyncio.sleep(pause)
            yield number

    @workflow
    async def once() -> list[int]:
        return await items()

    told: list[Event] = []
    engine.subscribe(told.append)
    assert await engine.run(once) == [0, 1, 2]
    assert now() == 5.5
    assert [event.data for event in told if isinstance(event, NodeEmitted)] == [0, 1]


# Room


async def test_there_is_no_second_attempt_where_there_is_no_room(engine: Engine) -> None:
    calls = Attempts(10, 10, hedge=3, limit=2)
    runs = [calls.begin(engine), calls.begin(engine)]
    assert [await run for run in runs] == [0, 1]
    assert calls.begun == [0, 0]


async def test_a_second_attempt_makes_way_for_a_call_that_queues(engine: Engine) -> None:
    calls = Attempts(20, 100, 5, hedge=3, limit=2)
    first = calls.begin(engine)
    await asyncio.sleep(6)
    second = calls.begin(engine)
    assert await second == 2
    assert calls.line.at("1 ended") == 6
    assert (await first, now()) == (0, 20)


async def test_a_second_attempt_that_has_ended_has_given_back_its_place(engine: Engine) -> None:
    calls = Attempts(100, 1, 5, 5, 5, hedge=3, limit=2)
    assert await calls.begin(engine) == 1
    await asyncio.sleep(0.001)
    began = now()
    assert await asyncio.gather(*(calls.begin(engine).result() for _ in range(3))) == [2, 3, 4]
    assert now() - began == 10


async def test_who_waits_at_the_gate_goes_in_when_a_second_attempt_has_failed(
    engine: Engine,
) -> None:
    calls = Attempts(10, OSError("second"), hedge=3, limit=2)
    assert await calls.begin(engine) == 0
    shared = engine.services.call(calls.tool, None)
    assert (shared.gate.free, shared.gate.guests) == (2, [])


async def test_who_comes_next_waits_until_an_attempt_that_lost_has_ended(engine: Engine) -> None:
    most: list[int] = []
    busy: set[int] = set()

    @tool(**READS, limit=2, hedge=3)
    async def call(number: int) -> int:
        mine, first = len(most), not most
        busy.add(mine)
        most.append(len(busy))
        try:
            await asyncio.sleep(100 if first else 1)
        finally:
            await asyncio.sleep(10 if first else 0)
            busy.remove(mine)
        return number

    @workflow
    async def three() -> list[int]:
        return [await call(1), *await call.map([2, 3])]

    assert await engine.run(three) == [1, 2, 3]
    assert (max(most), now()) == (2, 6)


@pytest.mark.parametrize(("limit", "hosted"), [(2, False), (DEFAULT.limit, True)])
async def test_a_thread_with_a_limit_is_not_hedged_for_it_cannot_be_stopped(
    engine: Engine, limit: int, hosted: bool
) -> None:
    @tool(**READS, limit=limit, hedge=1)
    def call() -> None: ...

    assert engine.services.call(call, None).gate.hosts is hosted


# Means


@pytest.mark.parametrize(("budget", "spent", "ends"), [("0.1", "0.1", 10), ("0.2", "0.2", 4)])
async def test_a_second_attempt_is_paid_for_or_not_made(
    engine: Engine, budget: str, spent: str, ends: float
) -> None:
    calls = Attempts(10, 1, hedge=3, usd="0.1")

    @workflow(budget=Budget(usd=budget))
    async def once() -> Any:
        return await calls.tool()

    await engine.run(once)
    assert now() == ends
    assert engine.ledger.spent.usd == Decimal(spent)


@pytest.mark.parametrize(("rate", "ends"), [("1/m", 10), ("1/s", 4)])
async def test_a_second_attempt_has_a_turn_of_its_own_or_is_not_made(
    engine: Engine, rate: str, ends: float
) -> None:
    assert await Attempts(10, 1, hedge=3, rate=rate).begin(engine) in (0, 1)
    assert now() == ends


async def test_a_second_attempt_that_was_not_made_has_used_up_no_turn(engine: Engine) -> None:
    calls = Attempts(10, 1, hedge=3, rate="1/m")
    await calls.begin(engine)
    assert await calls.begin(engine) == 1
    assert calls.begun == pytest.approx([0, 60])


async def test_without_the_money_no_turn_is_used_up(engine: Engine) -> None:
    calls = Attempts(4, 1, hedge=3, rate="1/s", usd="0.1")

    @workflow(budget=Budget(usd="0.1"))
    async def once() -> Any:
        return await calls.tool()

    assert await engine.run(once) == 0
    assert await calls.begin(engine) == 1
    assert calls.begun == [0, 4]


async def test_a_second_attempt_is_told_of(engine: Engine) -> None:
    told: list[Event] = []
    engine.subscribe(told.append)
    await Attempts(2, hedge=3).begin(engine)
    assert not [event for event in told if isinstance(event, NodeHedged)]
    await Attempts(100, 5, hedge=3).begin(engine)
    (event,) = [event for event in told if isinstance(event, NodeHedged)]
    assert (event.tool, event.at, event.after) == ("call", 5, 3)


# With the cache


async def test_a_call_that_others_wait_for_is_hedged_once(engine: Engine) -> None:
    calls = Attempts(100, 5, hedge=3, ttl=60)
    runs = [calls.begin(engine) for _ in range(3)]
    assert [await run for run in runs] == [1, 1, 1]
    assert await calls.begin(engine) == 1
    assert (calls.begun, now()) == ([0, 3], 8)


# When a call is slow


async def test_a_call_is_slow_when_it_takes_longer_than_most_have(engine: Engine) -> None:
    usual = [float(seconds) for seconds in range(1, ENOUGH + 1)]
    calls = Attempts(*usual, 100, 1, hedge=True)
    for _ in usual:
        await calls.begin(engine)
    began = now()
    assert await calls.begin(engine) == ENOUGH + 1
    assert calls.begun[-2:] == [began, began + ENOUGH * LONGER]


async def test_calls_that_all_take_as_long_are_none_of_them_slow(engine: Engine) -> None:
    calls = Attempts(*[0.1] * (ENOUGH * 3), hedge=True)
    for _ in range(ENOUGH * 3):
        await calls.begin(engine)
    assert len(calls.begun) == ENOUGH * 3


async def test_while_few_calls_have_been_made_none_is_slow(engine: Engine) -> None:
    calls = Attempts(*[1.0] * (ENOUGH - 1), 100, hedge=True)
    for _ in range(ENOUGH - 1):
        await calls.begin(engine)
    assert await calls.begin(engine) == ENOUGH - 1
    assert len(calls.begun) == ENOUGH


@pytest.mark.parametrize("effect", [{}, {"writes": "web"}, {"writes": "web", "idempotent": True}])
def test_what_may_not_be_done_twice_at_once_cannot_be_hedged(effect: dict[str, Any]) -> None:
    async def call() -> None: ...

    with pytest.raises(DefinitionError, match="would be called twice at once"):
        tool(**effect, hedge=True)(call)
    with pytest.raises(DefinitionError, match="would be called twice at once"):
        tool(**effect)(call).with_(hedge="5s")
