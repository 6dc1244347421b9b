"""A call ends with an error that says what was tried when no further sample can help."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import pytest

from agentflow import Budget, events, llm, workflow
from agentflow.budgets.allocation.situation import Decision, Start
from agentflow.errors import (
    AnswerInvalid,
    BackendRejected,
    BackendUnreachable,
    BudgetExceeded,
    CheckFailed,
    DefinitionError,
    ModelRefusal,
    OutOfReach,
    RunFailed,
)

if TYPE_CHECKING:
    from tests.engine.allocation.conftest import MakeWorld, World


@llm(model=["small", "large"], samples=(1, 2, 4), check=lambda text: text == "yes", max_tokens=100)
async def decide(question: str) -> str:
    """Decide {question}."""
    raise AssertionError


@workflow(budget=Budget(usd=10, deadline="60s"))
async def one() -> str:
    return await decide("a")


async def failure(made: World, flow: Any, *args: Any) -> BaseException:
    """What is wrong with a run, if it ends at all."""
    async with asyncio.timeout(100):
        with pytest.raises(RunFailed) as caught:
            await made.engine.run(flow, *args)
    assert caught.value.__cause__ is not None
    return caught.value.__cause__


async def test_an_allocator_that_starts_nothing_gives_the_call_up(world: MakeWorld) -> None:
    made = world({}, plays=[Decision()])

    error = await failure(made, one)

    assert isinstance(error, OutOfReach)
    assert (error.tried, error.usd, error.seconds) == ({}, Decimal(10), 60.0)
    assert "no sample can succeed within what is left ($10, 60 s)" in str(error)
    assert len(made.told(events.Allocated)) == 1


async def test_what_was_tried_is_told(world: MakeWorld) -> None:
    made = world({"small": ["no"], "large": ["no"]}, plays=[("small", 2), ("large", 1), Decision()])

    error = await failure(made, one)

    assert isinstance(error, OutOfReach)
    assert error.tried == {"small": 2, "large": 1}
    assert "none of 3 samples passed (2 of small, 1 of large)" in str(error)
    assert isinstance(error.__cause__, AnswerInvalid)


async def test_a_hopeless_call_is_given_up_and_others_go_on(world: MakeWorld) -> None:
    @workflow(budget=Budget(usd=10))
    async def two() -> list[Any]:
        return list(await asyncio.gather(decide("a"), decide("b"), return_exceptions=True))

    def first_is_hopeless(situation: Any) -> Decision:
        first, second = situation.jobs
        return Decision((Start(second.id, "small"),), hopeless=(first.id,))

    made = world({}, plays=[first_is_hopeless, Decision()])
    made.engine.services.estimates.settled("decide", {"small": (1, 1)})  # so it is no guess

    [lost, kept] = await made.engine.run(two)

    assert isinstance(lost, OutOfReach)
    assert kept == "yes"


async def test_at_most_64_samples_are_begun(world: MakeWorld) -> None:
    made = world({"small": ["no"]}, plays=[("small", 1000)])

    error = await failure(made, one)

    assert isinstance(error, OutOfReach)
    assert "none of 64 samples passed (64 of small)" in str(error)
    assert len(made.models["small"].requests) == 64


async def test_when_fewer_are_allowed_than_begin_at_once_these_begin(world: MakeWorld) -> None:
    @llm(model=["small", "large"], samples=48, check=lambda text: text == "yes", max_tokens=20)
    async def wide() -> str:
        """Say yes."""
        raise AssertionError

    @workflow(budget=Budget(usd=100))
    async def flow() -> str:
        return await wide()

    made = world({"small": ["no"]}, plays=[("small", 48)])

    await failure(made, flow)
    assert [situation.jobs[0].widths for situation in made.played.seen] == [(48,), (16,)]


async def test_one_after_the_other_they_are_64_too(world: MakeWorld) -> None:
    made = world({"small": [("no", 0.1)]}, plays=[("small", 1)])

    error = await failure(made, one)

    assert isinstance(error, OutOfReach)
    assert len(made.models["small"].requests) == 64
    assert len(made.told(events.Allocated)) == 64


async def test_a_model_that_is_not_there_is_not_asked_again(world: MakeWorld) -> None:
    gone = BackendRejected("no such model", url="http://small", status=404)
    made = world({"small": [gone]}, plays=[("small", 2), ("large", 1)])

    assert await made.engine.run(one) == "yes"
    before, after = made.played.seen
    assert tuple(before.jobs[0].models) == ("small", "large")
    assert tuple(after.jobs[0].models) == ("large",)


async def test_a_model_that_may_not_be_asked_begins_nothing(world: MakeWorld) -> None:
    gone = BackendRejected("no such model", url="http://small", status=404)
    made = world({"small": [gone]}, plays=[("small", 1)])

    assert await failure(made, one) is gone
    assert len(made.models["small"].requests) == 1


async def test_when_no_model_is_there_the_call_is_given_up(world: MakeWorld) -> None:
    gone = BackendRejected("no such model", url="http://small", status=404)
    made = world({"small": [gone], "large": [gone]}, plays=[("small", 1), ("large", 1)])

    assert await failure(made, one) is gone


async def test_a_backend_that_is_away_costs_a_sample(world: MakeWorld) -> None:
    away = BackendUnreachable("away", url="http://small")
    made = world({"small": [away, away, "yes"]}, plays=[("small", 1)])

    assert await made.engine.run(one) == "yes"
    assert made.outcomes() == [("small", "failed"), ("small", "failed"), ("small", "passed")]


async def test_a_backend_that_comes_back_in_between_is_asked_again(world: MakeWorld) -> None:
    away = BackendUnreachable("away", url="http://small")
    made = world({"small": [away, away, "no", away, away, "yes"]}, plays=[("small", 1)])

    assert await made.engine.run(one) == "yes"


async def test_a_backend_that_is_away_three_times_in_a_row_is_left_alone(world: MakeWorld) -> None:
    away = BackendUnreachable("away", url="http://small")
    made = world({"small": [away]}, plays=[("small", 1)])

    assert await failure(made, one) is away
    assert len(made.models["small"].requests) == 3


async def test_a_refusal_is_a_sample_that_did_not_pass(world: MakeWorld) -> None:
    made = world({"small": [{"refusal": "I will not"}]}, plays=[("small", 1), Decision()])

    error = await failure(made, one)

    assert isinstance(error.__cause__, ModelRefusal)


async def test_a_sample_has_its_own_timeout(world: MakeWorld) -> None:
    @workflow(budget=Budget(usd=10))
    async def hasty() -> str:
        return await decide.with_(timeout=2)("a")

    made = world({"small": [("yes", 50.0), ("yes", 1.0)]}, plays=[("small", 1)])

    assert await made.engine.run(hasty) == "yes"
    assert made.models["small"].broken_off == [2.0]
    assert made.models["small"].began == [0.0, 2.0]


async def test_a_check_that_raises_fails_the_call_at_once(world: MakeWorld) -> None:
    def raises(text: str) -> bool:
        raise ZeroDivisionError(text)

    @llm(model=["small", "large"], check=raises)
    async def checked() -> str:
        """Say yes."""
        raise AssertionError

    @workflow(budget=Budget(usd=10))
    async def flow() -> str:
        return await checked()

    made = world({"small": [("yes", 1.0), ("yes", 9.0)]}, plays=[("small", 2)])

    error = await failure(made, flow)

    assert isinstance(error, CheckFailed)
    assert error.tool == "checked"
    assert made.models["small"].broken_off == [1.0]


async def test_a_model_that_no_engine_knows_fails_its_own_call_only(world: MakeWorld) -> None:
    @llm(model=["small", "unheard of"])
    async def odd() -> str:
        """Say yes."""
        raise AssertionError

    @workflow(budget=Budget(usd=10))
    async def both() -> list[Any]:
        return list(await asyncio.gather(odd(), decide("a"), return_exceptions=True))

    made = world({}, plays=[("small", 1)])

    [lost, kept] = await made.engine.run(both)

    assert isinstance(lost, DefinitionError)
    assert kept == "yes"


async def test_a_model_that_no_engine_knows_is_no_fault_of_calls_before_it(
    world: MakeWorld,
) -> None:
    @llm(model=["small", "unheard of"])
    async def odd(text: str) -> str:
        """Say {text}."""
        raise AssertionError

    @workflow(budget=Budget(usd=10))
    async def both() -> Any:
        first = decide("a")
        later = odd(cast("str", first))
        assert await first == "yes"
        return await later

    made = world({}, plays=[("small", 1)])

    assert isinstance(await failure(made, both), DefinitionError)


async def test_a_model_without_a_price_fails_its_own_call_only(world: MakeWorld) -> None:
    made = world({}, plays=[("small", 1)])
    made.models["large"].prices = type(made.models["large"].prices)({})
    made.models["large"].name = "priceless"

    @llm(model=["large"], samples=2)
    async def odd() -> str:
        """Say yes."""
        raise AssertionError

    @llm(model=["small"], samples=2)
    async def even() -> str:
        """Say yes."""
        raise AssertionError

    @workflow(budget=Budget(usd=10))
    async def both() -> list[Any]:
        return list(await asyncio.gather(odd(), even(), return_exceptions=True))

    def begin(situation: Any) -> Decision:
        return Decision(tuple(Start(job.id, next(iter(job.models))) for job in situation.jobs))

    made.played._moves = [begin]
    [lost, kept] = await made.engine.run(both)

    assert isinstance(lost, DefinitionError)
    assert kept == "yes"


# Money that does not fit


@workflow(budget=Budget(usd="0.0001"))
async def poor() -> str:
    return await decide("a")


async def test_a_budget_below_the_shortest_reply_is_said_to_be_exceeded(world: MakeWorld) -> None:
    made = world({}, plays=[("small", 1)])

    error = await failure(made, poor)

    assert isinstance(error, BudgetExceeded)
    assert (error.unit, error.left) == ("usd", Decimal("0.0001"))
    assert made.models["small"].requests == []
    assert len(made.told(events.Allocated)) == 2  # the large one might have been cheaper


async def test_when_the_money_is_gone_the_call_is_given_up(world: MakeWorld) -> None:
    @workflow(budget=Budget(usd="0.05"))
    async def short() -> str:
        return await decide("a")

    made = world({"small": ["no"]}, plays=[("small", 1)])

    error = await failure(made, short)

    assert isinstance(error, OutOfReach)
    assert error.tried["small"] >= 1
    assert error.usd == Decimal("0.05") - made.engine.ledger.spent.usd


async def test_a_call_that_cannot_be_paid_waits_for_the_money_of_others(world: MakeWorld) -> None:
    """What another call holds in reserve comes back when it ends."""

    @llm(model="large", max_tokens=40)
    async def plain() -> str:
        """Say yes."""
        raise AssertionError

    @workflow(budget=Budget(usd="0.06"))
    async def flow() -> list[Any]:
        first = plain()
        await asyncio.sleep(0.5)
        return list(await asyncio.gather(first, decide("a"), return_exceptions=True))

    made = world({"large": [("yes", 5.0, 5)]}, plays=[("small", 1)])

    assert await made.engine.run(flow) == ["yes", "yes"]
    assert made.models["small"].began == [5.0]


async def test_so_it_does_for_the_elements_of_a_map(world: MakeWorld) -> None:
    @llm(model="large", max_tokens=22)
    async def plain(number: int) -> str:
        """Say {number}."""
        raise AssertionError

    @workflow(budget=Budget(usd="0.06"))
    async def flow() -> list[Any]:
        first = plain.map([1, 2])
        await asyncio.sleep(0.5)
        return list(await asyncio.gather(first, decide("a"), return_exceptions=True))

    made = world({"large": [("yes", 5.0, 5)]}, plays=[("small", 1)])

    assert await made.engine.run(flow) == [["yes", "yes"], "yes"]
    assert made.models["small"].began == [5.0]


async def test_a_judge_that_cannot_be_paid_does_not_hang(world: MakeWorld) -> None:
    """The sample waits for its judge, and the judge for nothing."""

    @llm(model=["judge"], samples=2, max_tokens=400)
    async def judge(answer: str) -> bool:
        """Is {answer} right? Think about it for very long."""
        raise AssertionError

    @llm(model=["small"], samples=2, check=judge, max_tokens=20)
    async def judged() -> str:
        """Say yes."""
        raise AssertionError

    @workflow(budget=Budget(usd="0.05"))
    async def flow() -> str:
        return await judged()

    def begin(situation: Any) -> Decision:
        ready = [job for job in situation.jobs if job.ready and not job.running]
        return Decision(tuple(Start(job.id, next(iter(job.models))) for job in ready))

    made = world({"judge": ["true"]}, prices={"judge": (1000, 1000)}, plays=[begin])

    error = await failure(made, flow)

    assert isinstance(error, BudgetExceeded | OutOfReach)


# Allocators that are wrong


async def test_an_allocator_that_raises_fails_the_calls(world: MakeWorld) -> None:
    made = world({}, plays=[ZeroDivisionError("in the allocator")])

    error = await failure(made, one)

    assert isinstance(error, ZeroDivisionError)


@pytest.mark.parametrize(
    "nonsense",
    [
        Decision((Start(12345, "small"),)),
        Decision((Start(0, "unheard of"),)),
        Decision((Start(0, "small", 0),)),
        Decision((Start(0, "small", -3),)),
        Decision(hopeless=(12345,)),
        Decision(again=0.0),
        Decision(again=-1.0),
        Decision(again=1.0),
    ],
)
async def test_a_decision_that_begins_nothing_gives_the_call_up(
    world: MakeWorld, nonsense: Decision
) -> None:
    made = world({}, plays=[nonsense])

    @workflow(budget=Budget(usd=10))
    async def endless() -> str:
        return await decide("a")

    assert isinstance(await failure(made, endless), OutOfReach)


NONSENSE: list[Any] = [None, 3, "small", Decision((Start(0, "small", cast("int", "many")),))]


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_what_is_no_decision_fails_the_call(world: MakeWorld, nonsense: Any) -> None:
    made = world({}, plays=[lambda _: nonsense])

    assert isinstance(await failure(made, one), (TypeError, AttributeError))


async def test_starts_of_less_than_nothing_do_no_harm_to_others(world: MakeWorld) -> None:
    made = world({}, plays=[Decision((Start(0, "small", 1), Start(0, "large", -1)))])

    assert await made.engine.run(one) == "yes"


async def test_asking_again_while_something_runs_is_done(world: MakeWorld) -> None:
    def slowly(situation: Any) -> Decision:
        [job] = situation.jobs
        return Decision(() if len(job.running) > 2 else (Start(job.id, "small"),), again=1.0)

    made = world({"small": [("yes", 3.5)]}, plays=[slowly])

    assert await made.engine.run(one) == "yes"
    assert made.models["small"].began == [0.0, 1.0, 2.0]
