"""Whatever allocators decide, models say and callers do, the books are kept and answers passed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow import Budget, CheapestFirst, MonteCarlo, events, first, llm, quorum, tool, workflow
from agentflow.budgets.allocation.cascade import InTurn
from agentflow.budgets.allocation.situation import Deciding, Decision, Situation, Start
from agentflow.clock import now
from agentflow.errors import (
    AgentflowError,
    BackendBusy,
    BackendRejected,
    DeadlineExceeded,
    RunCancelled,
    RunFailed,
)
from agentflow.testing import run_virtual

if TYPE_CHECKING:
    from tests.engine.allocation.conftest import MakeWorld, World


class Chaotic:
    """Decides by chance, and much of it makes no sense."""

    def decide(self, situation: Situation, chance: Random) -> Deciding:
        for _ in range(chance.randrange(3)):
            yield chance.choice([0.0, 0.0, 0.01, 0.7])
        ids = [job.id for job in situation.jobs] + [12345]
        starts = [
            Start(
                chance.choice(ids),
                chance.choice(["small", "large", "unheard of"]),
                chance.choice([0, 1, 1, 2, 3, 70, -1]),
            )
            for _ in range(chance.randrange(4))
        ]
        return Decision(
            tuple(starts),
            again=chance.choice([None, None, 0.0, 0.3]),
            hopeless=tuple(id for id in ids if chance.random() < 0.05),
        )


def passes(text: str) -> bool:
    return text == "yes"


async def passes_later(text: str) -> bool:
    await asyncio.sleep(0.2)
    return text == "yes"


@llm(model=["small", "large"], samples=(1, 2, 4), check=passes, max_tokens=100)
async def decide(question: str) -> str:
    """Decide {question}."""
    raise AssertionError


@llm(model=["large", "small"], samples=(16,), check=passes_later, max_tokens=20, timeout=2)
async def ponder(question: str) -> str:
    """Decide {question}."""
    raise AssertionError


@llm(model=["small"], samples=(1, 3), max_tokens=20, repairs=1)
async def judge(answer: str) -> bool:
    """Is {answer} right?"""
    raise AssertionError


@llm(model=["large"], samples=2, check=judge, max_tokens=40)
async def judged(question: str) -> str:
    """Decide {question}."""
    raise AssertionError


@llm(model="small", max_tokens=30)
async def plain(question: str) -> str:
    """Say {question}."""
    raise AssertionError


@tool
async def within(question: str) -> str:
    """A tool that asks for itself."""
    return await decide(question)


async def chain() -> list[str]:
    return [await decide("a"), await ponder("b")]


async def fan() -> list[str]:
    return list(await asyncio.gather(decide("a"), ponder("b"), within("c"), decide("d")))


async def mapped() -> list[str]:
    beside = plain("e")
    found = await decide.map(["a", "b", "c"])
    await beside
    return found


async def racing() -> list[str]:
    return [await first(decide("a"), ponder("b")), *await quorum(1, judged("c"), decide("d"))]


async def with_a_judge() -> list[str]:
    """What the judge says is what `small` says, so that nothing is known of the answer."""
    await judged("a")
    return []


async def tolerant() -> list[str]:
    found = await asyncio.gather(decide("a"), ponder("b"), return_exceptions=True)
    return [one for one in found if isinstance(one, str)]


BODIES: list[Callable[[], Coroutine[Any, Any, list[str]]]] = [
    chain,
    fan,
    mapped,
    racing,
    with_a_judge,
    tolerant,
]

ALLOCATORS: list[Any] = [Chaotic, CheapestFirst, InTurn, MonteCarlo]

busy = BackendBusy("busy", url="http://small", retryable=True)
gone = BackendRejected("gone", url="http://small", status=404)
seconds = st.sampled_from([0.0, 0.5, 1.0, 1.0, 3.0])
lines = st.one_of(
    st.tuples(st.sampled_from(["yes", "no", "no", "true", "false"]), seconds, st.integers(1, 120)),
    st.just({"refusal": "no", "seconds": 0.5}),
    st.sampled_from([busy, busy, gone]),
)
scripts = st.lists(lines, min_size=1, max_size=6)
usd = st.none() | st.sampled_from(["0", "0.001", "0.03", "0.05", "0.1", "0.4", "5"])
budgets = st.builds(
    Budget,
    usd=usd,
    tokens=st.none() | st.none() | st.sampled_from([0, 70, 200, 1000]),
    deadline=st.none() | st.sampled_from([0.0, 0.5, 1.0, 2.5, 6.0]),
    when_spent=st.sampled_from(["finish", "cancel"]),
)


async def end(made: World, body: Any, limits: Budget, cancelled: float | None) -> None:
    """Run it; what comes of it is an answer that passed, or a typed error, in time."""
    both = limits, made.engine.ledger.budget
    run = made.engine.start(workflow(budget=limits)(body))
    if cancelled is not None:
        asyncio.get_running_loop().call_later(cancelled, run.cancel)
    began = now()
    try:
        assert set(await run) <= {"yes"}
    except RunFailed as failed:
        assert isinstance(failed.__cause__, AgentflowError)
    except (RunCancelled, DeadlineExceeded):
        assert cancelled is not None or any(budget.deadline is not None for budget in both)
    for budget in both:
        assert budget.deadline is None or now() <= began + budget.deadline + 1e-6
    if cancelled is not None:
        assert now() <= began + cancelled + 1e-6
    await run.ended()


async def play(make: MakeWorld, small: Any, large: Any, runs: Any, **options: Any) -> World:
    made = make({"small": small, "large": large}, **options)
    await asyncio.gather(*(end(made, *run) for run in runs))
    await made.aclose()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left
    return made


runs = st.lists(
    st.tuples(
        st.sampled_from(BODIES),
        budgets,
        st.none() | st.none() | st.sampled_from([0.0, 0.3, 0.5, 1.0, 1.7]),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=150)
@given(
    scripts,
    scripts,
    runs,
    st.sampled_from(ALLOCATORS),
    st.builds(Budget, usd=usd),
    st.integers(0, 9),
)
def test_books_are_kept_and_answers_have_passed(
    make: MakeWorld, small: Any, large: Any, runs: Any, allocator: Any, shared: Any, seed: int
) -> None:
    run_virtual(
        play(make, small, large, runs, allocator=allocator, budget=shared, seed=seed, cache=False)
    )


@settings(max_examples=30)
@given(scripts, scripts, runs, st.sampled_from(ALLOCATORS), st.integers(0, 9))
def test_the_same_seed_gives_the_same_events(
    make: MakeWorld, small: Any, large: Any, runs: Any, allocator: Any, seed: int
) -> None:
    def events_of() -> list[str]:
        made = run_virtual(
            play(make, small, large, runs, allocator=allocator, seed=seed, cache=False)
        )
        return [same(event) for event in made.events]

    assert events_of() == events_of()


def same(event: events.Event) -> str:
    """An event without what differs from engine to engine, and from machine to machine."""
    if isinstance(event, events.Allocated):
        event.seconds = 0.0
    if isinstance(event, events.ModelReplied):
        event.session = event.session.partition("-")[2]
    event.run = event.run.partition("-")[2]
    return repr(event)


@settings(max_examples=40)
@given(scripts, scripts, runs, st.sampled_from(ALLOCATORS[1:]))
def test_no_decision_is_asked_for_in_vain(
    make: MakeWorld, small: Any, large: Any, runs: Any, allocator: Any
) -> None:
    made = run_virtual(play(make, small, large, runs, allocator=allocator, cache=False))

    decisions = len(made.told(events.Allocated))
    calls = len(made.told(events.NodeStarted)) + len(made.told(events.SampleStarted))
    assert decisions <= 3 * calls + 3
