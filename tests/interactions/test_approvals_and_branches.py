"""A question that is asked within something that is tried beside something else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentflow import Answer, Budget, Engine, Question, events, first, llm, tool, workflow
from agentflow.budgets.ledger import NOTHING
from agentflow.clock import now
from agentflow.errors import (
    DeadlineExceeded,
    JournalError,
    RunCancelled,
    RunFailed,
    RunPaused,
)
from agentflow.executor.asking.answering import answer, unanswered
from agentflow.executor.journal.store import JournalStore
from agentflow.executor.run import Run

LIMITS = Budget(usd=1)


class Office:
    """A letter that has to be approved, and work that need not be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sent: list[str] = []
        self.told: list[events.Event] = []

        @tool(writes="mail", approve=True, usd="0.05")
        async def send(to: str) -> str:
            self.sent.append(to)
            return f"sent to {to}"

        @tool(reads="web", ttl=0)
        async def work(seconds: float, fails: bool = False) -> str:
            await asyncio.sleep(seconds)
            if fails:
                raise OSError("no work")
            return "worked"

        @workflow
        async def letter(to: str) -> str:
            return str(await send(to))

        @workflow
        async def race(seconds: float, fails: bool = False) -> str:
            return str(await first(letter("ada"), work(seconds, fails)))

        self.send, self.work, self.letter, self.race = send, work, letter, race

    def engine(self, **options: Any) -> Engine:
        options = {"journal": self.path, **options}
        return Engine(seed=1, subscribers=[self.told.append], **options)

    def asks(self, run: Run[Any]) -> list[str]:
        """What the journal lists of what a run asks."""
        return [ask["call"] for ask in self.listed(run)]

    def listed(self, run: Run[Any]) -> list[Any]:
        """The same, with everything that is known of it."""
        store = JournalStore(self.path)
        try:
            return list(unanswered(store, run.id))
        finally:
            store.close()

    def approve(self, run: Run[Any]) -> None:
        """Approve the only question, as the command line would."""
        store = JournalStore(self.path)
        try:
            answer(store, run.id, None, Answer("approve", by="shell"))
        finally:
            store.close()

    def of(self, kind: type[events.Event]) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path / "runs.db")


# Branches of a race


async def test_who_does_not_wait_decides_the_race_and_the_question_is_withdrawn(
    office: Office,
) -> None:
    async with office.engine() as engine:
        run = engine.start(office.race, 100.0)
        await asyncio.sleep(50.0)
        assert office.asks(run) == ['send(to="ada")']

        assert (await run, now()) == ("worked", 100.0)

        assert office.asks(run) == [] and office.sent == []
        with pytest.raises(JournalError, match="asks nothing"):
            office.approve(run)
        with pytest.raises(JournalError, match="asks nothing"):
            await engine.approve(run.id)
        assert run.ledger.spent.usd == 0 and run.ledger.reserved == NOTHING
    [asked], ended = office.of(events.QuestionAsked), office.of(events.NodeCancelled)
    assert not office.of(events.QuestionAnswered)
    assert (asked.run, asked.node) in [(event.run, event.node) for event in ended]
    assert isinstance(office.told[-1], events.RunFinished)


async def test_a_question_is_withdrawn_at_once_though_its_run_goes_on(office: Office) -> None:
    @workflow
    async def flow() -> list[str]:
        return [str(await office.race(10.0)), str(await office.work(50.0))]

    async with office.engine() as engine:
        run = engine.start(flow)
        for seconds, asks in ((5.0, ['send(to="ada")']), (6.0, [])):
            await asyncio.sleep(seconds)
            assert office.asks(run) == asks
        assert await run == ["worked", "worked"]


@pytest.mark.parametrize("yes", [True, False])
async def test_a_yes_in_time_makes_the_branch_win_and_a_no_leaves_it_to_the_others(
    office: Office, yes: bool
) -> None:
    async with office.engine() as engine:
        run = engine.start(office.race, 100.0)
        await asyncio.sleep(50.0)
        await (engine.approve(run.id) if yes else engine.deny(run.id))

        assert (await run, now()) == (("sent to ada", 50.0) if yes else ("worked", 100.0))
        assert office.sent == (["ada"] if yes else [])
        assert run.ledger.spent.usd == (Decimal("0.05") if yes else 0)


