"""The first answer that passes is taken, and what else was tried costs no more than it had made."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from agentflow import Budget, events, llm, workflow
from agentflow.budgets.ledger import NOTHING
from agentflow.errors import RunFailed

if TYPE_CHECKING:
    from tests.engine.allocation.conftest import MakeWorld


@llm(model=["small", "large"], samples=(1, 2, 4), check=lambda text: text == "yes", max_tokens=500)
async def decide(question: str) -> str:
    """Decide {question}."""
    raise AssertionError


@workflow(budget=Budget(usd=10, deadline="60s"))
async def one() -> str:
    return await decide("a")


async def test_what_else_was_tried_is_cancelled_at_once(world: MakeWorld) -> None:
    script = [("no", 1.0), ("yes", 2.0), ("yes", 9.0), ("yes", 9.0)]
    made = world({"small": script}, plays=[("small", 4)])

    assert await made.engine.run(one) == "yes"
    assert made.outcomes() == [
        ("small", "refused"),
        ("small", "passed"),
        ("small", "cancelled"),
        ("small", "cancelled"),
    ]
    assert made.models["small"].broken_off == [2.0, 2.0]


async def test_what_was_cancelled_costs_what_it_had_made(world: MakeWorld) -> None:
    made = world({"small": [("yes", 1.0), ("yes", 10.0, 100)]}, plays=[("small", 2)])

    await made.engine.run(one)

    # 10 tokens in, 10 made by then, and those that may have been under way
    cancelled = Decimal(10 * 100 + (10 + 16) * 1000) / 1_000_000
    ended = {event.outcome: event for event in made.told(events.SampleEnded)}
    assert Decimal(ended["cancelled"].usd) == cancelled
    assert made.engine.ledger.spent.usd == Decimal("0.011") + cancelled
    assert made.engine.ledger.reserved == NOTHING


async def test_the_run_is_over_when_what_was_cancelled_has_ended(world: MakeWorld) -> None:
    made = world({"small": [("yes", 1.0), ("yes", 10.0)]}, plays=[("small", 2)])
    run = made.engine.start(one)

    assert await run == "yes"
    await run.ended()

    assert made.models["small"].active == 0
    assert run.ledger.reserved == NOTHING


async def test_two_answers_at_the_same_moment_are_one(world: MakeWorld) -> None:
    made = world({"small": [("yes", 1.0)]}, plays=[("small", 4)])

    assert await made.engine.run(one) == "yes"
    assert [outcome for _, outcome in made.outcomes()].count("passed") >= 1


async def test_an_answer_that_fails_its_check_is_not_corrected(world: MakeWorld) -> None:
    made = world({"small": ["no", "yes"]}, plays=[("small", 1)])

    assert await made.engine.run(one) == "yes"
    assert [len(request.messages) for request in made.models["small"].requests] == [1, 1]


async def test_an_answer_of_the_wrong_type_is_corrected_within_its_sample(
    world: MakeWorld,
) -> None:
    @llm(model=["small", "large"], check=lambda number: number == 7, repairs=1)
    async def count() -> int:
        """How many?"""
        raise AssertionError

    @workflow(budget=Budget(usd=10))
    async def counting() -> int:
        return await count()

    made = world({"small": ["seven", "7"]}, plays=[("small", 1)])

    assert await made.engine.run(counting) == 7
    assert made.outcomes() == [("small", "passed")]
    ended = made.told(events.SampleEnded)[0]
    assert Decimal(ended.usd) == 2 * Decimal("0.011")


async def test_calls_that_are_ready_together_are_decided_together(world: MakeWorld) -> None:
    @workflow(budget=Budget(usd=10))
    async def three() -> list[str]:
        return list(await asyncio.gather(decide("a"), decide("b"), decide("c")))

    made = world({}, plays=[("small", 1)])

    assert await made.engine.run(three) == ["yes"] * 3
    assert len(made.played.seen[0].jobs) == 3


async def test_without_limits_models_are_asked_once_each_in_the_order_listed(
    world: MakeWorld,
) -> None:
    @workflow
    async def free() -> str:
        return await decide("a")

    made = world({"small": ["no"], "large": ["no"]}, plays=[("large", 4)])

    with pytest.raises(RunFailed) as caught:
        await made.engine.run(free)
    assert made.outcomes() == [("small", "refused"), ("large", "refused")]
    assert made.played.seen == []
    assert caught.value.__cause__ is not None
    assert "before that small failed" in str(caught.value.__cause__.__notes__)
