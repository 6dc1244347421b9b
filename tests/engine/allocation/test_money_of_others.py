"""Money that other runs hold is waited for, by those that it would pay."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from agentflow import Budget, Estimates, MonteCarlo, events, llm, tool, workflow
from agentflow.budgets.allocation.cascade import CheapestFirst
from agentflow.budgets.allocation.situation import Deciding, Decision, Situation
from agentflow.budgets.estimates import Outcome
from agentflow.budgets.ledger import NOTHING
from agentflow.clock import now
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


async def test_money_that_is_sure_to_be_spent_is_not_waited_for(world: MakeWorld) -> None:
    @tool(usd="0.05")
    async def dear(question: str) -> str:
        return await decide(question)

    @workflow(budget=Budget(usd="0.06"))
    async def flow() -> str:
        return await dear("a")

    made = world({}, allocator=CheapestFirst)

    with pytest.raises(RunFailed) as caught:
        await made.engine.run(flow)

    assert isinstance(caught.value.__cause__, BudgetExceeded)
    assert now() < 1.0


async def test_an_allocator_that_gives_no_decision_is_named(world: MakeWorld) -> None:
    class Silent:
        def decide(self, situation: Situation, chance: Random) -> Deciding:
            yield 0.0
            return None  # type: ignore[return-value]  # meant

    made = world({}, allocator=Silent, budget=Budget(usd=1))

    with pytest.raises(RunFailed, match="decide gave None: it is a generator"):
        await made.engine.run(child, "a")


async def test_runs_without_limits_do_not_wait_for_those_that_decide(world: MakeWorld) -> None:
    class Slow(CheapestFirst):
        def decide(self, situation: Situation, chance: Random) -> Deciding:
            yield 3.0
            return (yield from super().decide(situation, chance))

    @workflow(budget=Budget(usd=1))
    async def limited() -> str:
        return await decide("a")

    made = world({}, allocator=Slow)
    run = made.engine.start(limited)

    assert await made.engine.run(child, "b") == "yes"
    assert now() == pytest.approx(1.0)
    assert await run == "yes"
    assert now() == pytest.approx(4.0)


@pytest.mark.parametrize("kind", [CheapestFirst, MonteCarlo])
async def test_no_sample_begins_that_is_known_to_end_too_late(world: MakeWorld, kind: Any) -> None:
    estimates = Estimates()
    for _ in range(40):
        for model in ("small", "large"):
            estimates.note("decide", model, Outcome(True, 5.0, 10, 10))
            estimates.settled("decide", {model: (1, 0)})
    made = world({}, allocator=kind, estimates=estimates, budget=Budget(deadline="1s"))

    with pytest.raises(RunFailed) as caught:
        await made.engine.run(child, "a")

    assert isinstance(caught.value.__cause__, OutOfReach)
    assert made.models["small"].requests == made.models["large"].requests == []
