"""A call that begins while it is written, and a cache that has its value, or is about to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentflow import Commit, Engine, Late, Stream, Task, Warm, events, tool, workflow
from agentflow.clock import now
from agentflow.errors import RunFailed
from agentflow.executor.run import Run

WORK = 4.0
"""Seconds that the tool works."""

TASK = Task("Which?", strategy="react")

KNOWN = "the value was there already"


class Shop:
    """A tool that begins while its last argument is written, and a workflow that calls it whole.

    It is written from 0 to 1 (`key`) and from 1 to 2 (`hint`), begins at 1 and works for 4 seconds.
    """

    def __init__(self, writing: Any, pen: Any) -> None:
        self.writing = writing
        self.begun: list[float] = []
        self.ended: list[tuple[str, float]] = []
        self.fails: set[int] = set()
        self._turn = pen.written("look", '{"key": "a", "hint": "', 'b"}')

        @tool(reads="web", ttl="1h", usd="0.05", version="1")
        async def look(key: str, hint: Late[str]) -> str:
            number = len(self.begun)
            self.begun.append(now())
            how = "cut off"
            try:
                await asyncio.sleep(WORK)
                if number in self.fails:
                    raise OSError(f"attempt {number}")
                said = await hint
                how = "done"
            finally:
                self.ended.append((how, now()))
            return f"{key}{said} of {number}"

        @workflow
        async def whole() -> str:
            return str(await look("a", "b"))

        self.look, self.whole = look, whole

    def start(self, *turns: Any, **options: Any) -> Engine:
        replies = [reply for turn in turns or (self._turn,) for reply in (turn, "Done.")]
        engine: Engine = self.writing.start(*replies, tools=[self.look], **options)
        return engine

    @property
    def turn(self) -> Any:
        """The reply in which the call is written."""
        return list(self._turn)

    def why(self) -> list[str]:
        return [event.why for event in self.writing.told(events.PartialRetracted)]

    def sources(self) -> list[str]:
        return [event.source for event in self.writing.told(events.NodeReused)]


@pytest.fixture
def shop(writing: Any, pen: Any) -> Shop:
    return Shop(writing, pen)


def spent(*runs: Run[Any]) -> list[str]:
    """What runs have spent, in cents; nothing of theirs is set aside any more."""
    assert all(run.ledger.reserved.usd == 0 for run in runs)
    return [f"{run.ledger.spent.usd:.2f}" for run in runs]


# The value is there


@pytest.mark.parametrize("journal", [True, False])
@pytest.mark.parametrize("tier", ["memory", "disk"])
async def test_a_value_that_is_kept_wins_and_what_was_begun_is_ended_counted_and_paid(
    shop: Shop, tmp_path: Path, tier: str, journal: bool
) -> None:
    options: dict[str, Any] = {"journal": tmp_path / "runs.db"} if journal else {}
    if tier == "disk":
        options["cache"] = tmp_path / "cache"
        async with Engine(cache=options["cache"]) as other:
            first = other.start(shop.whole)
            assert await first == "ab of 0"
    engine = shop.start(**options)
    if tier == "memory":
        first = engine.start(shop.whole)
        await first
    began = now()

    run = engine.start(TASK)
    assert await run == "Done."
    await run.ended()

    assert shop.writing.results() == ["ab of 0"]
    assert shop.begun == pytest.approx([began - WORK, began + 1], abs=0.5)
    assert shop.ended[-1][0] == "cut off"
    assert shop.sources() == [tier]
    assert shop.why() == [KNOWN]
    assert spent(first, run) == ["0.05", "0.05"]  # the tool was called, though in vain
    assert (run.partial.started, run.partial.committed, run.partial.retracted) == (1, 0, 1)


async def test_the_cleaning_up_of_its_warm_up_is_waited_for_by_the_run_and_not_by_its_value(
    writing: Any, pen: Any
) -> None:
    @tool(reads="web", ttl="1h")
    async def look(key: str, *, link: Warm[int] = 0) -> str:
        return f"{key}{link}"

    @look.warm
    async def connect() -> AsyncIterator[int]:
        try:
            yield 7
        finally:
            await asyncio.sleep(1.5)
            writing.note("left")

    @workflow
    async def whole() -> str:
        return await look("a")

    turn = pen.written("look", '{"key": "a', '"}')
    engine = writing.start(turn, "Done.", tools=[look])
    await engine.run(whole)
    writing.log.clear()
    began = now()
    run = engine.start(TASK)
    await run.ended()

    assert writing.results() == ["a7"]
    told = writing.told(events.NodeFinished)[-1]
    assert (told.run, told.at) == (run.id, began + 2.0)
    assert writing.log == [("left", began + 3.5)]
    assert [event.why for event in writing.told(events.PartialRetracted)] == [KNOWN]
    assert isinstance(writing.events[-1], events.RunFinished)


async def test_a_part_that_is_never_adopted_leaves_nothing_in_the_cache(
    shop: Shop, pen: Any
) -> None:
    rejected = [*shop.turn[:-1], pen.call(0, "", wait=5.0), pen.call(0, 'b", "no": 1}')]
    engine = shop.start(rejected)
    await engine.run(TASK)
    assert [how for how, _ in shop.ended] == ["cut off"]

    again = engine.start(shop.whole)
    assert await again == "ab of 1"
    assert shop.sources() == []
    assert spent(again) == ["0.05"]


# The value of a part


async def test_the_value_of_a_part_is_kept_with_all_the_seconds_it_took(shop: Shop) -> None:
    engine = shop.start()
    run = engine.start(TASK)
    await run
    later = engine.start(shop.whole)

    assert await later == "ab of 0"
    assert shop.begun == [1.0]
    [hit] = shop.writing.told(events.NodeReused)
    assert (hit.source, hit.saved) == ("memory", WORK)
    assert spent(run, later) == ["0.05", "0.00"]


async def test_who_joins_the_call_of_a_part_is_told_all_that_was_over(shop: Shop) -> None:
    engine = shop.start()
    run = engine.start(TASK)
    await asyncio.sleep(3.0)
    other = engine.start(shop.whole)

    assert await other == "ab of 0"
    await run
    [hit] = shop.writing.told(events.NodeReused)
    assert (hit.source, hit.saved) == ("shared", 2.0)  # from 1 to 3
    assert spent(run, other) == ["0.05", "0.00"]


@pytest.mark.parametrize("written", [1.5, 2.5, 4.5])
async def test_a_write_before_its_end_keeps_the_value_of_a_part_from_being_used_again(
    shop: Shop, written: float
) -> None:
    engine = shop.start()
    run = engine.start(TASK)
    await asyncio.sleep(written)
    await engine.changed("web")
    await run
    told = len(shop.begun)

    await engine.run(shop.whole)
    assert told == (
        2 if written < 2.0 else 1
    )  # before the call there is still time to make it anew
    assert len(shop.begun) == told + (written > 2.0)


# An equal call is under way


async def test_a_call_under_way_wins_as_it_would_over_any_other_call(shop: Shop) -> None:
    engine = shop.start()
    whole = engine.start(shop.whole)
    await asyncio.sleep(0.0)
    run = engine.start(TASK)

    assert [await whole, await run] == ["ab of 0", "Done."]
    assert shop.writing.results() == ["ab of 0"]
    assert (shop.begun, shop.ended) == ([0.0, 1.0], [("done", WORK), ("cut off", WORK)])
    assert (shop.sources(), shop.why()) == (["shared"], [KNOWN])
    assert spent(whole, run) == ["0.05", "0.05"]


async def begin_beside(shop: Shop, at: float) -> tuple[Run[Any], Run[Any]]:
    """The run of a task, and one that makes the call whole at this time, before the other does."""
    engine = shop.start()
    run = engine.start(TASK)
    await asyncio.sleep(at)
    return run, engine.start(shop.whole)


async def test_what_waits_for_a_call_goes_on_from_its_part_if_that_call_is_given_up(
    shop: Shop,
) -> None:
    shop.fails = set()
    run, whole = await begin_beside(shop, 1.5)
    await asyncio.sleep(1.0)  # by now the task waits for it, too
    whole.cancel()
    await run

    # Who is left keeps the call going, and pays for it; the part that was begun is paid as well.
    assert shop.begun == [1.0, 1.5]
    assert shop.writing.results() == ["ab of 1"]
    assert spent(run, whole) == ["0.10", "0.00"]


async def test_the_call_is_made_by_its_part_if_the_other_runs_out_of_its_own_means(
    writing: Any, pen: Any
) -> None:
    """Errors of a caller's own are not shared: whoever else waits calls again."""

    @workflow
    async def inner() -> str:
        await asyncio.sleep(WORK)
        raise OSError

    calls: list[float] = []

    @tool(reads="web", ttl="1h", usd="0.05")
    async def look(key: str, hint: Late[str]) -> str:
        calls.append(now())
        if len(calls) == 2:
            await inner()  # its failure is a RunError, and the caller's own
        await asyncio.sleep(2 * WORK)
        return f"{key} {await hint}"

    @workflow
    async def whole() -> str:
        return await look("a", "b")

    engine = writing.start(
        pen.written("look", '{"key": "a", "hint": "', 'b"}'), "Done.", tools=[look]
    )
    run = engine.start(TASK)
    await asyncio.sleep(1.5)
    other = engine.start(whole)
    with pytest.raises(RunFailed):
        await other
    await run

    assert calls == [1.0, 1.5]
    assert writing.results() == ["a b"]
    assert writing.told(events.PartialCommitted)[0].hidden == 4.5  # from 1 to 5.5
    assert spent(run, other) == ["0.05", "0.05"]


