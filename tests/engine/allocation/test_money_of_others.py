"""Money that other runs hold is waited for, by those that it would pay."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from agentflow import Budget, events, llm, workflow
from agentflow.budgets.allocation.cascade import CheapestFirst
from agentflow.budgets.allocation.situation import Decision
from agentflow.budgets.ledger import NOTHING
from agentflow.errors import BudgetExceeded, OutOfReach, RunFailed

if TYPE_CHECKING:
    from tests.engine.allocation.conftest import MakeWorld


@llm(model=["small", "large"], samples=(1, 2), check=lambda text: text == "yes", max_tokens=50)
async def decide(question: str) -> str:
    """Decide {question}."""
    raise AssertionError


@workflow
async def child(question: str) -> str:
    return await decide(question)


@workflow(budget=Budget(usd="0.07"))
async def parent() -> list[str]:
    return list(await asyncio.gather(child("a"), child("b"), child("c")))


async def test_calls_of_child_workflows_share_a_budget_as_calls_do(world: MakeWorld) -> None:
    made = world({"small": ["yes"] * 3}, allocator=CheapestFirst)

    assert await made.engine.run(parent) == ["yes"] * 3
    assert made.engine.ledger.spent.usd <= Decimal("0.07")
    assert made.engine.ledger.reserved == NOTHING


async def test_runs_that_share_a_budget_wait_for_each_other(world: MakeWorld) -> None:
    made = world({"small": ["yes"] * 3}, allocator=CheapestFirst, budget=Budget(usd="0.07"))

    answers = await asyncio.gather(*(made.engine.run(child, name) for name in "abc"))

    assert answers == ["yes"] * 3
    assert len(made.told(events.Allocated)) < 10


async def test_a_call_is_given_up_when_nobody_holds_what_it_lacks(world: MakeWorld) -> None:
    made = world({"small": [("no", 1.0, 40)]}, allocator=CheapestFirst, budget=Budget(usd="0.05"))

    with pytest.raises(RunFailed) as caught:
        await made.engine.run(child, "a")

    assert isinstance(caught.value.__cause__, OutOfReach | BudgetExceeded)


async def test_a_hopeless_call_waits_while_others_hold_most_of_the_money(world: MakeWorld) -> None:
    def nothing(_situation: object) -> Decision:
        return Decision(hopeless=(0,))

    made = world({"small": [("yes", 5.0, 10)]}, plays=[nothing, ("small", 1)])
    held = made.engine.ledger.child(Budget(usd="0.1"))
    made.engine.ledger.budget = Budget(usd="0.1")
    reservation = held.reserve("0.06")
    asyncio.get_running_loop().call_later(1.0, reservation.release)

    assert await made.engine.run(child, "a") == "yes"
    [began] = made.told(events.RunStarted)
    assert [told.at - began.at for told in made.told(events.Allocated)] == pytest.approx([0.0, 1.0])
