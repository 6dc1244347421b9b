"""Calls that models try, among everything else that calls can be part of."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from agentflow import (
    Budget,
    Speculation,
    events,
    first,
    gather,
    llm,
    quorum,
    tool,
    workflow,
)
from agentflow.budgets.allocation.situation import Decision, Start
from agentflow.clock import now
from agentflow.errors import (
    AnswerInvalid,
    BackendUnreachable,
    BudgetExceeded,
    CallTimeout,
    CheckFailed,
    RunFailed,
)

if TYPE_CHECKING:
    from tests.engine.allocation.conftest import MakeWorld


@llm(model=["small", "large"], samples=(1, 2, 4), check=lambda text: text == "yes", max_tokens=100)
async def decide(question: str) -> str:
    """Decide {question}."""
    raise AssertionError


LIMITS = Budget(usd=10, deadline="60s")


def by_prompt(answers: dict[str, Any]) -> Any:
    """A script that goes by the last word of the prompt."""

    def script(_number: int, request: Any) -> Any:
        return answers[request.messages[0]["content"].rstrip(".").split()[-1]]

    return script


async def test_the_elements_of_a_map_are_jobs_of_their_own(world: MakeWorld) -> None:
    @workflow(budget=LIMITS)
    async def flow() -> list[str]:
        return await decide.map(["a", "b", "c"])

    made = world({"small": [("no", 1.0), ("yes", 2.0)]}, plays=[("small", 2)])

    assert await made.engine.run(flow) == ["yes"] * 3
    assert sorted({event.element for event in made.told(events.SampleStarted)}) == [0, 1, 2]
    assert len(made.played.seen[0].jobs) == 3


async def test_what_waits_is_seen_by_the_allocator_and_not_begun(world: MakeWorld) -> None:
    @workflow(budget=LIMITS)
    async def flow() -> str:
        one = decide("a")
        two = decide(one)  # type: ignore[arg-type]  # a handle stands for its value
        return await two

    made = world({}, plays=[("small", 1)])

    assert await made.engine.run(flow) == "yes"
    jobs = made.played.seen[0].jobs
    assert [(job.id, job.after, job.ready) for job in jobs] == [(0, (), True), (1, (0,), False)]


async def test_the_first_of_several_calls_ends_the_samples_of_the_others(
    world: MakeWorld,
) -> None:
    @workflow(budget=LIMITS)
    async def flow() -> str:
        return await first(decide("slow"), decide("fast"))

    script = by_prompt({"slow": ("yes", 9.0), "fast": ("yes", 1.0)})
    made = world({"small": script}, plays=[("small", 2)])

    assert await made.engine.run(flow) == "yes"
    assert now() == 1.0
    assert [outcome for _, outcome in made.outcomes()].count("cancelled") >= 2


async def test_a_quorum_ends_the_rest(world: MakeWorld) -> None:
    @workflow(budget=LIMITS)
    async def flow() -> list[str]:
        return await quorum(2, decide("slow"), decide("fast"), decide("fast."))

    script = by_prompt({"slow": ("yes", 9.0), "fast": ("yes", 1.0)})
    made = world({"small": script}, plays=[("small", 1)])

    assert await made.engine.run(flow) == ["yes", "yes"]
    assert now() == 1.0


async def test_a_call_that_fails_lets_the_others_of_a_gather_go(world: MakeWorld) -> None:
    @workflow(budget=LIMITS)
    async def flow() -> list[str]:
        return await gather(decide("slow"), decide("never"))

    script = by_prompt({"slow": ("yes", 9.0), "never": ("no", 1.0)})
    made = world({"small": script}, plays=[("small", 1), Decision(hopeless=(1,))])
    made.engine.services.estimates.settled("decide", {"small": (1, 1)})

    with pytest.raises(RunFailed):
        await made.engine.run(flow)
    assert made.models["small"].active == 0


async def test_a_workflow_within_shares_the_budget_and_has_its_own_allocator(
    world: MakeWorld,
) -> None:
    @workflow
    async def inner() -> str:
        return await decide("inner")

    @workflow(budget=LIMITS)
    async def outer() -> list[str]:
        return [await decide("outer"), await inner()]

    made = world({}, plays=[("small", 1)])
    run = made.engine.start(outer)

    assert await run == ["yes", "yes"]
    assert run.ledger.spent.usd == 2 * Decimal("0.011")
    assert {event.run for event in made.told(events.SampleStarted)} != {run.id}


async def test_a_tool_may_ask_in_its_body(world: MakeWorld) -> None:
    @tool
    async def asks(question: str) -> str:
        """Asks twice at once."""
        return "".join(await asyncio.gather(decide(question), decide(question)))

    @workflow(budget=LIMITS)
    async def flow() -> str:
        return await asks("a")

    made = world({}, plays=[("small", 1)])

    assert await made.engine.run(flow) == "yesyes"
    assert {event.node for event in made.told(events.SampleStarted)} == {0}


async def test_a_guard_that_is_false_asks_nobody(world: MakeWorld) -> None:
    @tool
    async def never() -> bool:
        return False

    @workflow(budget=LIMITS)
    async def flow() -> Any:
        return await asyncio.gather(decide.with_(when=never().ref)("a"), return_exceptions=True)

    made = world({}, plays=[("small", 1)])

    await made.engine.run(flow)
    assert made.models["small"].requests == []


async def test_a_fallback_takes_the_place_of_a_call_that_is_given_up(world: MakeWorld) -> None:
    @workflow(budget=LIMITS)
    async def flow() -> str:
        return await decide.with_(fallback="perhaps", retries=3)("a")

    made = world({"small": ["no"]}, plays=[("small", 1), Decision()])

    assert await made.engine.run(flow) == "perhaps"
    assert len(made.models["small"].requests) == 1


async def test_a_plan_in_text_is_allocated_too(world: MakeWorld) -> None:
    made = world({"small": ["no", "yes"]}, plays=[("small", 1)], tools=[decide])
    plan = made.engine.plan('$1 = decide("a")\n$2 = decide("b")\n')

    run = made.engine.start(plan)
    await run

    assert [outcome for _, outcome in made.outcomes()].count("passed") == 2
    assert {event.node for event in made.told(events.SampleStarted)} == {0, 1}


async def test_the_same_question_is_answered_from_the_cache_if_it_has_one_answer(
    world: MakeWorld,
) -> None:
    @llm(model=["small", "large"], samples=2, temperature=0, ttl=60, max_tokens=100)
    async def settled(question: str) -> str:
        """Decide {question}."""
        raise AssertionError

    @workflow(budget=LIMITS)
    async def flow() -> list[str]:
        return [await settled("a"), await settled("a")]

    made = world({}, plays=[("small", 2)])

    answers = await made.engine.run(flow)

    assert answers == ["yes", "yes"]


@pytest.mark.parametrize("speculation", [False, True])
@pytest.mark.parametrize("partial", [False, True])
async def test_engines_of_every_kind_try_it(
    world: MakeWorld, speculation: bool, partial: bool
) -> None:
    @workflow(budget=LIMITS)
    async def flow() -> list[str]:
        return [await decide("a"), await decide("b")]

    made = world(
        {"small": ["no", "yes"]},
        plays=[("small", 2)],
        partial=partial,
        speculation=Speculation() if speculation else False,
    )
    for _ in range(3):
        assert await made.engine.run(flow) == ["yes", "yes"]


async def test_a_hedged_call_has_two_trials_and_one_answer(world: MakeWorld) -> None:
    @workflow(budget=LIMITS)
    async def flow() -> str:
        return await decide.with_(hedge=2)("a")

    made = world({"small": [("yes", 9.0), ("yes", 1.0)]}, plays=[("small", 1)])

    assert await made.engine.run(flow) == "yes"
    assert now() == 3.0
    assert made.outcomes()[-1] == ("small", "cancelled")


async def test_a_judge_that_raises_fails_the_call(world: MakeWorld) -> None:
    async def judge(text: str) -> bool:
        await asyncio.sleep(1)
        raise KeyError(text)

    @llm(model=["small", "large"], check=judge)
    async def judged() -> str:
        """Say yes."""
        raise AssertionError

    @workflow(budget=LIMITS)
    async def flow() -> str:
        return await judged()

    made = world({}, plays=[("small", 2)])

    with pytest.raises(RunFailed) as caught:
        await made.engine.run(flow)
    assert isinstance(caught.value.__cause__, CheckFailed)
    assert "KeyError" in str(caught.value.__cause__)


async def test_the_judge_of_an_answer_that_is_overtaken_is_cancelled(world: MakeWorld) -> None:
    """A judge is asked by its sample, and ends with it."""

    @llm(model=["large"], samples=2, max_tokens=20)
    async def judge(answer: str) -> bool:
        """Is {answer} right?"""
        raise AssertionError

    @llm(model=["small"], samples=2, max_tokens=20, check=judge)
    async def judged() -> str:
        """Say something."""
        raise AssertionError

    @workflow(budget=LIMITS)
    async def flow() -> str:
        return await judged()

    def begin(situation: Any) -> Decision:
        ready = [job for job in situation.jobs if job.ready and not job.running]
        return Decision(
            tuple(Start(job.id, name, 2) for job in ready for name in job.models if name == "small")
            + tuple(Start(job.id, "large") for job in ready if "large" in job.models)
        )

    made = world(
        {"small": [("one", 1.0), ("two", 2.0)], "large": [("true", 9.0), ("true", 1.0)]},
        plays=[begin],
    )

    assert await made.engine.run(flow) == "two"
    assert now() == 3.0
    assert made.models["large"].broken_off == [3.0]


# Judges that cannot judge


@llm(model="large", max_tokens=20, repairs=0)
async def judge(answer: str) -> bool:
    """Is {answer} right?"""
    raise AssertionError


@llm(model=["small"], samples=2, max_tokens=20, check=judge)
async def judged(question: str) -> str:
    """Decide {question}."""
    raise AssertionError


@workflow(budget=LIMITS)
async def judging() -> str:
    return await judged("a")


async def test_what_a_judge_cannot_read_is_not_held_against_the_model(world: MakeWorld) -> None:
    made = world({"large": ["bogus", "bogus", "true"]}, plays=[("small", 1)])
    before = made.engine.services.estimates.success("judged", "small")

    assert await made.engine.run(judging) == "yes"
    assert made.outcomes() == [("small", "failed"), ("small", "failed"), ("small", "passed")]
    assert made.engine.services.estimates.success("judged", "small").mean > before.mean
    assert "its judge: judge: the answer of large" in made.told(events.SampleEnded)[0].why


async def test_a_judge_that_fails_three_times_in_a_row_fails_the_call(world: MakeWorld) -> None:
    away = BackendUnreachable("away", url="http://large")
    made = world({"large": [away]}, plays=[("small", 1)])

    with pytest.raises(RunFailed) as caught:
        await made.engine.run(judging)
    assert caught.value.__cause__ is away
    assert len(made.models["small"].requests) == 3


async def test_a_judge_that_gives_up_costs_one_sample_and_not_its_siblings(
    world: MakeWorld,
) -> None:
    @llm(model=["large", "judge"], max_tokens=20, repairs=0, check=lambda right: right)
    async def strict(answer: str) -> bool:
        """Is {answer} right?"""
        raise AssertionError

    @llm(model=["small"], samples=2, max_tokens=20, check=strict)
    async def two(question: str) -> str:
        """Decide {question}."""
        raise AssertionError

    @workflow(budget=LIMITS)
    async def flow() -> str:
        return await two("a")

    def begin(situation: Any) -> Decision:
        of_judge = [job for job in situation.jobs if "large" in job.models]
        lost = tuple(job.id for job in of_judge if not job.running and job.failed)
        starts = [Start(job.id, "large") for job in of_judge if not (job.running or job.failed)]
        own = [Start(job.id, "small", 2) for job in situation.jobs if "small" in job.models]
        running = [job for job in situation.jobs if "small" in job.models and job.running]
        return Decision(tuple(starts if running else own), hopeless=lost)

    made = world(
        {"small": [("one", 1.0), ("two", 3.0)], "large": ["false", "true"], "judge": ["true"]},
        plays=[begin],
    )
    made.engine.services.estimates.settled("strict", {"large": (1, 1)})

    assert await made.engine.run(flow) == "two"


async def test_one_model_is_not_blamed_for_its_judge_either(world: MakeWorld) -> None:
    @llm(model="small", max_tokens=20, check=judge)
    async def single(question: str) -> str:
        """Decide {question}."""
        raise AssertionError

    @workflow(budget=LIMITS)
    async def flow() -> str:
        return await single("a")

    made = world({"large": ["bogus"]}, plays=[("small", 1)])
    before = made.engine.services.estimates.success("single", "small")

    with pytest.raises(RunFailed) as caught:
        await made.engine.run(flow)
    assert isinstance(caught.value.__cause__, AnswerInvalid)
    assert made.engine.services.estimates.success("single", "small").mean == before.mean


async def test_an_answer_whose_judge_cannot_be_paid_is_not_bought_again(world: MakeWorld) -> None:
    @workflow(budget=Budget(usd=1))
    async def flow() -> list[Any]:
        others = [decide(str(number)) for number in range(30)]
        return list(await asyncio.gather(judged("a"), *others, return_exceptions=True))

    made = world({"large": ["true"]}, prices={"large": (1000, 10**6)}, plays=[("small", 1)])

    [lost, *found] = await made.engine.run(flow)

    assert isinstance(lost, BudgetExceeded)
    assert found == ["yes"] * 30
    assert len(made.models["small"].requests) == 31


async def test_a_sample_that_takes_too_long_is_a_call_that_did(world: MakeWorld) -> None:
    @workflow
    async def flow() -> str:
        return await decide.with_(timeout=2)("a")

    made = world({"small": [("yes", 9.0)], "large": [("yes", 9.0)]})

    with pytest.raises(RunFailed) as caught:
        await made.engine.run(flow)
    error = caught.value.__cause__
    assert isinstance(error, CallTimeout)
    assert (error.tool, error.seconds, error.node) == ("decide", 2.0, 0)


async def test_what_a_call_left_running_may_ask_models_after_it(world: MakeWorld) -> None:
    @tool
    async def leaves() -> asyncio.Task[str]:
        return asyncio.ensure_future(decide("a"))

    @workflow(budget=LIMITS)
    async def flow() -> str:
        task = await leaves()
        return await task

    made = world({}, plays=[("small", 1)])

    assert await made.engine.run(flow) == "yes"
