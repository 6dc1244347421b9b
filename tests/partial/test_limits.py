"""Money, places at a gate, rates and time limits of calls that begin while they are written."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from agentflow import Budget, Context, Late, Task, Tool, Warm, events, tool, workflow

pytestmark = pytest.mark.virtual


def reader(lab: Any, **options: Any) -> Tool[..., str]:
    """A tool that begins with its key, and works for two seconds of its own."""

    @tool(reads="r/{key}", **options)
    async def read(key: str, hint: Late[str]) -> str:
        lab.note(f"{key} begun")
        try:
            await asyncio.sleep(2.0)
            said = await hint
        except asyncio.CancelledError:
            lab.note(f"{key} cancelled")
            raise
        lab.note(f"{key} done")
        return f"{key} {said}"

    return read


def halves(pen: Any, key: str, index: int = 0) -> tuple[Any, Any]:
    """A call of the reader: what lets it begin, and the rest."""
    opening = pen.written("read", f'{{"key": "{key}", "hint": "', index=index)
    return opening, pen.call(index, 'x"}', wait=1.0)


# Money


async def test_a_call_that_began_early_is_paid_once(lab: Any, pen: Any) -> None:
    opening, rest = halves(pen, "a")
    engine = lab.start([*opening, rest], "Done.", tools=[reader(lab, usd=0.25)])

    run = engine.start(Task("Which?", "react"))
    await asyncio.sleep(1.5)
    assert (run.ledger.reserved.usd, run.ledger.spent.usd) == (Decimal("0.25"), 0)
    await run

    assert (run.ledger.reserved.usd, run.ledger.spent.usd) == (0, Decimal("0.25"))


async def test_a_tool_that_was_called_and_is_retracted_is_paid(lab: Any, pen: Any) -> None:
    opening, _ = halves(pen, "a")
    turn = [*opening, pen.call(0, 'x", "bogus": 1}', wait=1.0)]
    engine = lab.start(turn, "Done.", tools=[reader(lab, usd=0.25)])

    run = engine.start(Task("Which?", "react"))
    await run

    assert (run.ledger.reserved.usd, run.ledger.spent.usd) == (0, Decimal("0.25"))


async def test_one_that_was_retracted_while_it_warmed_up_is_not(lab: Any, pen: Any) -> None:
    @tool(pure=True, usd=0.25)
    async def fetch(url: str, hint: Late[str], *, link: Warm[str]) -> str:
        raise AssertionError("it is not called")

    @fetch.warm
    async def connect() -> str:
        await asyncio.sleep(60.0)
        return "link"

    turn = pen.written("fetch", '{"url": "u", "hint": "', 'x", "bogus": 1}')
    engine = lab.start(turn, "Done.", tools=[fetch])

    run = engine.start(Task("Which?", "react"))
    await asyncio.sleep(1.5)
    assert run.ledger.reserved.usd == 0, "only when the tool is about to be called"
    await run

    assert (run.ledger.reserved.usd, run.ledger.spent.usd) == (0, 0)


async def test_nothing_with_a_price_begins_out_of_a_budget_that_calls_live_on(
    lab: Any, pen: Any
) -> None:
    opening, rest = halves(pen, "a")
    engine = lab.start([*opening, rest], "Done.", tools=[reader(lab, usd=0.25)])

    run = engine.start(Task("Which?", "react", budget=Budget(usd=1)))
    await run

    assert lab.at("a begun") == 2.0, "when its call is complete"
    assert run.ledger.spent.usd == Decimal("0.25")


async def test_a_tool_does_not_begin_without_the_money_for_it(lab: Any, pen: Any) -> None:
    opening, rest = halves(pen, "a")
    engine = lab.start([*opening, rest], "Done.", tools=[reader(lab, usd=0.25)])

    await engine.run(Task("Which?", "react", budget=Budget(usd="0.2")))

    assert lab.log == []
    assert "does not fit" in lab.results()[0] or "BudgetExceeded" in lab.results()[0]


async def test_what_has_begun_never_exceeds_the_budget(lab: Any, pen: Any) -> None:
    """Ten calls begin at the same time, and three can be paid."""
    calls = [halves(pen, str(index), index) for index in range(10)]
    turn = [
        *(stroke for opening, _ in calls for stroke in opening),
        *(rest for _, rest in calls),
    ]
    engine = lab.start(turn, "Done.", tools=[reader(lab, usd=0.25)])
    most = Decimal(0)

    run = engine.start(Task("Which?", "react", budget=Budget(usd="0.8")))
    for _ in range(250):
        await asyncio.sleep(0.1)
        most = max(most, run.ledger.spent.usd + run.ledger.reserved.usd)
    await run

    assert most == run.ledger.spent.usd == Decimal("0.75")
    assert sum(result.endswith(" x") for result in lab.results()) == 3


# Gates


async def test_the_place_of_what_began_is_its_calls(lab: Any, pen: Any) -> None:
    opening, rest = halves(pen, "a")

    await lab.react([*opening, rest], tools=[reader(lab, limit=1)])

    assert lab.log == [("a begun", 1.0), ("a done", 3.0)]


async def test_only_as_many_begin_as_there_are_places(lab: Any, pen: Any) -> None:
    calls = [halves(pen, key, index) for index, key in enumerate("abc")]
    turn = [stroke for opening, rest in calls for stroke in (*opening, rest)]

    await lab.react(turn, tools=[reader(lab, limit=2)])

    # the third call begins when the first has ended, not before
    assert [what for what in lab.notes if "begun" in what] == ["a begun", "b begun", "c begun"]
    assert lab.at("c begun") >= lab.at("a done")
    assert lab.results() == ["a x", "b x", "c x"]


async def test_a_call_of_another_run_takes_the_place_of_what_only_began(lab: Any, pen: Any) -> None:
    made = reader(lab, limit=1)

    @workflow
    async def other() -> str:
        return await made("b", "now")

    opening, rest = halves(pen, "a")
    engine = lab.start([*opening, rest], "Done.", tools=[made])
    run = engine.start(Task("Which?", "react"))
    await asyncio.sleep(1.5)

    assert await engine.run(other) == "b now"
    await run

    assert lab.log == [
        ("a begun", 1.0), ("a cancelled", 1.5), ("b begun", 1.5), ("b done", 3.5),
        ("a begun", 3.5), ("a done", 5.5),
    ]  # fmt: skip
    assert [str(event.why) for event in lab.told(events.PartialRetracted)] == [
        "it made way for a call"
    ]


async def test_what_cannot_be_paid_keeps_no_place(lab: Any, pen: Any) -> None:
    """Another call goes ahead, and what was made ready stays."""

    @tool(pure=True, limit=1, usd=0.5)
    async def fetch(url: str, hint: Late[str], *, link: Warm[str]) -> str:
        return link

    @fetch.warm
    async def connect() -> str:
        return "link"

    made: Tool[..., str] = fetch

    @workflow
    async def other() -> str:
        return await made("u", "x")

    turn = pen.written("fetch", '{"url": "v", "hint": "', 'x"}')
    engine = lab.start(turn, "Done.", tools=[fetch])
    run = engine.start(Task("Which?", "react", budget=Budget(usd="0.2")))
    await asyncio.sleep(1.5)
    await engine.run(other)
    assert not lab.told(events.PartialRetracted)
    await run


# Rates


async def test_a_call_that_began_early_takes_one_turn(lab: Any, pen: Any) -> None:
    calls = [halves(pen, key, index) for index, key in enumerate("ab")]
    turn = [stroke for opening, rest in calls for stroke in (*opening, rest)]

    await lab.react(turn, tools=[reader(lab, rate=0.1)])

    assert lab.at("a begun") == 1.0
    assert lab.at("b begun") == pytest.approx(11.0)


async def test_a_tool_whose_rate_is_used_up_does_not_begin(lab: Any, pen: Any) -> None:
    opening, rest = halves(pen, "a")
    made = reader(lab, rate=0.1)
    engine = lab.start([*opening, rest], "Done.", tools=[made])

    @workflow
    async def other() -> str:
        return await made("b", "now")

    await engine.run(other)
    await engine.run(Task("Which?", "react"))

    assert lab.at("a begun") == pytest.approx(10.0)
    assert not lab.told(events.PartialStarted)


async def test_nor_does_it_keep_the_money_that_was_set_aside(lab: Any, pen: Any) -> None:
    calls = [halves(pen, key, index) for index, key in enumerate("ab")]
    turn = [*calls[0][0], *calls[1][0], calls[0][1], calls[1][1]]
    engine = lab.start(turn, "Done.", tools=[reader(lab, rate=0.1, usd=0.25)])

    run = engine.start(Task("Which?", "react"))
    await asyncio.sleep(2.5)
    assert run.ledger.reserved.usd == Decimal("0.25"), "of the one that began"
    await run

    assert run.ledger.spent.usd == Decimal("0.5")


# Time


async def test_the_time_limit_of_a_call_counts_from_the_call(lab: Any, pen: Any) -> None:
    @tool(pure=True, timeout=2.0)
    async def slow(key: str, hint: Late[str]) -> str:
        await hint
        await asyncio.sleep(1.5)
        return "in time"

    @tool(pure=True, timeout=2.0)
    async def slower(key: str, hint: Late[str]) -> str:
        await hint
        lab.note("called")
        await asyncio.sleep(2.5)
        raise AssertionError("it is given up on before")

    turn = [
        *pen.written("slow", '{"key": "a", "hint": "', 'x"}', wait=10.0),
        *pen.written("slower", '{"key": "a", "hint": "', 'x"}', index=1, wait=10.0),
    ]
    await lab.react(turn, tools=[slow, slower])

    assert lab.results()[0] == "in time"
    assert lab.results()[1].startswith("failed: CallTimeout: slower took longer than 2 s")
    [replied, _] = lab.told(events.ModelReplied)
    [ended] = lab.told(events.NodeFailed)
    assert ended.at == replied.at + 2.0


async def test_silence_counts_from_the_call_and_from_what_was_told(lab: Any, pen: Any) -> None:
    @tool(pure=True, idle=2.0)
    async def chatty(key: str, hint: Late[str], *, ctx: Context) -> str:
        ctx.emit("hello")
        await hint
        for number in range(3):
            await asyncio.sleep(1.5)
            ctx.emit(number)
        return "all said"

    turn = pen.written("chatty", '{"key": "a", "hint": "', 'x"}', wait=10.0)
    await lab.react(turn, tools=[chatty])

    assert lab.results() == ["all said"]
    assert [event.data for event in lab.told(events.NodeEmitted)] == ["hello", 0, 1, 2]


# Attempts


async def test_an_attempt_that_began_early_and_failed_is_made_again(lab: Any, pen: Any) -> None:
    @tool(pure=True, retries=1, backoff=0.1)
    async def flaky(key: str, hint: Late[str], *, ctx: Context) -> str:
        said = await hint
        lab.note(f"attempt {ctx.attempt}")
        if len(lab.log) == 1:
            raise ConnectionError("away")
        return said

    await lab.react(pen.written("flaky", '{"key": "a", "hint": "', 'x"}'), tools=[flaky])

    assert lab.results() == ["x"]
    assert lab.notes[1:] == ["attempt 2"]
    assert [event.attempt for event in lab.told(events.NodeStarted)] == [1, 2]


async def test_a_failure_before_the_call_is_the_calls(lab: Any, pen: Any) -> None:
    @tool(pure=True, fallback="something else")
    async def fragile(key: str, hint: Late[str]) -> str:
        raise LookupError(f"no {key}")

    @tool(pure=True)
    async def brittle(key: str, hint: Late[str]) -> str:
        raise LookupError(f"no {key}")

    turn = [
        *pen.written("fragile", '{"key": "a", "hint": "', 'x"}'),
        *pen.written("brittle", '{"key": "b", "hint": "', 'x"}', index=1),
    ]
    await lab.react(turn, tools=[fragile, brittle])

    assert lab.results() == ["something else", "failed: LookupError: no b"]


async def test_a_tool_that_fails_and_is_not_called_troubles_nobody(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def brittle(key: str, hint: Late[str]) -> str:
        raise LookupError(f"no {key}")

    turn = pen.written("brittle", '{"key": "b", "hint": "', 'x", "bogus": 1}')
    await lab.react(turn, tools=[brittle])

    assert lab.results()[0].startswith("not called")
    assert not lab.told(events.NodeFailed)


async def test_a_hedge_does_not_double_what_began(lab: Any, pen: Any) -> None:
    opening, rest = halves(pen, "a")

    await lab.react([*opening, rest], tools=[reader(lab, hedge=0.5)])

    assert lab.notes == ["a begun", "a done"]
    assert not lab.told(events.NodeHedged)


async def test_a_run_that_is_out_of_money_for_a_second_attempt_says_so(lab: Any, pen: Any) -> None:
    @tool(pure=True, usd=0.25, retries=1, backoff=0.1)
    async def flaky(key: str, hint: Late[str]) -> str:
        raise ConnectionError("away")

    turn = pen.written("flaky", '{"key": "a", "hint": "', 'x"}')
    engine = lab.start(turn, "Done.", tools=[flaky])

    run = engine.start(Task("Which?", "react", budget=Budget(usd="0.3")))
    await run

    assert "BudgetExceeded" in lab.results()[0]
    assert (run.ledger.reserved.usd, run.ledger.spent.usd) == (0, Decimal("0.25"))