async def test_a_failure_of_the_call_under_way_is_shared_as_without_a_part(shop: Shop) -> None:
    shop.fails = {1}
    run, whole = await begin_beside(shop, 1.5)
    with pytest.raises(RunFailed, match="attempt 1"):
        await whole
    await run

    assert "attempt 1" in shop.writing.results()[0]
    assert shop.why() == ["its call was not made"]
    assert spent(run, whole) == ["0.05", "0.05"]


async def test_of_those_who_share_the_call_of_a_part_the_first_who_is_left_pays(
    shop: Shop,
) -> None:
    engine = shop.start()
    run = engine.start(TASK)
    await asyncio.sleep(3.0)
    other = engine.start(shop.whole)
    await asyncio.sleep(1.0)
    run.cancel()

    assert await other == "ab of 0"
    assert shop.begun == [1.0]
    assert spent(run, other) == ["0.00", "0.05"]
    assert isinstance(shop.writing.events[-1], events.RunFinished)


# Writes


async def test_what_was_read_stays_good_until_a_write_that_has_begun_commits(
    writing: Any, pen: Any
) -> None:
    reads: list[float] = []

    @tool(reads="files", ttl="1h")
    async def read() -> int:
        reads.append(now())
        return len(reads)

    @tool(writes="files")
    async def save(key: str, text: Stream[str], *, commit: Commit) -> str:
        writing.note("begun")
        await text.whole()
        await commit()
        writing.note("committed")
        return key

    @workflow
    async def look() -> int:
        return await read()

    turn = pen.written("save", '{"key": "a", "text": "', "b", 'c"}', wait=2.0)
    engine = writing.start(turn, "Done.", tools=[read, save])
    await engine.run(look)
    run = engine.start(TASK)
    await asyncio.sleep(5.0)
    assert writing.notes == ["begun"]
    assert await engine.run(look) == 1
    await run

    assert writing.notes == ["begun", "committed"]
    assert await engine.run(look) == 2
