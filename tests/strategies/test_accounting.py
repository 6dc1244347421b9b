"""What model calls of a task may cost, and did."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from agentflow import events
from agentflow.budgets.budget import Budget
from agentflow.errors import BudgetExceeded, DeadlineExceeded, DefinitionError
from agentflow.executor.metering import IN_FLIGHT
from agentflow.executor.models.retry import RetryPolicy
from agentflow.testing import Call, Fault
from agentflow.testing.replies import Pace, Reply, Usage

pytestmark = pytest.mark.virtual

PRICES = {"tiny": {"input": "1", "output": "10"}}  # USD per million tokens
PLAN = '$1 = look(key="a")\njoin()'


def counted(answer: str, prompt: int, completion: int) -> Reply:
    return Reply(answer, usage=Usage(prompt, completion))


async def test_what_the_backend_counted_is_what_was_spent(lab: Any) -> None:
    await lab.run(counted(PLAN, 1_000, 100), counted("Answer: yes", 2_000, 10), prices=PRICES)

    spent = lab.engine.ledger.spent
    assert spent.tokens == 3_110
    assert spent.usd == Decimal("0.0041")
    assert lab.engine.ledger.reserved.tokens == 0
    told = lab.told(events.ModelReplied)
    assert [(e.prompt_tokens, e.completion_tokens, e.usd) for e in told] == [
        (1_000, 100, "0.002"),
        (2_000, 10, "0.0021"),
    ]
    assert not any(event.estimated for event in told)


async def test_every_turn_of_react_is_counted(lab: Any) -> None:
    turn = Reply(Call("look", {"key": "a"}), usage=Usage(100, 10))

    await lab.run(turn, turn, counted("Done.", 100, 10), strategy="react", prices=PRICES)

    assert lab.engine.ledger.spent.tokens == 330


@pytest.mark.parametrize("strategy", ["plan", "react"])
async def test_a_call_whose_bound_does_not_fit_is_not_made(lab: Any, strategy: str) -> None:
    budget = Budget(tokens=1_000)

    failed = await lab.fails("never asked", strategy=strategy, budget=budget, max_tokens=1_000)

    error = failed.__cause__
    assert isinstance(error, BudgetExceeded)
    assert (error.unit, error.left) == ("tokens", 1_000) and error.asked > 1_000
    assert "Budget(tokens=...)" in str(error)
    assert lab.server.requests == []


@pytest.mark.parametrize("strategy", ["plan", "react"])
async def test_a_budget_in_usd_ends_a_task_before_the_call_that_does_not_fit(
    lab: Any, strategy: str
) -> None:
    first = counted(PLAN, 9_000, 1_000)
    if strategy == "react":
        first = Reply(Call("look", {"key": "a"}), usage=Usage(9_000, 1_000))

    failed = await lab.fails(
        first, "never asked", strategy=strategy, budget=Budget(usd="0.02"), max_tokens=500,
        prices=PRICES,
    )  # fmt: skip

    error = failed.__cause__
    assert isinstance(error, BudgetExceeded) and error.unit == "usd"
    assert error.left == Decimal("0.001")
    assert len(lab.server.requests) == 1
    assert failed.results == {0: "apple"}
    assert lab.engine.ledger.spent.usd <= Decimal("0.02")


async def test_a_budget_in_usd_needs_the_price_of_the_model(lab: Any) -> None:
    failed = await lab.fails("never asked", budget=Budget(usd="1"))

    assert isinstance(failed.__cause__, DefinitionError)
    assert "the price of model 'tiny' is not known" in str(failed)
    assert lab.server.requests == []


async def test_a_model_without_a_price_costs_tokens_only(lab: Any) -> None:
    await lab.run(counted('return "x"', 100, 10), budget=Budget(tokens=100_000))

    assert lab.engine.ledger.spent.tokens == 110
    assert lab.engine.ledger.spent.usd == 0


async def test_a_cancelled_stream_is_settled_at_what_came_and_what_may_be_on_its_way(
    lab: Any,
) -> None:
    engine = await lab.prepare(["word " * 1_000], pace=Pace(0.3, 0.02), prices=PRICES)
    run = engine.start("Which?", strategy="react", budget=Budget(usd="1"))
    await asyncio.sleep(0.3 + 99 * 0.02 + 0.001)

    run.cancel(reason="enough")
    await run.ended()

    [told] = lab.told(events.ModelReplied)
    assert told.estimated
    assert 100 <= told.completion_tokens - IN_FLIGHT <= 130
    assert engine.ledger.spent.tokens == told.prompt_tokens + told.completion_tokens
    assert engine.ledger.spent.usd == Decimal(told.usd) > 0
    assert engine.ledger.reserved.tokens == 0


async def test_a_cancelled_call_without_an_answer_is_settled_in_full(lab: Any) -> None:
    """The backend may be at work on it, and nobody will say."""
    engine = await lab.prepare([Fault.silence()])
    run = engine.start("Which?", max_tokens=700)
    await asyncio.sleep(5.0)
    reserved = engine.ledger.reserved.tokens
    assert reserved > 700

    run.cancel(reason="enough")
    await run.ended()

    assert engine.ledger.spent.tokens == reserved
    assert lab.told(events.ModelReplied)[0].estimated


async def test_a_call_that_timed_out_is_settled_in_full(lab: Any) -> None:
    await lab.fails(Fault.silence(), max_tokens=700, retry=RetryPolicy(max_retries=0))

    assert lab.engine.ledger.spent.tokens > 700


@pytest.mark.parametrize("fault", [Fault.status(500), Fault.status(400), Fault.html()])
async def test_a_call_that_was_refused_costs_nothing(lab: Any, fault: Any) -> None:
    await lab.fails(fault, retry=RetryPolicy(max_retries=0))

    assert lab.engine.ledger.spent.tokens == lab.engine.ledger.reserved.tokens == 0
    assert lab.told(events.ModelReplied) == []


async def test_a_stream_that_breaks_off_stays_within_its_bound(lab: Any) -> None:
    fault = Fault.cut("antidisestablishmentarianism" * 40, after=60)

    failed = await lab.fails(*[fault] * 3, strategy="react", max_tokens=64)

    told = lab.told(events.ModelReplied)
    assert all(call.estimated for call in told), failed
    assert [call.completion_tokens for call in told] == [64, 64, 64]


async def test_many_tasks_together_stay_within_the_engines_budget(lab: Any) -> None:
    engine = await lab.prepare(
        lambda call: Reply('return "x"', usage=Usage(500, 500)), pace=Pace(0.3, 0.02)
    )
    engine.ledger.budget = Budget(tokens=20_000)

    done = await asyncio.gather(
        *(engine.run("Which?", max_tokens=500) for _ in range(40)), return_exceptions=True
    )

    refused = [error for error in done if isinstance(error, Exception)]
    assert refused and all(isinstance(e.__cause__, BudgetExceeded) for e in refused)
    assert engine.ledger.spent.tokens == 1_000 * (40 - len(refused)) <= 20_000
    assert engine.ledger.reserved.tokens == 0


async def test_a_budget_that_is_just_enough_for_one_call_at_a_time_is_enough(lab: Any) -> None:
    """What the planner had reserved is free again before the joiner is asked."""
    answer = await lab.run(
        counted(PLAN, 100, 10), counted("Answer: yes", 100, 10),
        budget=Budget(tokens=5_000), max_tokens=2_500, pace=Pace(0.3, 0.02),
    )  # fmt: skip

    assert answer == "yes"


@pytest.mark.parametrize("strategy", ["plan", "react"])
async def test_a_reply_that_a_deadline_cut_off_is_told_before_the_end(
    lab: Any, strategy: str
) -> None:
    budget = Budget(deadline=1.0)
    long = Reply("Answer: " + "word " * 200)

    with pytest.raises(DeadlineExceeded):
        await lab.run(long, strategy=strategy, budget=budget, pace=Pace(0.2, 0.02), prices=PRICES)

    (told,) = lab.told(events.ModelReplied)
    assert told.estimated and told.completion_tokens >= 39
    assert isinstance(lab.events[-1], events.RunFailed)
    await asyncio.sleep(0.1)  # cleaning up goes on
    assert lab.engine.ledger.spent.usd == Decimal(told.usd)
