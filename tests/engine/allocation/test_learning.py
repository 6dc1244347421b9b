"""What runs teach the estimates: every sample when it ends, and every call when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agentflow import Budget, Estimates, llm, workflow
from agentflow.budgets.allocation.situation import Decision
from agentflow.budgets.estimate_records import Outcome
from agentflow.errors import (
    BackendBusy,
    BackendTimeout,
    DeadlineExceeded,
    RunFailed,
)

if TYPE_CHECKING:
    from tests.engine.allocation.conftest import MakeWorld


class Noting(Estimates):
    """Estimates that keep a diary."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[tuple[str, str, bool | None, float]] = []
        self.settlements: list[tuple[str, dict[str, tuple[int, int]]]] = []
        self.runs: list[tuple[str, bool]] = []

    def note(self, kind: str, model: str, outcome: Outcome) -> None:
        self.notes.append((kind, model, outcome.passed, outcome.seconds))
        super().note(kind, model, outcome)

    def settled(self, kind: str, outcomes: Any) -> None:
        self.settlements.append((kind, dict(outcomes)))
        super().settled(kind, outcomes)

    def ran(self, name: str, passed: bool, usd: Any) -> None:
        self.runs.append((name, passed))
        super().ran(name, passed, usd)


@llm(model=["small", "large"], samples=(1, 2, 4), check=lambda text: text == "yes", max_tokens=100)
async def decide(question: str) -> str:
    """Decide {question}."""
    raise AssertionError


@workflow(budget=Budget(usd=10, deadline="4s"))
async def one() -> str:
    return await decide("a")


async def test_samples_that_passed_that_did_not_and_that_were_cancelled(world: MakeWorld) -> None:
    estimates = Noting()
    script = [("no", 1.0), ("yes", 2.0), ("yes", 9.0)]
    made = world({"small": script}, plays=[("small", 3)], estimates=estimates)

    await made.engine.run(one)

    assert estimates.notes == [
        ("decide", "small", False, 1.0),
        ("decide", "small", True, 2.0),
        ("decide", "small", None, 2.0),
    ]
    assert estimates.settlements == [("decide", {"small": (1, 1)})]
    assert estimates.runs == [("one", True)]


async def test_a_call_that_is_given_up_is_settled_too(world: MakeWorld) -> None:
    estimates = Noting()
    moves: Any = [("small", 2), ("large", 1), Decision()]
    made = world({"small": ["no"], "large": ["no"]}, plays=moves, estimates=estimates)

    with pytest.raises(RunFailed):
        await made.engine.run(one)

    assert estimates.settlements == [("decide", {"small": (0, 2), "large": (0, 1)})]
    assert estimates.runs == [("one", False)]


async def test_a_call_that_the_deadline_ends_is_settled_with_what_ended_before(
    world: MakeWorld,
) -> None:
    estimates = Noting()
    made = world({"small": [("no", 1.0), ("yes", 9.0)]}, plays=[("small", 2)], estimates=estimates)

    with pytest.raises(DeadlineExceeded):
        await made.engine.run(one)

    assert estimates.settlements == [("decide", {"small": (0, 1)})]
    assert ("decide", "small", None, 4.0) in estimates.notes


@pytest.mark.parametrize("kind", [BackendBusy, BackendTimeout])
async def test_what_a_backend_fails_at_is_not_the_models_failure(
    world: MakeWorld, kind: Any
) -> None:
    estimates = Noting()
    away = kind("away", url="http://small")
    made = world({"small": [away, "yes"]}, plays=[("small", 1)], estimates=estimates)

    await made.engine.run(one)

    assert estimates.settlements == [("decide", {"small": (1, 0)})]
    assert [passed for _, _, passed, _ in estimates.notes] == [True]


async def test_an_answer_cut_short_for_want_of_money_says_nothing_of_the_model(
    world: MakeWorld,
) -> None:
    estimates = Noting()

    @workflow(budget=Budget(usd="0.03"))
    async def poor() -> str:
        return await decide("a")

    made = world({"small": [("yes", 1.0, 90)]}, plays=[("small", 1)], estimates=estimates)

    with pytest.raises(RunFailed):
        await made.engine.run(poor)

    assert made.models["small"].requests[0].max_tokens < 90
    assert [passed for _, _, passed, _ in estimates.notes] == [None]
    assert estimates.settlements == []


async def test_the_models_of_a_call_are_learnt_by_the_names_that_backends_have(
    world: MakeWorld,
) -> None:
    estimates = Noting()
    made = world({}, plays=[("small", 1)], estimates=estimates)
    made.models["small"].name = "small-2026"

    @workflow(budget=Budget(tokens=10_000))
    async def free() -> str:
        return await decide("a")

    await made.engine.run(free)

    assert estimates.notes[0][1] == "small-2026"
    assert estimates.settlements == [("decide", {"small-2026": (1, 0)})]
