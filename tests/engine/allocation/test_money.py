"""Money is never overdrawn, used to its last cents, and no decision is asked for in vain."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from agentflow import Budget, events, llm, workflow
from agentflow.budgets.allocation.cascade import CheapestFirst
from agentflow.budgets.allocation.situation import Decision, Start
from agentflow.budgets.ledger import NOTHING
from agentflow.errors import BudgetExceeded, OutOfReach, RunFailed

if TYPE_CHECKING:
    from tests.engine.allocation.conftest import MakeWorld


@llm(model=["small", "large"], samples=(1, 2, 4), check=lambda text: text == "yes", max_tokens=100)
async def decide(question: str) -> str:
    """Decide {question}."""
    raise AssertionError


INPUT = 9 + 2 + 2 * 16
"""The most tokens that the prompt can have: "Decide a.", and what is around it."""


def within(usd: str | None = None, tokens: int | None = None) -> Any:
    @workflow(budget=Budget(usd=usd, tokens=tokens))
    async def one() -> str:
        return await decide("a")

    return one


def cost(outputs: int, inputs: int = 0) -> Decimal:
    return Decimal(100 * inputs + 1000 * outputs) / 1_000_000


async def test_an_answer_may_be_as_long_as_can_be_paid(world: MakeWorld) -> None:
    made = world({}, plays=[("small", 1)])

    assert await made.engine.run(within(str(cost(30, INPUT)))) == "yes"
    assert [request.max_tokens for request in made.models["small"].requests] == [30]


async def test_what_is_left_is_shared_among_samples_begun_at_once(world: MakeWorld) -> None:
    made = world({"small": ["no", "no", "no", "yes"]}, plays=[("small", 4)])

    assert await made.engine.run(within(str(4 * cost(30, INPUT)))) == "yes"
    assert [request.max_tokens for request in made.models["small"].requests] == [30] * 4


async def test_so_are_tokens(world: MakeWorld) -> None:
    made = world({"small": ["no", "no", "no", "yes"]}, plays=[("small", 4)])

    assert await made.engine.run(within(tokens=4 * (30 + INPUT))) == "yes"
    assert [request.max_tokens for request in made.models["small"].requests] == [30] * 4


async def test_the_last_cents_are_used(world: MakeWorld) -> None:
    """Each answer costs 10 tokens in and 10 out; the bound of the last is the shortest."""
    made = world({"small": ["no"]}, plays=[("small", 1)])
    limit = 3 * cost(10, 10) + cost(16, INPUT)

    with pytest.raises(RunFailed) as caught:
        await made.engine.run(within(str(limit)))

    error = caught.value.__cause__
    assert isinstance(error, OutOfReach)
    assert error.tried == {"small": 4}
    asked = [request.max_tokens for request in made.models["small"].requests]
    assert asked[-1] == 16
    assert asked == sorted(asked, reverse=True)


async def test_a_cent_less_and_it_is_not_asked(world: MakeWorld) -> None:
    made = world({}, plays=[("small", 1)])

    with pytest.raises(RunFailed) as caught:
        await made.engine.run(within(str(cost(15, INPUT))))

    assert isinstance(caught.value.__cause__, BudgetExceeded)
    assert made.models["small"].requests == []


async def test_what_cannot_be_paid_beside_what_runs_is_not_tried_for_ever(
    world: MakeWorld,
) -> None:
    def keep_four(situation: Any) -> Decision:
        [job] = situation.jobs
        return Decision((Start(job.id, "small", 4 - len(job.running)),) if job.ready else ())

    made = world({"small": [("yes", 5.0)]}, plays=[keep_four])

    # three fit with the shortest answers
    assert await made.engine.run(within(str(3 * cost(16, INPUT)))) == "yes"
    assert len(made.models["small"].requests) == 3
    assert len(made.told(events.Allocated)) <= 4


async def test_a_call_that_nobody_can_be_paid_for_is_not_ready(world: MakeWorld) -> None:
    @workflow(budget=Budget(usd=str(cost(100, INPUT) + cost(15, INPUT))))
    async def two() -> list[str]:
        return list(await asyncio.gather(decide("a"), decide("b")))

    def both(situation: Any) -> Decision:
        return Decision((Start(0, "small"), Start(1, "small"), Start(1, "large")), again=5.0)

    def only_the_first(situation: Any) -> Decision:
        return Decision((Start(0, "small"),), again=5.0)

    made = world({"small": [("yes", 9.0)]}, plays=[only_the_first, both])

    assert await made.engine.run(two) == ["yes", "yes"]
    seen = [{job.id: job.ready for job in situation.jobs} for situation in made.played.seen]
    assert {0: True, 1: False} in seen
    assert seen[-1] == {1: True}


async def test_what_a_sample_asks_after_its_first_reply_is_shared_with_nobody(
    world: MakeWorld,
) -> None:
    @llm(model=["small", "large"], samples=2, max_tokens=500, repairs=1)
    async def count() -> int:
        """How many?"""
        raise AssertionError

    @workflow(budget=Budget(usd=1))
    async def one() -> int:
        return await count()

    made = world({"small": [("seven", 1.0), ("7", 2.0)]}, plays=[("small", 2)])

    assert await made.engine.run(one) == 7
    first, second, correction = (r.max_tokens for r in made.models["small"].requests)
    assert abs(first - second) <= 1
    rest = Decimal(1) - cost(10, 10) - cost(second, INPUT)
    assert correction == 500 or cost(correction) > rest / 2


async def test_an_answer_is_bought_again_when_its_judge_can_be_paid(world: MakeWorld) -> None:
    @llm(model="large", max_tokens=40)
    async def judge(answer: str) -> bool:
        """Is {answer} right?"""
        raise AssertionError

    @llm(model=["small"], samples=2, max_tokens=16, check=judge)
    async def judged() -> str:
        """Decide."""
        raise AssertionError

    @llm(model="small", max_tokens=40)
    async def beside() -> str:
        """Say yes."""
        raise AssertionError

    @workflow(budget=Budget(usd="0.13"))
    async def flow() -> list[str]:
        return list(await asyncio.gather(judged(), beside()))

    slow_and_short = ("yes", 5.0, 5)
    made = world(
        {"small": [slow_and_short, "yes"], "large": ["true"]},
        plays=[("small", 1)],
    )

    assert await made.engine.run(flow) == ["yes", "yes"]


async def test_a_model_that_can_be_paid_is_asked_instead(world: MakeWorld) -> None:
    made = world(
        {"small": ["no", "yes"]},
        prices={"large": (10_000, 100_000)},
        allocator=CheapestFirst,
    )

    assert await made.engine.run(within("0.1")) == "yes"
    assert made.models["large"].requests == []


async def test_a_model_that_could_not_be_paid_can_when_others_have_ended(
    world: MakeWorld,
) -> None:
    """The second call wants what the first holds."""

    @llm(model=["large"], samples=2, max_tokens=100)
    async def dear(question: str) -> str:
        """Decide {question}."""
        raise AssertionError

    @workflow(budget=Budget(usd=str(cost(100, INPUT) + cost(10, INPUT))))
    async def two() -> list[str]:
        return list(await asyncio.gather(dear("a"), dear("b")))

    def every(situation: Any) -> Decision:
        ready = [job for job in situation.jobs if job.ready and not job.running]
        return Decision(tuple(Start(job.id, "large") for job in ready[:1]))

    made = world({"large": [("yes", 5.0), ("yes", 1.0)]}, plays=[every])

    assert await made.engine.run(two) == ["yes", "yes"]
    assert made.models["large"].began == [0.0, 5.0]


async def test_a_repair_that_cannot_be_paid_ends_the_sample(world: MakeWorld) -> None:
    @llm(model=["small"], samples=2, max_tokens=16, repairs=1)
    async def count() -> int:
        """How many?"""
        raise AssertionError

    @workflow(budget=Budget(usd="0.1"))
    async def one() -> int:
        return await count()

    long_wrong = "seven " * 500  # it would have to be read again
    made = world({"small": [long_wrong, "7"]}, plays=[("small", 1)])

    assert await made.engine.run(one) == 7
    assert [len(request.messages) for request in made.models["small"].requests] == [1, 1]


async def test_runs_that_share_a_budget_do_not_overdraw_it(world: MakeWorld) -> None:
    made = world({"small": ["no"]}, plays=[("small", 2)], budget=Budget(usd="0.2"))

    @workflow
    async def one() -> str:
        return await decide("a")

    runs = [made.engine.start(one) for _ in range(5)]
    for run in runs:
        with pytest.raises(RunFailed):
            await run
        await run.ended()

    left = Decimal("0.2") - made.engine.ledger.spent.usd
    assert made.engine.ledger.reserved == NOTHING
    assert 0 <= left < cost(16, INPUT)


async def test_a_judge_is_paid_by_the_run(world: MakeWorld) -> None:
    @llm(model=["large"], samples=2, max_tokens=20)
    async def judge(answer: str) -> bool:
        """Is {answer} right?"""
        raise AssertionError

    @llm(model=["small"], samples=2, max_tokens=20, check=judge)
    async def judged() -> str:
        """Say something."""
        raise AssertionError

    @workflow(budget=Budget(usd=1))
    async def one() -> str:
        return await judged()

    def begin(situation: Any) -> Decision:
        ready = [job for job in situation.jobs if job.ready and not job.running]
        return Decision(tuple(Start(job.id, next(iter(job.models))) for job in ready))

    made = world({"small": ["one", "two"], "large": ["false", "true"]}, plays=[begin])
    run = made.engine.start(one)

    assert await run == "two"
    assert run.ledger.spent.usd == 4 * cost(10, 10)
    assert made.outcomes() == [
        ("large", "passed"),
        ("small", "refused"),
        ("large", "passed"),
        ("small", "passed"),
    ]
