"""A call that is asked for while a guess makes it, and a guess that a call has made needless."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentflow import Budget, Caching, Candidate, Engine, Trail, events, tool, workflow
from agentflow.clock import now
from agentflow.errors import DeadlineExceeded, RunCancelled, RunFailed, RunPaused
from agentflow.executor.run import Run

WORK = 4.0
"""Seconds that the tool works."""

UNUSED = "the call that asked for it did not take it"

TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("TENANT", default="")


class Shop:
    """A dear tool that is guessed at, a run that asks for it after a while, and one that only asks."""

    def __init__(self, guessing: Any, maybe: Any) -> None:
        self.lab = guessing
        self.fails: set[int] = set()
        self.seen: list[str] = []
        self._maybe = maybe

        @tool(reads="web", ttl="1h", usd="0.05", version="1")
        async def search(query: str) -> str:
            self.seen.append(TENANT.get())
            number = len(self.lab.made)
            said = str(await self.lab.work(query, WORK))
            if number in self.fails:
                raise OSError(f"attempt {number}")
            return said

        @workflow
        async def later(seconds: float) -> str:
            await asyncio.sleep(seconds)
            return str(await search("x"))

        @workflow
        async def at_once() -> str:
            return str(await search("x"))

        self.search, self.later, self.at_once = search, later, at_once

    def start(self, **options: Any) -> Engine:
        """An engine that expects the call until a run has made it."""
        from tests.engine.speculation.conftest import Scripted

        def after(trail: Trail) -> list[Candidate]:
            made = any(step.key and step.arguments == {"query": "x"} for step in trail.steps)
            return [] if made else [self._maybe("search", query="x")]

        source, tools = Scripted(after=after), [self.search]
        engine: Engine = self.lab.start(source, tools=tools, wait_price=1.0, **options)
        return engine

    def paid(self, *runs: Run[Any]) -> tuple[str, ...]:
        """What each run has paid, and speculation last."""
        engine = self.lab.engine
        ledgers = [*(run.ledger for run in runs), engine.services.foresight.ledger]
        assert all(ledger.reserved.usd == 0 for ledger in ledgers)
        assert engine.ledger.spent.usd == sum(run.ledger.spent.usd for run in runs)
        return tuple(f"{ledger.spent.usd:.2f}" for ledger in ledgers)


@pytest.fixture
def shop(guessing: Any, maybe: Any) -> Shop:
    return Shop(guessing, maybe)


# Two who ask, and who pays


@pytest.mark.parametrize("leaves", ["is cancelled", "passes its deadline"])
async def test_who_joined_keeps_and_pays_the_call_if_who_took_it_over_leaves(
    shop: Shop, leaves: str
) -> None:
    engine = shop.start()
    late = leaves == "passes its deadline"
    budget = Budget(deadline=3.0) if late else Budget()
    one = engine.start(shop.later.within(budget), 1.0)
    await asyncio.sleep(2.0)
    other = engine.start(shop.at_once)
    await asyncio.sleep(1.0)
    if not late:
        one.cancel()
    with pytest.raises(DeadlineExceeded if late else RunCancelled):
        await one

    assert await other == "X"
    assert shop.lab.calls == ["x"] and shop.lab.cut == []
    assert now() == WORK
    assert shop.paid(one, other) == ("0.00", "0.05", "0.00")
    assert shop.lab.wasted() == ["the run ended without it" if late else UNUSED]


async def test_whoever_asked_pays_before_speculation_does(shop: Shop) -> None:
    """The run that guesses never asks; another one does, while the guess is under way."""
    engine = shop.start()
    guesser = engine.start(shop.later.within(Budget()), 100.0)
    await asyncio.sleep(1.0)
    other = engine.start(shop.at_once)
    assert await other == "X"
    guesser.cancel()
    await guesser.ended()

    assert shop.paid(guesser, other) == ("0.00", "0.05", "0.00")
    [wasted] = shop.lab.told(events.SpeculationWasted)
    assert wasted.usd == "0"


async def test_what_another_has_paid_is_had_for_nothing(shop: Shop) -> None:
    engine = shop.start(budget=Budget(usd=1))
    guesser = engine.start(shop.later.within(Budget(usd="0.01")), 6.0)
    await asyncio.sleep(1.0)
    other = engine.start(shop.at_once)
    await other

    # The run could not have paid for the call, and need not.
    assert await guesser == "X"
    assert shop.paid(guesser, other) == ("0.00", "0.05", "0.00")
    assert shop.lab.used() == [WORK]
    assert shop.lab.calls == ["x"]


async def test_a_call_that_all_have_left_is_paid_once_by_speculation(shop: Shop) -> None:
    engine = shop.start()
    one = engine.start(shop.later, 1.0)
    await asyncio.sleep(2.0)
    other = engine.start(shop.at_once)
    await asyncio.sleep(0.5)
    other.cancel()
    await other.ended()
    await asyncio.sleep(0.5)
    one.cancel()
    await one.ended()

    assert shop.lab.cut == ["x"] and now() == 3.0
    assert shop.paid(one, other) == ("0.00", "0.00", "0.05")


async def test_a_call_that_who_took_it_over_left_first_is_paid_by_the_last(shop: Shop) -> None:
    engine = shop.start()
    one = engine.start(shop.later, 1.0)
    await asyncio.sleep(2.0)
    other = engine.start(shop.at_once)
    await asyncio.sleep(0.5)
    one.cancel()
    await one.ended()
    await asyncio.sleep(0.5)
    other.cancel()
    await other.ended()

    assert shop.lab.cut == ["x"] and now() == 3.0
    assert shop.paid(one, other) == ("0.00", "0.05", "0.00")


@pytest.mark.parametrize("before", [True, False])
async def test_a_caller_that_leaves_in_the_turn_in_which_the_value_lands(
    shop: Shop, before: bool
) -> None:
    """Whichever comes first: the call was made once, and is paid once."""
    loop, runs = asyncio.get_running_loop(), list[Run[Any]]()

    def leave() -> None:
        runs[0].cancel()

    if before:
        loop.call_at(WORK, leave)
    engine = shop.start()
    runs.append(engine.start(shop.later, 1.0))
    await asyncio.sleep(2.0)
    if not before:
        loop.call_at(WORK, leave)
    await runs[0].ended()
    await asyncio.sleep(1.0)

    assert shop.lab.calls == ["x"]
    assert sorted(shop.paid(*runs)) == ["0.00", "0.05"]


@pytest.mark.parametrize("turns", range(6))
async def test_it_is_paid_once_at_whichever_turn_of_the_loop_after_that(
    shop: Shop, turns: int
) -> None:
    engine, loop = shop.start(), asyncio.get_running_loop()
    run = engine.start(shop.later, 1.0)
    await asyncio.sleep(2.0)

    def leave(turns: int) -> None:
        if turns:
            loop.call_soon(leave, turns - 1)
        else:
            run.cancel()

    loop.call_at(WORK, leave, turns)
    await run.ended()
    await asyncio.sleep(1.0)

    assert sorted(shop.paid(run)) == ["0.00", "0.05"]


# Failures and limits


async def test_the_failure_of_a_guess_is_nobodys_and_is_paid_by_speculation(shop: Shop) -> None:
    shop.fails = {0}
    engine = shop.start()
    one = engine.start(shop.later, 1.0)
    await asyncio.sleep(2.0)
    other = engine.start(shop.at_once)

    assert [await one, await other] == ["X", "X"]
    assert shop.lab.made == [("x", 0.0), ("x", WORK)]
    assert shop.paid(one, other) == ("0.05", "0.00", "0.05")
    assert shop.lab.wasted() == ["it failed"]


async def test_the_failure_of_a_call_made_after_it_is_shared_as_ever(shop: Shop) -> None:
    """Both runs have guessed; where one guess has failed, the other does not try again."""
    shop.fails = {0, 1}
    engine = shop.start()
    one, other = engine.start(shop.later, 1.0), engine.start(shop.later, 2.0)
    for run in (one, other):
        with pytest.raises(RunFailed, match="attempt 1"):
            await run

    assert shop.paid(one, other) == ("0.05", "0.00", "0.05")


@pytest.mark.parametrize("seconds", [1.0, 6.0])
async def test_a_call_that_cannot_be_paid_takes_no_guess_over(shop: Shop, seconds: float) -> None:
    engine = shop.start(budget=Budget(usd=1))  # without it nothing is guessed at in such a run
    run = engine.start(shop.later.within(Budget(usd="0.04")), seconds)
    with pytest.raises(RunFailed, match="do not fit"):
        await run
    await asyncio.sleep(WORK)

    assert shop.paid(run) == ("0.00", "0.05")
    assert shop.lab.wasted() == [UNUSED]


async def test_the_last_cent_of_speculation_is_free_again_when_a_guess_is_used(shop: Shop) -> None:
    engine = shop.start(budget=Budget(usd="0.05"))
    run = engine.start(shop.later, 1.0)
    await asyncio.sleep(2.0)
    room = engine.services.foresight
    assert room is not None and room.ledger.left.usd == 0  # until it is clear who pays
    await run

    assert room.ledger.left.usd == room.ledger.budget.usd
    assert shop.paid(run) == ("0.05", "0.00")


# What a call sees


@pytest.mark.parametrize("apart", [True, False])
async def test_scope_keeps_those_apart_who_see_different_things(shop: Shop, apart: bool) -> None:
    scope: dict[str, Any] = {"cache": Caching(scope=TENANT.get)} if apart else {}
    engine = shop.start(**scope)

    def start(tenant: str, make: Callable[[], Run[Any]]) -> Run[Any]:
        def begin() -> Run[Any]:
            TENANT.set(tenant)
            return make()

        return contextvars.copy_context().run(begin)

    one = start("acme", lambda: engine.start(shop.later, 1.0))
    await asyncio.sleep(2.0)
    other = start("other", lambda: engine.tenant("other").start(shop.at_once))
    assert [await one, await other] == ["X", "X"]

    assert shop.seen == (["acme", "other"] if apart else ["acme"])
    assert shop.paid(one, other) == ("0.05", "0.05" if apart else "0.00", "0.00")


# Kept runs


class Post:
    """A tool that has to be approved, so that a run rests before it."""

    def __init__(self, shop: Shop) -> None:
        @tool(writes="mail", approve=True)
        async def send() -> str:
            return "sent"

        @workflow
        async def flow() -> str:
            await asyncio.sleep(1.0)
            return str(await shop.search("x")) + str(await send())

        self.flow = flow


async def test_a_guess_that_is_used_is_written_down_as_the_call_and_not_made_again(
    shop: Shop, tmp_path: Path
) -> None:
    post, journal = Post(shop), tmp_path / "runs.db"
    engine = shop.start(journal=journal)
    run = engine.start(post.flow)
    with pytest.raises(RunPaused):
        await run
    assert shop.lab.sources() == ["speculated"]
    assert shop.lab.calls == ["x"]
    await shop.lab.aclose()

    engine = shop.start(journal=journal)  # it guesses at the same call
    shop.lab.events.clear()
    await engine.approve(run.id)
    again = await engine.reopen(run.id, post.flow)
    assert await again == "Xsent"

    assert shop.lab.calls == ["x"], "what is known is not guessed at"
    assert shop.lab.sources() == ["journal"]
    assert not shop.lab.told(events.CallPredicted)
    assert shop.paid(again) == ("0.05", "0.00")


async def test_guesses_begin_when_the_past_is_known(shop: Shop, maybe: Any, tmp_path: Path) -> None:
    @tool(writes="mail", approve=True)
    async def send() -> str:
        return "sent"

    @workflow
    async def flow() -> str:
        first = str(await shop.search("w"))
        await send()
        await asyncio.sleep(1.0)
        return first + str(await shop.search("x"))

    async with Engine(journal=tmp_path / "runs.db") as engine:
        run = engine.start(flow)
        with pytest.raises(RunPaused):
            await run
    shop.lab.made.clear()
    engine = shop.start(journal=tmp_path / "runs.db")
    await engine.approve(run.id)

    assert await engine.resume(run.id, flow) == "WX"
    assert shop.lab.calls == ["x"]
    assert shop.lab.used() == [1.0]
