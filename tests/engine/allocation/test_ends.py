"""However a run ends while models try its calls, it ends at once, and nothing is left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from agentflow import Budget, events, llm, tool, workflow
from agentflow.budgets.allocation.situation import Decision, Start
from agentflow.budgets.ledger import NOTHING
from agentflow.clock import now
from agentflow.errors import (
    DeadlineExceeded,
    RunCancelled,
    RunFailed,
)

if TYPE_CHECKING:
    from tests.engine.allocation.conftest import MakeWorld


@llm(model=["small", "large"], samples=(1, 2, 4), check=lambda text: text == "yes", max_tokens=100)
async def decide(question: str) -> str:
    """Decide {question}."""
    raise AssertionError


@workflow(budget=Budget(usd=10, deadline="4s"))
async def hurried() -> str:
    return await decide("a")


async def test_at_the_deadline_the_answer_is_there_and_samples_are_cancelled(
    world: MakeWorld,
) -> None:
    made = world({"small": [("yes", 9.0)]}, plays=[("small", 3)])

    with pytest.raises(DeadlineExceeded):
        await made.engine.run(hurried)

    assert now() == 4.0
    assert made.outcomes() == [("small", "cancelled")] * 3
    assert {event.why for event in made.told(events.SampleEnded)} == {"the run ended"}
    replied = [event.usd for event in made.told(events.ModelReplied)]
    assert [event.usd for event in made.told(events.SampleEnded)] == replied


@pytest.mark.parametrize("seconds", [4.0, 3.999999999, 4.000000001])
async def test_an_answer_at_the_deadline_is_told_once(world: MakeWorld, seconds: float) -> None:
    made = world({"small": [("no", seconds)]}, plays=[("small", 3), Decision()])

    with pytest.raises((DeadlineExceeded, RunFailed)):
        await made.engine.run(hurried)

    assert len(made.outcomes()) == 3


async def test_a_decision_at_the_deadline_begins_nothing_that_is_not_told_of(
    world: MakeWorld,
) -> None:
    class Slow:
        def decide(self, situation: Any, chance: Any) -> Any:
            yield 4.0
            return Decision((Start(situation.jobs[0].id, "small", 2),))

    made = world({}, allocator=Slow)

    with pytest.raises(DeadlineExceeded):
        await made.engine.run(hurried)

    assert made.told(events.SampleEnded) == made.told(events.SampleStarted) == []


async def test_time_for_thinking_passes_on_the_deadline(world: MakeWorld) -> None:
    class Slow:
        def decide(self, situation: Any, chance: Any) -> Any:
            yield 1.5
            idle = [job for job in situation.jobs if not job.running]
            return Decision(tuple(Start(job.id, "small") for job in idle))

    made = world({"small": [("no", 1.0), ("yes", 1.0)]}, allocator=Slow)

    with pytest.raises(DeadlineExceeded):
        await made.engine.run(hurried)
    assert made.models["small"].began == [1.5]


async def test_an_allocator_that_never_decides_is_cut_off_by_the_deadline(
    world: MakeWorld,
) -> None:
    class Endless:
        def decide(self, situation: Any, chance: Any) -> Any:
            while True:
                yield 0.001

    made = world({}, allocator=Endless)

    with pytest.raises(DeadlineExceeded):
        await made.engine.run(hurried)
    assert now() == pytest.approx(4.0)


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("how", ["cancel", "caller", "engine", "call"])
async def test_whoever_ends_it_is_answered_at_once(world: MakeWorld, how: str, at: float) -> None:
    made = world({"small": [("no", 1.0), ("yes", 9.0)]}, plays=[("small", 2)])
    run = made.engine.start(hurried)
    caller = asyncio.ensure_future(run.result())

    await asyncio.sleep(at)
    if how == "cancel":
        run.cancel()
    elif how == "caller":
        caller.cancel()
    elif how == "engine":
        await made.engine.aclose()
    else:
        await asyncio.sleep(0)  # before that there is no call
        run.cancel(0)
    with pytest.raises((RunCancelled, RunFailed, asyncio.CancelledError)):
        await caller
    await run.ended()

    assert now() == at
    assert run.ledger.reserved == NOTHING


async def test_cleaning_up_may_ask_models_again(world: MakeWorld) -> None:
    asked: list[str] = []

    @workflow(budget=Budget(usd=10))
    async def tidy() -> str:
        try:
            return await decide("a")
        finally:
            asked.append(await decide("b"))

    made = world({"small": [("yes", 5.0), ("yes", 1.0)]}, plays=[("small", 1)])
    run = made.engine.start(tidy)
    await asyncio.sleep(1)
    run.cancel()
    with pytest.raises(RunCancelled):
        await run

    assert asked == ["yes"]
    assert now() == 2.0


async def test_a_model_that_will_not_be_cancelled_is_left_behind_after_the_grace(
    world: MakeWorld,
) -> None:
    """The answer does not wait for it; the end of the run does, for as long as grace says."""
    made = world({"small": [("yes", 1.0), ("yes", 9.0)]}, plays=[("small", 2)])
    small: Any = made.models["small"]
    stubborn = small.stream
    small.stream = lambda request: Stubborn(stubborn(request), 3.0)
    run = made.engine.start(hurried)

    assert await run == "yes"
    await run.ended()
    assert now() == 1.0 + made.engine.services.limits.grace
    assert made.engine.services.abandoned == ["sample 2 of decide"]
    made.engine.services.abandoned.clear()
    await asyncio.sleep(10)


async def test_what_takes_a_while_to_be_cancelled_and_ends_is_not_left_behind(
    world: MakeWorld,
) -> None:
    @workflow(budget=Budget(usd=10))
    async def two() -> list[str]:
        return [await decide("a"), await decide("b")]

    script = [("yes", 1.0), ("yes", 9.0)]
    made = world({"small": script, "large": script[1:]}, plays=[("small", 2), ("large", 1)])
    small: Any = made.models["small"]
    stubborn = small.stream
    small.stream = lambda request: Stubborn(stubborn(request), 0.5)

    await made.engine.run(two)

    assert now() == 10.0
    assert made.engine.services.abandoned == []


class Stubborn:
    """Takes a while to break a call off."""

    def __init__(self, inner: Any, seconds: float) -> None:
        self._inner = inner
        self._seconds = seconds

    async def __aenter__(self) -> Any:
        return await self._inner.__aenter__()

    async def __aexit__(self, *exc: object) -> Any:
        if exc[0] is asyncio.CancelledError:
            await asyncio.sleep(self._seconds)
        return await self._inner.__aexit__(*exc)


async def test_a_run_that_fails_elsewhere_ends_its_samples(world: MakeWorld) -> None:
    @tool
    async def fails() -> None:
        await asyncio.sleep(2)
        raise ValueError("elsewhere")

    @workflow(budget=Budget(usd=10))
    async def both() -> Any:
        slow = decide("a")
        await fails()
        return await slow

    made = world({"small": [("yes", 9.0)]}, plays=[("small", 2)])

    with pytest.raises(RunFailed):
        await made.engine.run(both)
    assert now() == 2.0
    assert made.outcomes() == [("small", "cancelled")] * 2


async def test_a_timeout_of_one_sample_does_not_end_the_others(world: MakeWorld) -> None:
    @workflow(budget=Budget(usd=10))
    async def hasty() -> str:
        return await decide.with_(timeout=2)("a")

    def staggered(situation: Any) -> Decision:
        [job] = situation.jobs
        return Decision(() if len(job.running) > 1 else (Start(job.id, "small"),), again=1.0)

    made = world({"small": [("yes", 9.0), ("yes", 1.5)]}, plays=[staggered])

    assert await made.engine.run(hasty) == "yes"
    assert now() == 2.5


async def test_the_loop_is_not_kept_while_an_allocator_thinks(world: MakeWorld) -> None:
    """Between its steps others run, although each step is short."""
    turns = 0

    class Thorough:
        def decide(self, situation: Any, chance: Any) -> Any:
            for _ in range(2000):
                for _ in range(2000):
                    pass
                yield 0.0
            return Decision((Start(situation.jobs[0].id, "small"),))

    async def count() -> None:
        nonlocal turns
        while not made.told(events.Allocated):
            turns += 1
            await asyncio.sleep(0)

    made = world({}, allocator=Thorough)
    counting = asyncio.ensure_future(count())
    assert await made.engine.run(hurried) == "yes"
    await counting
    assert turns >= 500


async def test_out_of_reach_ends_the_run_as_money_that_is_spent_does(world: MakeWorld) -> None:
    """What runs is finished; with `cancel` it is not."""
    done: list[str] = []

    @tool
    async def plain() -> None:
        await asyncio.sleep(3)
        done.append("plain")

    async def body() -> Any:
        other = plain()
        await decide("a")
        return await other

    made = world({"small": ["no"]}, plays=[("small", 1), Decision(hopeless=(1,))])
    policies: list[tuple[Any, list[str]]] = [("finish", ["plain"]), ("cancel", [])]
    for when_spent, finished in policies:
        done.clear()
        made.played.seen.clear()
        limits = Budget(usd=10, when_spent=when_spent)
        with pytest.raises(RunFailed):
            await made.engine.run(workflow(budget=limits)(body))
        assert done == finished
