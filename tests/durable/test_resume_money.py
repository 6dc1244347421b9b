"""What runs that go on have spent: counted once, for whose they are, within what they may."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentflow import Budget, Engine, tool, workflow
from agentflow.budgets.ledger import Amount, Ledger
from agentflow.errors import JournalError, RunCancelled, RunFailed
from agentflow.executor.journal.journal import Journal
from agentflow.executor.run import Run
from agentflow.starting import Starter
from tests.durable.conftest import rows

pytestmark = [pytest.mark.virtual, pytest.mark.anyio]


@tool(reads="shop", usd="1")
async def paid(name: str) -> str:
    await asyncio.sleep(1.0)
    return name


@workflow
async def three() -> list[str]:
    return [await paid("a"), await paid("b"), await paid("c")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def cancel(run: Run[Any], after: float = 1.5) -> str:
    """Cancel a run after some time; its id."""
    asyncio.get_running_loop().call_later(after, run.cancel)
    with pytest.raises(RunCancelled):
        await run
    await run.ended()
    return run.id


async def broken_off(starter: Starter) -> str:
    """Begin a run and cancel it when two calls have been paid; its id."""
    return await cancel(starter.start(three))


def usd(starter: Starter) -> Decimal:
    """What was spent."""
    return starter.ledger.spent.usd


# Once


async def test_what_an_engine_has_counted_it_does_not_count_again(path: Path) -> None:
    async with Engine(journal=path, budget=Budget(usd=4)) as engine:
        run = await broken_off(engine)
        assert usd(engine) == 2
        going = await engine.reopen(run)
        assert usd(engine) == 2
        assert going.ledger.spent.usd == 2
        await going
        assert usd(engine) == going.ledger.spent.usd == 4  # the second was paid twice


async def test_it_is_so_after_every_execution(path: Path) -> None:
    async with Engine(journal=path) as engine:
        run = await broken_off(engine)
        for spent in (3, 4, 5):
            await cancel(await engine.reopen(run), after=0.5)
            assert usd(engine) == spent
        going = await engine.reopen(run)
        await going
        assert usd(engine) == going.ledger.spent.usd == 7
    assert rows(path)[0].usd == "7"


async def test_another_engine_counts_what_it_has_not_seen(path: Path) -> None:
    async with Engine(journal=path) as engine:
        run = await broken_off(engine)
    async with Engine(journal=path, budget=Budget(usd=3)) as engine:
        with pytest.raises(RunFailed, match=r"1 usd do not fit.*to the engine"):
            await engine.resume(run)
        assert usd(engine) == 3


async def test_an_engine_counts_what_another_has_spent_meanwhile(path: Path) -> None:
    journal = Journal(path)
    async with Engine(journal=journal) as one, Engine(journal=journal) as other:
        run = await broken_off(one)
        await cancel(await other.reopen(run), after=0.5)
        assert [int(usd(one)), int(usd(other))] == [2, 3]
        await one.resume(run)
        assert [int(usd(one)), int(usd(other))] == [5, 3]


async def test_a_refused_resume_counts_nothing(path: Path) -> None:
    @workflow
    async def local() -> list[str]:
        return [await paid("a"), await paid("b")]

    async with Engine(journal=path) as engine:
        run = await cancel(engine.start(local))
        for _ in range(2):
            with pytest.raises(Exception, match="target=flow"):
                await engine.resume(run)
        await cancel(await engine.reopen(run, local), after=0.5)
        assert usd(engine) == 3


def test_what_was_counted_is_not_carried_up_again() -> None:
    engine = Ledger(Budget(usd=10))
    before = engine.child()
    before.reserve(usd=2, tokens=20).settle(usd=2, tokens=20)
    held = before.reserve(usd=1)

    again = engine.child()
    again.carry(
        Decimal(3), 50, before.spent + before.reserved
    )  # the journal knows of tokens that this engine does not
    assert again.spent == Amount(Decimal(3), 50)
    assert engine.spent == Amount(Decimal(2), 50)

    held.settle(usd=1)
    assert engine.spent == again.spent


def test_what_a_journal_does_not_know_is_counted_for_the_run() -> None:
    engine = Ledger()
    before = engine.child()
    before.reserve(usd=2).settle(usd=2)
    again = engine.child()
    again.carry(Decimal(1), 0, before.spent)
    assert again.spent == engine.spent == Amount(Decimal(2))


# For whom


async def test_a_tenant_s_run_stays_within_the_tenant_s_budget(path: Path) -> None:
    async with Engine(journal=path) as engine:
        acme = engine.tenant("acme", Budget(usd="2.5"))
        run = await broken_off(acme)
        with pytest.raises(RunFailed, match=r"0\.5 of 2\.5 are left to tenant acme"):
            await engine.resume(run)
        assert usd(acme) == usd(engine) == 2


async def test_what_it_spends_when_it_goes_on_is_the_tenant_s(path: Path) -> None:
    async with Engine(journal=path) as engine:
        acme = engine.tenant("acme")
        run = await broken_off(acme)
        going = await engine.reopen(run)
        assert going.tenant == rows(path)[0].tenant == "acme"
        await going
        assert usd(acme) == usd(engine) == 4


async def test_a_tenant_goes_on_with_its_own_runs(path: Path) -> None:
    async with Engine(journal=path) as engine:
        run = await broken_off(engine.tenant("acme"))
    async with Engine(journal=path) as engine:
        acme = engine.tenant("acme", Budget(usd=4))
        assert await acme.resume(run[:6]) == ["a", "b", "c"]
        assert usd(acme) == usd(engine) == 4


async def test_a_tenant_does_not_go_on_with_runs_of_others(path: Path) -> None:
    async with Engine(journal=path) as engine:
        acme, other = engine.tenant("acme"), engine.tenant("other")
        for run in (await broken_off(engine), await broken_off(other)):
            with pytest.raises(JournalError, match=f"tenant 'acme' has no run '{run}'"):
                await acme.reopen(run)
        assert usd(acme) == 0
    assert [row.state for row in rows(path)] == ["cancelled", "cancelled"]


async def test_a_tenant_that_is_not_known_any_more_is_made_known(path: Path) -> None:
    async with Engine(journal=path) as engine:
        run = await broken_off(engine.tenant("acme", Budget(usd=3)))
    async with Engine(journal=path) as engine:
        await engine.resume(run)
        assert usd(engine.tenant("acme")) == 4
        assert engine.tenant("acme").ledger.budget == Budget()


async def test_a_run_of_nobody_is_listed_without_a_tenant(path: Path) -> None:
    async with Engine(journal=path) as engine:
        await broken_off(engine)
    assert rows(path)[0].tenant == "" and "tenant" not in rows(path)[0].target