@pytest.mark.parametrize("turns", range(8))
async def test_a_yes_in_the_moment_in_which_the_race_is_decided_is_one_or_the_other(
    office: Office, turns: int
) -> None:
    """However they meet: the letter is sent if and only if it has won, and is paid then."""
    async with office.engine(
        journal=None, approve=lambda _question: asyncio.sleep(500.0)
    ) as engine:
        run, loop = engine.start(office.race, 100.0), asyncio.get_running_loop()

        def approve(turns: int) -> None:
            if turns:
                loop.call_soon(approve, turns - 1)
                return
            questions = run.inquiry.questions
            if questions.listed():
                questions.answer(None, Answer("approve"))

        loop.call_at(100.0, approve, turns)
        value = await run
        await run.ended()

    won = value == "sent to ada"
    assert office.sent == (["ada"] if won else [])
    assert run.ledger.spent.usd == (Decimal("0.05") if won else 0)


async def test_a_run_is_not_set_aside_while_another_branch_works(office: Office) -> None:
    """It is when only the question is left; the branch that failed is not tried again."""
    async with office.engine() as engine:
        run = engine.start(office.race, 100.0, fails=True)
        with pytest.raises(RunPaused):
            await run
        assert 100.0 < now() < 101.5
        assert office.asks(run) == ['send(to="ada")']

    office.approve(run)
    office.told.clear()
    async with office.engine() as engine:
        began = now()
        assert await engine.resume(run.id, office.race, args=(100.0, True)) == "sent to ada"
        assert now() - began < 1.0
    assert office.sent == ["ada"]


async def test_a_race_that_was_decided_asks_nothing_again_when_its_run_goes_on(
    office: Office,
) -> None:
    @workflow
    async def flow() -> list[str]:
        return [str(await office.race(10.0)), str(await office.letter("bob"))]

    async with office.engine() as engine:
        run = engine.start(flow)
        with pytest.raises(RunPaused):
            await run
        assert office.asks(run) == ['send(to="bob")']

    office.approve(run)
    office.told.clear()
    async with office.engine() as engine:
        assert await engine.resume(run.id, flow) == ["worked", "sent to bob"]
    assert office.sent == ["bob"]
    assert not office.of(events.QuestionAsked)


async def test_who_is_asked_is_left_alone_when_the_race_is_decided(office: Office) -> None:
    """A function that is asked is cancelled; what it would have said counts for nobody."""
    asked: list[str] = []

    async def ask(question: Question) -> bool:
        asked.append(question.call)
        try:
            await asyncio.sleep(1000.0)
        except asyncio.CancelledError:
            asked.append("cancelled")
            raise
        return True

    async with office.engine(approve=ask) as engine:
        run = engine.start(office.race, 100.0)
        assert await run == "worked"
        await run.ended()
        await asyncio.sleep(0)
        assert asked == ['send(to="ada")', "cancelled"]
    assert office.sent == [] and now() < 101.0


# Deadlines


async def test_the_time_of_a_race_counts_and_its_deadline_withdraws_the_question(
    office: Office,
) -> None:
    async with office.engine() as engine:
        run = engine.start(office.race.within(Budget(deadline=30.0)), 100.0)
        with pytest.raises(DeadlineExceeded):
            await run
        assert now() == 30.0
        await run.ended()
        assert office.asks(run) == [] and run.ledger.reserved == NOTHING
        with pytest.raises(JournalError, match="asks nothing"):
            await engine.approve(run.id)
    assert office.sent == []
    assert isinstance(office.told[-1], events.RunFailed)


async def test_the_time_in_which_only_the_question_is_left_does_not_count(office: Office) -> None:
    async def ask(_question: Question) -> bool:
        await asyncio.sleep(500.0)
        return True

    async with office.engine(approve=ask) as engine:
        run = engine.start(office.race.within(Budget(deadline=30.0)), 20.0, fails=True)
        assert await run == "sent to ada"
        assert now() == 500.0


# Samples


@pytest.fixture
async def world() -> AsyncIterator[Callable[..., Any]]:
    """Makes an engine with models that follow scripts, which leaves nothing behind."""
    from tests.engine.allocation.conftest import World, make_world

    made: list[World] = []

    def make(*args: Any, **options: Any) -> World:
        made.append(make_world(*args, **options))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


