"""Tenants: many runs, one budget, and nobody spends another's."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow import Budget, Engine, Plan, settled, tool, workflow
from agentflow.clock import now
from agentflow.errors import BudgetExceeded, DeadlineExceeded, DefinitionError, RunFailed
from agentflow.events import RunFinished, RunStarted
from agentflow.planner.plan import Node
from agentflow.testing import run_virtual


@tool(usd="0.01")
async def cheap(seconds: float = 0.0) -> float:
    await asyncio.sleep(seconds)
    return seconds


@workflow
async def use(calls: int) -> int:
    return sum(outcome.ok for outcome in await settled(*[cheap(0.1) for _ in range(calls)]))


async def test_all_runs_of_a_tenant_keep_within_its_budget(engine: Engine) -> None:
    acme, other = engine.tenant("acme", Budget(usd="0.05")), engine.tenant("other")

    assert [await acme.run(use, 3), await acme.run(use, 3), await acme.run(use, 3)] == [3, 2, 0]
    assert await other.run(use, 7) == 7

    spent = [ledger.spent.usd for ledger in (acme.ledger, other.ledger, engine.ledger)]
    assert spent == [Decimal("0.05"), Decimal("0.07"), Decimal("0.12")]


async def test_a_tenants_budget_lies_within_the_engines() -> None:
    async with Engine(budget=Budget(usd="0.06")) as engine:
        one, two = (engine.tenant(name, Budget(usd="0.05")) for name in ("one", "two"))

        assert sorted(await asyncio.gather(one.run(use, 9), two.run(use, 9))) == [1, 5]


async def test_a_run_of_a_tenant_keeps_its_own_limit(engine: Engine) -> None:
    acme = engine.tenant("acme", Budget(usd="0.05"))
    plan = Plan(tuple(Node("cheap", (0.1 * n,)) for n in range(4)))

    with pytest.raises(RunFailed) as failed:
        await acme.run(plan, tools=[cheap], budget=Budget(usd="0.02"))

    assert isinstance(failed.value.__cause__, BudgetExceeded)
    assert (acme.ledger.spent.usd, acme.ledger.left.usd) == (Decimal("0.02"), Decimal("0.03"))


async def test_a_tenant_is_the_same_by_its_name(engine: Engine) -> None:
    acme = engine.tenant("acme", Budget(usd=5))

    assert engine.tenant("acme") is engine.tenant("acme", Budget(usd="5.00")) is acme
    with pytest.raises(DefinitionError, match="tenant 'acme' has Budget"):
        engine.tenant("acme", Budget(usd=6))


async def test_the_deadline_of_a_tenant_counts_from_its_first_run(engine: Engine) -> None:
    acme = engine.tenant("acme", Budget(deadline="10s"))
    plan = Plan((Node("cheap", (6.0,)),))
    await asyncio.sleep(5)

    await acme.run(plan, tools=[cheap])
    assert acme.ledger.left.seconds == 4.0
    with pytest.raises(DeadlineExceeded):
        await acme.run(plan, tools=[cheap])
    assert now() == 15.0
    with pytest.raises(DeadlineExceeded):  # at once
        await acme.run(plan, tools=[cheap])
    assert now() == 15.0
    await engine.run(plan, tools=[cheap])


async def test_a_tenant_streams_as_its_engine_does(engine: Engine) -> None:
    told: list[Any] = []
    engine.subscribe(told.append)

    seen = [event async for event in engine.tenant("acme").stream(use, 1)]

    assert seen == told
    assert (type(seen[0]), type(seen[-1])) == (RunStarted, RunFinished)


async def test_a_closed_engine_has_no_runs_for_its_tenants() -> None:
    async with Engine() as engine:
        acme = engine.tenant("acme")

    with pytest.raises(DefinitionError, match="closed"):
        acme.start(use, 1)


@settings(max_examples=25)
@given(cents=st.lists(st.integers(0, 12), min_size=1, max_size=4), seed=st.integers(0, 2**16))
def test_whoever_runs_what_at_the_same_time_nobody_overspends(cents: list[int], seed: int) -> None:
    random = Random(seed)

    @tool(usd="0.01")
    async def work(seconds: float, *, fails: bool) -> None:
        await asyncio.sleep(seconds)
        if fails:
            raise OSError

    @workflow
    async def flow(calls: list[tuple[float, bool]]) -> None:
        await settled(*[work(seconds, fails=fails) for seconds, fails in calls])

    def calls() -> list[tuple[float, bool]]:
        return [(random.random(), random.random() < 0.3) for _ in range(random.randrange(1, 6))]

    async def main() -> None:
        async with Engine(budget=Budget(usd="0.20")) as engine:
            tenants = [
                engine.tenant(str(n), Budget(usd=Decimal(limit) / 100))
                for n, limit in enumerate(cents)
            ]
            runs = [tenant.start(flow, calls()) for tenant in tenants * 3]
            random.choice(runs).cancel()
            await asyncio.gather(*runs, return_exceptions=True)
            ledgers = [tenant.ledger for tenant in tenants]
            for ledger in (*ledgers, engine.ledger):
                assert ledger.reserved.usd == 0
                assert ledger.budget.usd is not None and ledger.spent.usd <= ledger.budget.usd
            assert engine.ledger.spent.usd == sum(ledger.spent.usd for ledger in ledgers)

    run_virtual(main())
