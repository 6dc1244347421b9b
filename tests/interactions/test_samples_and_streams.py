"""What is tried beside something else, and is cancelled while a tool of it streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentflow import Budget, Commit, Engine, Stream, Task, events, first, llm, tool, workflow
from agentflow.budgets.ledger import NOTHING
from agentflow.clock import now
from agentflow.errors import RunCancelled, RunError
from agentflow.executor.run import Run

LIMITS = Budget(usd=1)


class Feed:
    """A tool of five cents that yields a page a second, and what became of each of its calls."""

    def __init__(self, **options: Any) -> None:
        self.open: set[str] = set()
        self.closed: list[tuple[str, float]] = []

        @tool(reads="web", ttl=0, **options)
        async def pages(name: str, count: int) -> AsyncIterator[str]:
            self.open.add(name)
            try:
                for number in range(count):
                    await asyncio.sleep(1.0)
                    yield f"{name}{number}"
            finally:
                await asyncio.sleep(0.25)  # closing a connection takes a moment
                self.open.remove(name)
                self.closed.append((name, now()))

        @workflow
        async def reading(name: str, count: int) -> list[str]:
            return await pages(name, count)

        self.pages, self.reading = pages, reading


def check_ends(told: list[events.Event]) -> None:
    """Nothing is told of a call after its end, nor of a run and those within it after its own."""
    runs: set[str] = set()
    within: dict[str, set[str]] = {}
    calls: set[tuple[str, int]] = set()
    ends = (events.NodeFinished, events.NodeFailed, events.NodeCancelled, events.NodeSkipped)
    for event in told:
        assert event.run not in runs, event
        if isinstance(event, events.NodeEmitted):
            assert (event.run, event.node) not in calls, event
        if isinstance(event, ends):
            assert (event.run, event.node) not in calls, event
            calls.add((event.run, event.node))
        if isinstance(event, events.RunStarted) and event.parent is not None:
            within.setdefault(event.parent, set()).add(event.run)
        if isinstance(event, events.TERMINAL):
            assert within.get(event.run, set()) <= runs, event
            runs.add(event.run)


def emitted(told: list[events.Event]) -> list[Any]:
    return [event.data for event in told if isinstance(event, events.NodeEmitted)]


# Samples, whose answers are checked with a tool that streams


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


def asking(feed: Feed) -> Any:
    """A call that two samples try: an answer passes that has as many pages as it says."""

    async def check(answer: str) -> bool:
        name, count = answer.split()
        return len(await feed.reading(name, int(count))) > 0

    @llm(model=["small"], samples=2, max_tokens=20, check=check)
    async def ask() -> str:
        """Name one."""
        raise AssertionError

    @workflow(budget=LIMITS)
    async def flow() -> str:
        return await ask()

    return flow


async def test_the_first_that_passes_closes_what_the_others_read_and_gives_their_money_back(
    world: Callable[..., Any],
) -> None:
    feed = Feed(usd="0.05")
    made = world({"small": [("slow 9", 1.0), ("quick 2", 2.0)]}, plays=[("small", 2)])
    run = made.engine.start(asking(feed))

    # The run is over when what it has cancelled has ended.
    assert (await run, now()) == ("quick 2", 4.5)

    assert feed.closed == [("quick", 4.25), ("slow", 4.5)] and not feed.open
    assert emitted(made.events)[-1] in ("quick1", "slow2")
    check_ends(made.events)
    assert made.outcomes() == [("small", "passed"), ("small", "cancelled")]
    # Two replies of $0.011 that were whole, and two calls of the tool that were begun.
    assert run.ledger.spent.usd == 2 * Decimal("0.011") + 2 * Decimal("0.05")
    assert run.ledger.reserved == NOTHING
    [nested] = [e for e in made.events if isinstance(e, events.RunCancelled)]
    assert nested.at <= 4.5


async def test_what_a_cancelled_sample_has_cost_is_told_and_counted_alike(
    world: Callable[..., Any],
) -> None:
    """One is cancelled while its tool streams, another while its model does."""
    feed = Feed()
    made = world(
        {"small": [("slow 9", 1.0), ("quick 1", 2.0), ("later 1", 9.0, 10)]}, plays=[("small", 3)]
    )
    run = made.engine.start(asking(feed))
    await run
    await run.ended()

    told = sum((Decimal(e.usd) for e in made.told(events.SampleEnded)), Decimal(0))
    assert told == run.ledger.spent.usd
    check_ends(made.events)


@pytest.mark.parametrize("ends", ["by being cancelled", "by its deadline"])
async def test_a_run_that_ends_closes_what_its_samples_read(
    world: Callable[..., Any], ends: str
) -> None:
    feed = Feed(usd="0.05")
    made = world({"small": [("a 9", 1.0), ("b 9", 1.5)]}, plays=[("small", 2)])
    flow = asking(feed)
    if ends == "by its deadline":
        flow = flow.within(Budget(usd=1, deadline=4.0))
    run = made.engine.start(flow)
    await asyncio.sleep(4.0)
    run.cancel()
    with pytest.raises(RunError):
        await run
    await run.ended()

    assert sorted(feed.closed) == [("a", 4.25), ("b", 4.25)] and not feed.open
    assert run.ledger.reserved == NOTHING
    assert run.ledger.spent.usd == 2 * Decimal("0.011") + 2 * Decimal("0.05")
    check_ends(made.events)
    assert {e.outcome for e in made.told(events.SampleEnded)} == {"cancelled"}


# Branches of a race


class Race:
    """Branches that read, of which the first ends the others."""

    def __init__(self, feed: Feed, *branches: tuple[str, int]) -> None:
        @workflow(budget=LIMITS)
        async def race() -> Any:
            return await first(*(feed.reading(*branch) for branch in branches))

        self.flow = race


@pytest.mark.parametrize("journal", [True, False])
async def test_the_first_branch_closes_what_the_others_read(tmp_path: Path, journal: bool) -> None:
    feed, told = Feed(usd="0.05"), list[events.Event]()
    options: Any = {"journal": tmp_path / "runs.db"} if journal else {}
    async with Engine(subscribers=[told.append], **options) as engine:
        run = engine.start(Race(feed, ("slow", 9), ("quick", 2)).flow)
        assert await run == ["quick0", "quick1"]
        await run.ended()

        assert feed.closed == [("quick", 2.25), ("slow", 2.5)]
        assert run.ledger.spent.usd == engine.ledger.spent.usd == Decimal("0.10")
        assert engine.ledger.reserved == NOTHING
    assert sorted(emitted(told)) == ["quick0", "quick1", "slow0", "slow1"]
    check_ends(told)


async def test_a_branch_that_ignores_its_cancellation_holds_nobody_up_for_longer_than_the_grace() -> (
    None
):
    told = list[events.Event]()

    @tool(reads="web", ttl=0)
    async def stubborn() -> AsyncIterator[int]:
        for number in range(20):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.4)
            yield number

    @tool
    async def quick(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return f"after {now():g}"

    @workflow
    async def race() -> Any:
        return [await first(stubborn(), quick(1.0)), await quick(5.0)]

    async with Engine(subscribers=[told.append]) as engine:
        run = engine.start(race)
        assert await run == ["after 1", "after 6"]
        assert run.unfinished == ["stubborn"]
        assert "stubborn" in (await engine.aclose())[0]
    # It had two seconds to end; what it yields after that belongs to no call.
    assert max(event.at for event in told if isinstance(event, events.NodeEmitted)) <= 3.0
    check_ends(told)


# A model that writes the argument


async def branches(writing: Any, pen: Any, seconds: float, **options: Any) -> Run[Any]:
    """A task whose tool reads its argument while it is written, which is cancelled after a while."""

    @tool(writes="files/{name}", **options)
    async def save(name: str, text: Stream[str], *, commit: Commit) -> str:
        writing.note("begun")
        saved = False
        try:
            async for piece in text:
                writing.note(f"wrote {piece}")
            await commit()
            saved = True
            writing.note("saved")
        finally:
            if not saved:
                await asyncio.sleep(0.25)
                writing.note("undone")
        return name

    turn = pen.written("save", '{"name": "a", "text": "', "b", "c", "d", '"}')
    engine = writing.start(turn, "Done.", tools=[save])
    run: Run[Any] = engine.start(Task("Which?", strategy="react"))
    await asyncio.sleep(seconds)
    run.cancel()
    with pytest.raises(RunCancelled):
        await run
    await run.ended()
    return run


async def test_what_has_not_committed_is_undone_and_paid_when_its_branch_loses(
    writing: Any, pen: Any
) -> None:
    run = await branches(writing, pen, 3.5, usd="0.05")

    assert writing.notes == ["begun", "wrote b", "wrote c", "undone"]
    assert writing.at("undone") == now() == 3.75
    assert run.ledger.spent.usd == Decimal("0.05") and run.ledger.reserved == NOTHING
    kinds = [type(event) for event in writing.events]
    assert kinds[-1] is events.RunCancelled
    assert kinds.count(events.PartialRetracted) == 1
    assert events.NodeStarted not in kinds


async def test_the_reply_that_is_being_written_is_left_and_settled(writing: Any, pen: Any) -> None:
    run = await branches(writing, pen, 3.5)

    assert writing.author.closed == [3.5]
    [reply] = writing.told(events.ModelReplied)
    assert reply.estimated and reply.at <= 3.75
    assert run.ledger.spent.tokens == reply.prompt_tokens + reply.completion_tokens