def asking(office: Office) -> Any:
    """A call that two samples try; an answer passes when the letter to whom it names is sent."""

    async def check(answer: str) -> bool:
        return bool(await office.letter(answer))

    @llm(model=["small"], samples=2, max_tokens=20, check=check)
    async def who() -> str:
        """Name somebody."""
        raise AssertionError

    @workflow(budget=LIMITS)
    async def flow() -> str:
        return await who()

    return flow


async def test_each_sample_asks_for_its_own_answer_and_the_first_yes_withdraws_the_rest(
    office: Office, world: Callable[..., Any]
) -> None:
    made = world({"small": [("ada", 1.0), ("bob", 2.0)]}, plays=[("small", 2)], journal=office.path)
    run = made.engine.start(asking(office))
    await asyncio.sleep(2.1)
    assert sorted(office.asks(run)) == ['send(to="ada")', 'send(to="bob")']
    listed = run.inquiry.questions.listed()
    await made.engine.approve(run.id, next(a["question"] for a in listed if "bob" in a["call"]))

    assert await run == "bob"
    await run.ended()
    assert office.sent == ["bob"] and office.asks(run) == []
    assert made.outcomes() == [("small", "passed"), ("small", "cancelled")]
    assert [event.verdict for event in made.told(events.QuestionAnswered)] == ["approve"]
    # Two replies of $0.011, and one letter.
    assert run.ledger.spent.usd == Decimal("0.072") and run.ledger.reserved == NOTHING


async def test_a_model_call_that_asks_is_asked_about_once_whatever_samples_it_has(
    office: Office, world: Callable[..., Any]
) -> None:
    asked: list[str] = []

    def yes(question: Question) -> bool:
        asked.append(question.call)
        return True

    @llm(model=["small"], samples=2, max_tokens=20, approve=True)
    async def who() -> str:
        """Name somebody."""
        raise AssertionError

    @workflow(budget=LIMITS)
    async def flow() -> str:
        return await who()

    made = world({"small": [("ada", 1.0), ("bob", 2.0)]}, plays=[("small", 2)], approve=yes)
    assert await made.engine.run(flow) == "ada"
    assert asked == ["who()"]
    assert len(made.models["small"].requests) == 2


async def test_a_sample_that_was_denied_fails_the_call_as_a_check_that_raises_does(
    office: Office, world: Callable[..., Any]
) -> None:
    made = world(
        {"small": [("ada", 1.0), ("bob", 9.0)]}, plays=[("small", 2)], approve=lambda _q: False
    )
    with pytest.raises(RunFailed) as failed:
        await made.engine.run(asking(office))

    error = failed.value.__cause__
    assert error is not None and "approval was denied" in str(error)
    assert office.sent == []


async def test_a_run_rests_when_all_samples_wait_for_answers_and_asks_anew_when_it_goes_on(
    office: Office, world: Callable[..., Any]
) -> None:
    """Samples are not kept: they are tried again, and a yes counts for the answer it was given."""
    script = [("ada", 1.0), ("bob", 2.0), ("eve", 1.0), ("bob", 2.0)]
    made = world({"small": script[:2]}, plays=[("small", 2)], journal=office.path)
    flow = asking(office)
    run = made.engine.start(flow)
    with pytest.raises(RunPaused):
        await run
    await run.ended()
    assert sorted(office.asks(run)) == ['send(to="ada")', 'send(to="bob")']
    bob = next(ask["question"] for ask in office.listed(run) if "bob" in ask["call"])
    await made.engine.approve(run.id, bob)
    await made.aclose()

    again = world({"small": script[2:]}, plays=[("small", 2)], journal=office.path)
    going = await again.engine.reopen(run.id, flow)
    assert await going == "bob"

    assert office.sent == ["bob"]
    assert [event.call for event in again.told(events.QuestionAsked)] == ['send(to="eve")']
    assert going.ledger.spent.usd == 4 * Decimal("0.011") + Decimal("0.05")


async def test_a_sample_that_is_cancelled_with_its_run_withdraws_its_question(
    office: Office, world: Callable[..., Any]
) -> None:
    made = world(
        {"small": [("ada", 1.0), ("bob", 20.0)]}, plays=[("small", 2)], journal=office.path
    )
    run = made.engine.start(asking(office))
    await asyncio.sleep(10.0)
    assert not run.done, "the other sample is still being written"
    run.cancel()
    with pytest.raises(RunCancelled):
        await run
    await run.ended()

    assert office.asks(run) == [] and office.sent == []
    assert run.ledger.reserved == NOTHING
