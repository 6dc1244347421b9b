"""A second attempt where money or time is nearly gone, or where its caller has gone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentflow import Budget, Engine, tool, workflow
from agentflow.clock import now
from agentflow.errors import BudgetExceeded, DeadlineExceeded, RunCancelled, RunFailed, RunPaused
from agentflow.events import Event, NodeHedged, NodeRetrying, RunFinished
from agentflow.executor.calls.hedging import ENOUGH
from agentflow.executor.run import Run

PATIENCE = 3.0
"""Seconds after which an attempt of the tool is slow."""


class Shop:
    """A tool of ten cents whose attempts take as long as a script says; the rest take a second."""

    def __init__(self, engine: Engine, *script: float | Exception, **options: Any) -> None:
        self.engine = engine
        self.begun: list[float] = []
        self.ended: list[float] = []
        self.told: list[Event] = []
        steps = iter(script)
        engine.subscribe(self.told.append)
        settings: dict[str, Any] = {"reads": "web", "ttl": 0, "usd": "0.10", "hedge": PATIENCE}

        @tool(**{**settings, **options})
        async def call() -> int:
            number = len(self.begun)
            self.begun.append(now())
            step = next(steps, 1.0)
            try:
                await asyncio.sleep(1.0 if isinstance(step, Exception) else step)
            finally:
                self.ended.append(now())
            if isinstance(step, Exception):
                raise step
            return number

        @tool(usd="0.10")
        async def other(seconds: float) -> str:
            await asyncio.sleep(seconds)
            return "other"

        @workflow
        async def once() -> int:
            return int(await call())

        @workflow
        async def beside(seconds: float) -> tuple[int, str]:
            return await asyncio.gather(call(), other(seconds))

        self.call, self.once, self.beside = call, once, beside

    def hedges(self) -> list[float]:
        return [event.at for event in self.told if isinstance(event, NodeHedged)]


def spent(*runs: Run[Any]) -> list[str]:
    """What runs have spent; nothing of theirs is set aside any more."""
    assert all(run.ledger.reserved.usd == 0 for run in runs)
    return [f"{run.ledger.spent.usd:.2f}" for run in runs]


@pytest.fixture
async def engine() -> Any:
    async with Engine(seed=7) as made:
        yield made
    assert made.services.abandoned == [] and made.ledger.reserved.usd == 0


# Money


@pytest.mark.parametrize(
    ("usd", "value", "ends", "paid"), [("0.20", 1, 4.0, "0.20"), ("0.19", 0, 10.0, "0.10")]
)
async def test_it_has_its_whole_price_or_is_not_made_and_nothing_fails(
    engine: Engine, usd: str, value: int, ends: float, paid: str
) -> None:
    shop = Shop(engine, 10.0)
    run = engine.start(shop.once.within(Budget(usd=usd)))

    assert (await run, now()) == (value, ends)
    assert spent(run) == [paid]
    assert len(shop.hedges()) == len(shop.begun) - 1
    assert isinstance(shop.told[-1], RunFinished)


async def test_what_others_have_set_aside_is_not_to_be_had(engine: Engine) -> None:
    """At 3 s twenty cents are set aside for the calls under way, and nine are left."""
    shop = Shop(engine, 10.0)
    run = engine.start(shop.beside.within(Budget(usd="0.29")), 5.0)

    assert await run == (0, "other")
    assert (shop.hedges(), spent(run)) == ([], ["0.20"])


async def test_money_that_comes_back_later_does_not_make_it_later() -> None:
    """It is asked once whether there is room: an attempt that was slow at 3 s is no slower at 5."""
    async with Engine(seed=7, budget=Budget(usd="0.25")) as poor:
        shop = Shop(poor, 10.0)
        held = poor.ledger.reserve("0.10")
        run = poor.start(shop.once)
        await asyncio.sleep(5.0)
        held.release()
        assert await run == 0

    assert (shop.begun, shop.hedges(), spent(run)) == ([0.0], [], ["0.10"])


@pytest.mark.parametrize(("before", "made"), [(True, [0.0, 3.0]), (False, [0.0])])
async def test_money_that_comes_back_in_the_same_moment_counts_if_it_comes_first(
    before: bool, made: list[float]
) -> None:
    async with Engine(seed=7, budget=Budget(usd="0.25")) as poor:
        shop, loop = Shop(poor, 10.0), asyncio.get_running_loop()
        held = poor.ledger.reserve("0.10")
        if before:
            loop.call_at(PATIENCE, held.release)
        run = poor.start(shop.once)
        await asyncio.sleep(0.001)
        if not before:
            loop.call_at(PATIENCE + 0.001, held.release)
        await run

    assert shop.begun == made
    assert spent(run) == [f"{len(made) / 10:.2f}"]


async def test_a_call_that_is_made_after_it_finds_its_money_spent(engine: Engine) -> None:
    """What a second attempt took is gone, as what any attempt took is."""

    @workflow
    async def twice() -> list[int]:
        return [await shop.call(), await shop.call()]

    shop = Shop(engine, 10.0)
    run = engine.start(twice.within(Budget(usd="0.25")))
    with pytest.raises(RunFailed) as failed:
        await run

    assert isinstance(failed.value.__cause__, BudgetExceeded)
    assert (spent(run), failed.value.results) == (["0.20"], {0: 1})


async def test_whoever_loses_is_paid_and_whoever_failed_too(engine: Engine) -> None:
    shop = Shop(engine, 10.0, OSError("second"))
    run = engine.start(shop.once.within(Budget(usd="0.20")))

    assert (await run, now()) == (0, 10.0)
    assert spent(run) == ["0.20"]


async def test_an_attempt_of_a_retry_finds_what_the_second_one_left(engine: Engine) -> None:
    shop = Shop(engine, 10.0, 10.0, timeout=5.0, retries=1, backoff=0)
    run = engine.start(shop.once.within(Budget(usd="0.29")))
    with pytest.raises(RunFailed):
        await run

    assert shop.begun == [0.0, 3.0] and shop.ended == [5.0, 5.0]
    assert [event.attempt for event in shop.told if isinstance(event, NodeRetrying)] == [1]
    assert spent(run) == ["0.20"]


@pytest.mark.parametrize("resumed", [True, False])
async def test_what_a_second_attempt_cost_counts_after_a_restart(
    tmp_path: Path, resumed: bool
) -> None:
    @tool(writes="mail", approve=True)
    async def send() -> str:
        return "sent"

    async with Engine(journal=tmp_path / "runs.db") as engine:
        shop = Shop(engine, 10.0)

        @workflow(budget=Budget(usd="0.25"))
        async def flow() -> Any:
            found = await shop.call()
            await send()
            return [found, await shop.call()] if resumed else found

        run = engine.start(flow)
        with pytest.raises(RunPaused):
            await run
    async with Engine(journal=tmp_path / "runs.db") as engine:
        await engine.approve(run.id)
        again = await engine.reopen(run.id, flow)
        if resumed:
            with pytest.raises(RunFailed, match="do not fit"):
                await again
        else:
            assert await again == 1

    assert spent(run, again) == ["0.20", "0.20"]
    assert len(shop.begun) == 2


# Time


async def learn(shop: Shop, seconds: float) -> None:
    """So many calls that they tell how long one takes, and pay for a second attempt."""
    for _ in range(ENOUGH):
        await shop.engine.run(shop.once)
    assert now() == ENOUGH * seconds
    shop.begun.clear()
    shop.ended.clear()


@pytest.mark.parametrize(("deadline", "made"), [(3.9, 1), (4.1, 2)])
async def test_it_is_not_begun_where_it_would_likely_end_too_late(
    engine: Engine, deadline: float, made: int
) -> None:
    shop = Shop(engine, *[1.0] * ENOUGH, 3.5)
    await learn(shop, 1.0)
    run = engine.start(shop.once.within(Budget(deadline=deadline)))
    await run

    assert len(shop.begun) == made
    assert spent(run) == [f"{made / 10:.2f}"]


async def test_a_free_one_is_not_begun_either(engine: Engine) -> None:
    shop = Shop(engine, *[1.0] * ENOUGH, 3.5, usd=0)
    await learn(shop, 1.0)
    await engine.run(shop.once.within(Budget(deadline=3.9)))

    assert (len(shop.begun), shop.hedges()) == (1, [])


async def test_whoever_wants_every_chance_gets_it(engine: Engine) -> None:
    shop = Shop(engine, *[1.0] * ENOUGH, 3.5)
    await learn(shop, 1.0)
    await engine.run(shop.once.within(Budget(deadline=3.9, least_chance=0.0)))

    assert len(shop.begun) == 2


async def test_while_little_is_known_it_is_begun(engine: Engine) -> None:
    shop = Shop(engine, 3.5)
    await engine.run(shop.once.within(Budget(deadline=3.9)))

    assert shop.begun == [0.0, 3.0]


@pytest.mark.parametrize("deadline", [2.9, 3.0])
async def test_none_is_made_when_the_deadline_comes_before_it(
    engine: Engine, deadline: float
) -> None:
    shop = Shop(engine, 10.0)
    run = engine.start(shop.once.within(Budget(deadline=deadline)))
    with pytest.raises(DeadlineExceeded):
        await run
    await run.ended()
    await asyncio.sleep(10.0)

    assert (shop.begun, shop.ended, shop.hedges()) == ([0.0], [deadline], [])
    assert spent(run) == ["0.10"]


async def test_at_the_deadline_both_are_cancelled_and_paid(engine: Engine) -> None:
    shop = Shop(engine, 10.0, 10.0)
    run = engine.start(shop.once.within(Budget(deadline=5.0)))
    with pytest.raises(DeadlineExceeded):
        await run
    await run.ended()

    assert shop.ended == [5.0, 5.0]
    assert spent(run) == ["0.20"]


# Who has gone


async def test_who_began_the_call_and_has_left_pays_for_no_second_attempt(engine: Engine) -> None:
    shop = Shop(engine, 10.0, ttl="1h")
    first = engine.start(shop.once)
    await asyncio.sleep(1.0)
    other = engine.start(shop.once)
    await asyncio.sleep(1.0)
    first.cancel()
    with pytest.raises(RunCancelled):
        await first
    before = first.ledger.spent

    assert await other == 0
    assert (shop.begun, shop.hedges()) == ([0.0], [])
    assert first.ledger.spent == before
    assert spent(first, other) == ["0.00", "0.10"]


async def test_who_has_left_after_it_has_paid_for_it_and_the_other_for_the_first(
    engine: Engine,
) -> None:
    shop = Shop(engine, 10.0, 6.0, ttl="1h")
    first = engine.start(shop.once)
    await asyncio.sleep(1.0)
    other = engine.start(shop.once)
    await asyncio.sleep(3.0)
    first.cancel()

    assert (await other, now()) == (1, 9.0)
    assert spent(first, other) == ["0.10", "0.10"]
