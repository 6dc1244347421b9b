"""When the money ends: what runs is finished or cancelled, and what is done is not lost."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from agentflow import Budget, Engine, Plan, settled, tool, workflow
from agentflow.budgets import Amount
from agentflow.clock import now
from agentflow.errors import (
    BudgetExceeded,
    DefinitionError,
    DependencyFailed,
    RunCancelled,
    RunFailed,
)
from agentflow.planner.plan import Each, Join, Node, Ref

made: list[float] = []


@pytest.fixture(autouse=True)
def _nothing_made() -> None:
    made.clear()


@tool(usd="0.01")
async def cheap(seconds: float) -> float:
    made.append(seconds)
    await asyncio.sleep(seconds)
    return seconds


@tool(usd="0.50")
async def dear() -> float:
    made.append(0)
    return 0


TOOLS = [cheap, dear]
# When the second call ends, a call is due that is too dear; two more are due after that.
BROKE = Plan(
    (
        Node("cheap", (2.0,)),
        Node("cheap", (1.0,)),
        Node("dear", after=(1,)),
        Node("cheap", (5.0,), after=(2,)),
        Node("cheap", (6.0,), after=(0,)),
    )
)


async def failed(engine: Engine, target: Any, *args: Any, **options: Any) -> RunFailed:
    """How a run fails because of its budget."""
    with pytest.raises(RunFailed) as caught:
        await engine.run(target, *args, **options)
    return caught.value


def refusal(error: BaseException) -> BudgetExceeded:
    """What did not fit."""
    found: BaseException | None = error
    while isinstance(found, RunFailed | DependencyFailed):
        found = found.__cause__
    assert isinstance(found, BudgetExceeded)
    return found


# Plans


async def test_what_runs_is_finished_and_nothing_new_starts(engine: Engine) -> None:
    error = await failed(engine, BROKE, tools=TOOLS, budget=Budget(usd="0.10"))

    assert now() == 2.0 and made == [2.0, 1.0]
    assert error.results == {0: 2.0, 1: 1.0}
    assert list(error.failures) == [2] and error.pending == (3, 4)
    asked = refusal(error)
    assert (asked.unit, asked.asked, asked.left) == ("usd", Decimal("0.50"), Decimal("0.08"))
    assert engine.ledger.spent == Amount(Decimal("0.02"))
    assert engine.ledger.reserved == Amount()


async def test_a_budget_may_ask_for_what_runs_to_be_cancelled(engine: Engine) -> None:
    budget = Budget(usd="0.10", when_spent="cancel")

    error = await failed(engine, BROKE, tools=TOOLS, budget=budget)

    assert now() == 1.0 and made == [2.0, 1.0]
    assert error.results == {1: 1.0} and error.pending == (0, 3, 4)
    assert refusal(error).when_spent == "cancel"
    assert engine.ledger.spent == Amount(Decimal("0.02"))  # an attempt is paid however it ends


async def test_any_other_failure_cancels_what_runs(engine: Engine) -> None:
    @tool
    async def fail() -> None:
        raise OSError

    plan = Plan((Node("cheap", (2.0,)), Node("fail")))
    error = await failed(engine, plan, tools=[cheap, fail], budget=Budget(usd="0.10"))

    assert now() == 0.0 and error.results == {}


async def test_a_budget_smaller_than_the_first_call_makes_none(engine: Engine) -> None:
    error = await failed(engine, BROKE, tools=TOOLS, budget=Budget(usd="0.001"))

    assert now() == 0.0 and made == []
    assert error.results == {} and refusal(error).left == Decimal("0.001")


async def test_at_the_deadline_what_was_to_be_finished_is_cancelled(engine: Engine) -> None:
    budget = Budget(usd="0.10", deadline=1.5)

    run = engine.start(BROKE, tools=TOOLS, budget=budget)
    with pytest.raises(RunFailed) as caught:
        await run
    assert now() == 1.5 and refusal(caught.value).unit == "usd"
    assert caught.value.results == {1: 1.0}

    await run.ended()
    assert now() == 1.5 and run.unfinished == []


async def test_so_it_is_in_a_workflow(engine: Engine) -> None:
    error = await failed(engine, workflow(budget=Budget(usd="0.10", deadline=1.5))(spend))

    assert now() == 1.5 and error.results == {1: 1.0}


async def test_a_run_that_finishes_what_runs_can_be_cancelled(engine: Engine) -> None:
    run = engine.start(BROKE, tools=TOOLS, budget=Budget(usd="0.10"))
    asyncio.get_running_loop().call_later(1.5, run.cancel)

    with pytest.raises(RunCancelled):
        await run
    await run.ended()
    assert now() == 1.5 and made == [2.0, 1.0]


@pytest.mark.parametrize("given", [0.05, "$5", {"usd": 5}])
async def test_a_limit_that_is_no_budget_is_refused_where_it_is_given(
    engine: Engine, given: Any
) -> None:
    with pytest.raises(DefinitionError, match="write a Budget, such as"):
        engine.start(BROKE, tools=TOOLS, budget=given)
    with pytest.raises(DefinitionError, match="write a Budget, such as"):
        Engine(budget=given)


@pytest.mark.parametrize("deadline", ["soon", -1, float("nan"), float("inf")])
async def test_a_deadline_that_is_none_is_refused_where_it_is_given(
    engine: Engine, deadline: Any
) -> None:
    with pytest.raises(DefinitionError, match="budget: "):
        engine.start(BROKE, tools=TOOLS, deadline=deadline)


async def test_a_deadline_beside_a_budget_leaves_its_other_limits(engine: Engine) -> None:
    budget = Budget(usd="0.10", when_spent="cancel")

    error = await failed(engine, BROKE, tools=TOOLS, budget=budget, deadline=60)

    assert now() == 1.0 and refusal(error).when_spent == "cancel"


# Maps


def mapped(join: Join) -> Plan:
    return Plan((Node("cheap", (Each([3.0, 2.0, 1.0, 4.0, 5.0]),), join=join),), Ref(0))


async def test_elements_that_run_are_finished_though_their_map_has_failed(engine: Engine) -> None:
    error = await failed(engine, mapped(Join("all")), tools=TOOLS, budget=Budget(usd="0.03"))

    assert now() == 3.0 and made == [3.0, 2.0, 1.0]
    assert error.results == {} and refusal(error).left == 0
    assert engine.ledger.spent.usd == Decimal("0.03")


async def test_a_map_that_takes_what_there_is_keeps_what_was_paid(engine: Engine) -> None:
    plan = mapped(Join("settled"))

    outcomes = await engine.run(plan, tools=TOOLS, budget=Budget(usd="0.03"))

    assert [outcome.value for outcome in outcomes if outcome.ok] == [3.0, 2.0, 1.0]
    assert [type(outcome.error) for outcome in outcomes[3:]] == [BudgetExceeded] * 2


async def test_elements_are_cancelled_if_the_budget_says_so(engine: Engine) -> None:
    budget = Budget(usd="0.03", when_spent="cancel")

    await failed(engine, mapped(Join("all")), tools=TOOLS, budget=budget)

    assert now() == 0.0


# Workflows


async def spend() -> None:
    long = cheap(2.0)
    await cheap(1.0)
    await dear()
    await long


async def test_a_workflow_finishes_what_runs(engine: Engine) -> None:
    error = await failed(engine, workflow(budget=Budget(usd="0.10"))(spend))

    assert now() == 2.0 and error.results == {0: 2.0, 1: 1.0}
    assert refusal(error).asked == Decimal("0.50")


async def test_a_workflow_cancels_what_runs_if_its_budget_says_so(engine: Engine) -> None:
    budget = Budget(usd="0.10", when_spent="cancel")

    error = await failed(engine, workflow(budget=budget)(spend))

    assert now() == 1.0 and error.results == {1: 1.0}


async def test_what_a_cancelled_workflow_cannot_pay_holds_up_nothing(engine: Engine) -> None:
    @workflow(budget=Budget(usd="0.10"))
    async def flow() -> None:
        try:
            await cheap(10.0)
        finally:
            tidying = cheap(20.0)
            await dear()
            await tidying

    run = engine.start(flow)
    asyncio.get_running_loop().call_later(1.0, run.cancel)
    with pytest.raises(RunCancelled):
        await run
    await run.ended()

    assert now() == 1.0 and made == [10.0, 20.0]


async def test_a_workflow_may_do_without_what_is_too_dear(engine: Engine) -> None:
    @workflow(budget=Budget(usd="0.10"))
    async def flow() -> float:
        try:
            return await dear()
        except BudgetExceeded as error:
            assert error.left == Decimal("0.10")
            return await cheap(1.0)

    assert await engine.run(flow) == 1.0


async def test_the_budget_that_is_exceeded_says_what_becomes_of_what_runs(engine: Engine) -> None:
    child = workflow(budget=Budget(usd="0.10"))(spend)

    @workflow(budget=Budget(usd=5, when_spent="cancel"))
    async def parent() -> None:
        other = cheap(4.0)
        await child()
        await other

    error = await failed(engine, parent)

    assert now() == 4.0 and error.results == {0: 4.0}  # it was not the parent's that was exceeded


async def test_a_child_that_finds_its_parents_money_gone_does_as_that_says(engine: Engine) -> None:
    child = workflow(spend)

    @workflow(budget=Budget(usd="0.10", when_spent="cancel"))
    async def parent() -> None:
        other = cheap(4.0)
        await child()
        await other

    await failed(engine, parent)

    assert now() == 1.0


async def test_whatever_a_workflow_asks_for_its_runs_keep_within_its_limit(engine: Engine) -> None:
    @workflow(budget=Budget(usd=1))
    async def part(calls: int) -> int:
        return sum(o.ok for o in await settled(*[cheap(0.1) for _ in range(calls)]))

    @workflow(budget=Budget(usd="0.10"))
    async def whole() -> list[int]:
        return await asyncio.gather(*[part(calls) for calls in (3, 5, 4, 9)])

    made_of: list[int] = await engine.run(whole)
    assert sum(made_of) == 10
    assert engine.ledger.spent.usd == Decimal("0.10")
