"""A journal gathers what runs say, commits it in groups, and tells who waits."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agentflow.clock import now
from agentflow.errors import DefinitionError, JournalError
from agentflow.executor.journal import journal as module
from agentflow.executor.journal import schema
from agentflow.executor.journal.journal import GATHER, GROUP, Journal, default_path
from agentflow.executor.journal.retention import PORTION
from agentflow.executor.journal.rows import LARGEST, LARGEST_RECORD
from agentflow.executor.journal.store import digest_of


@pytest.fixture
async def journal(path: Path) -> AsyncIterator[Journal]:
    """A journal with a run ``a``, of which nothing is pending."""
    async with aclosing(Journal(path)) as journal:
        begin(journal, "a")
        await journal.durable()
        yield journal


def begin(journal: Journal, run: str, **columns: object) -> None:
    journal.update(run, name="brief", kind="task", target={}, began=1.0, **columns)


def say(journal: Journal, *numbers: int, run: str = "a") -> None:
    for n in numbers:
        journal.append(run, json.dumps({"n": n}))


async def kept(journal: Journal, run: str = "a") -> list[object]:
    """What is on disk."""
    return await journal.ask(lambda: [record["n"] for record in journal.store.records(run)])


async def commits(journal: Journal) -> int:
    """How many commits have brought records."""

    def count() -> int:
        with journal.store._file.read() as db:
            return int(db.execute("SELECT count(*) FROM records").fetchone()[0])

    return await journal.ask(count)


async def test_nothing_is_opened_before_it_is_used(path: Path) -> None:
    threads = threading.active_count()
    journal = Journal(path)

    await journal.durable()
    await journal.aclose()

    assert not path.parent.exists()
    assert threading.active_count() == threads


@pytest.mark.virtual
async def test_records_that_nobody_waits_for_are_gathered(journal: Journal) -> None:
    began = now()
    for n in range(5):
        say(journal, n)
        await asyncio.sleep(GATHER / 6)
    assert await kept(journal) == []

    await asyncio.sleep(began + GATHER * 1.01 - now())

    assert await kept(journal) == [0, 1, 2, 3, 4]
    assert await commits(journal) == 1


@pytest.mark.virtual
async def test_many_records_are_not_gathered_any_longer(journal: Journal) -> None:
    began = now()
    say(journal, *range(GROUP))
    await asyncio.sleep(0)

    assert await kept(journal) == list(range(GROUP))
    assert now() == began


@pytest.mark.virtual
async def test_who_waits_need_not_wait_for_others(journal: Journal) -> None:
    began = now()
    say(journal, 1)
    await journal.durable()

    assert now() == began
    assert await kept(journal) == [1]


async def test_all_who_wait_in_one_turn_share_a_commit(journal: Journal) -> None:
    async def one(n: int) -> None:
        say(journal, n)
        await journal.durable()

    await asyncio.gather(*map(one, range(20)))

    assert await kept(journal) == list(range(20))
    assert await commits(journal) == 1


async def test_what_is_said_during_a_commit_makes_the_next_one(journal: Journal) -> None:
    say(journal, 1)
    first = journal.durable()
    await asyncio.sleep(0)  # the commit is under way
    waits = []
    for n in (2, 3, 4):
        say(journal, n)
        waits.append(journal.durable())
    await first
    assert not any(wait.done() for wait in waits)
    await asyncio.gather(*waits)

    assert await kept(journal) == [1, 2, 3, 4]
    assert await commits(journal) == 2


async def test_who_says_nothing_waits_for_the_commit_under_way(journal: Journal) -> None:
    assert journal.durable().done()

    say(journal, 1)
    first = journal.durable()
    await asyncio.sleep(0)
    second = journal.durable()
    assert not second.done()
    await second

    assert first.done()
    assert await commits(journal) == 1


async def test_a_waiter_that_is_cancelled_concerns_nobody_else(journal: Journal) -> None:
    async def wait() -> None:
        await journal.durable()

    say(journal, 1)
    before = [asyncio.ensure_future(wait()) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the commit is under way
    assert journal._writing is not None
    say(journal, 2)
    after = [asyncio.ensure_future(wait()) for _ in range(2)]
    await asyncio.sleep(0)
    before[0].cancel()
    after[0].cancel()

    told = await asyncio.gather(*before, *after, return_exceptions=True)

    assert [type(one) for one in told] == [asyncio.CancelledError, type(None)] * 2
    assert await kept(journal) == [1, 2]


async def test_a_commit_that_nobody_waited_for_cannot_be_cancelled(journal: Journal) -> None:
    say(journal, *range(GROUP))
    await asyncio.sleep(0)  # the commit is under way
    assert not journal.durable().cancel()
    await journal.durable()

    assert await kept(journal) == list(range(GROUP))


async def test_columns_and_large_values_go_with_the_records(journal: Journal) -> None:
    data = b"[1]" * 5000
    say(journal, 1)
    journal.update("a", tokens=1)
    journal.update("a", tokens=2, asks=[{"question": "q"}])
    digests = [journal.keep_blob("a", data) for _ in range(2)]
    await journal.durable()

    row = await journal.ask(journal.store.run, "a")
    assert (row.tokens, row.asks) == (2, ({"question": "q"},))
    assert digests == [digest_of(data)] * 2
    assert await journal.ask(journal.store.blob, digests[0]) == data
    assert await commits(journal) == 1


async def test_columns_alone_are_written_in_time(journal: Journal) -> None:
    journal.update("a", note="done")
    await journal.durable()

    assert (await journal.ask(journal.store.run, "a")).note == "done"


async def test_what_is_too_large_is_refused_where_it_is_said(journal: Journal) -> None:
    with pytest.raises(JournalError, match="a record has 16777217 characters, too many") as caught:
        journal.append("a", "x" * (LARGEST_RECORD + 1))
    with pytest.raises(JournalError, match="a value has 134217729 bytes, too many to keep"):
        journal.keep_blob("a", bytes(LARGEST // 2 + 1))
    with pytest.raises(DefinitionError, match="no column 'colour'"):
        journal.update("a", colour="red")

    assert caught.value.run == "a"
    say(journal, 1)
    await journal.durable()
    assert await kept(journal) == [1]


async def test_closing_commits_and_the_next_word_opens_again(journal: Journal) -> None:
    say(journal, 1)
    journal.keep_blob("a", b"1")
    await journal.aclose()
    await journal.aclose()
    assert {file.name for file in journal.store.path.parent.iterdir()} == {
        "journal.db",
        "journal.db.owners",
    }

    say(journal, 2)
    await journal.durable()

    assert await kept(journal) == [1, 2]


async def test_what_is_said_while_a_journal_closes_is_kept(journal: Journal) -> None:
    say(journal, 1)
    closing_ = asyncio.ensure_future(journal.aclose())
    while journal._writing is None:
        await asyncio.sleep(0)
    say(journal, 2)  # the last commit is under way
    await closing_

    assert await kept(journal) == [1, 2]


async def test_a_failed_commit_is_told_to_all_and_made_up_for(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_text("not a database" * 100)
    journal = Journal(path)
    begin(journal, "a")
    with capture_logs() as logged:
        say(journal, 1)
        first = [journal.durable(), journal.durable()]
        await asyncio.sleep(0)
        say(journal, 2)
        later = journal.durable()
        for told in await asyncio.gather(*first, later, return_exceptions=True):
            assert isinstance(told, JournalError)
            assert "it is no journal: move it aside" in str(told)
    assert [entry["event"] for entry in logged] == ["the journal is not written"]

    path.unlink()
    say(journal, 3)
    await journal.durable()

    assert await kept(journal) == [1, 2, 3]
    assert await commits(journal) == 1
    await journal.aclose()


@pytest.mark.virtual
async def test_a_failed_commit_is_repeated_by_itself(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.touch()
    journal = Journal(path)
    begin(journal, "a")
    say(journal, *range(GROUP))
    began = now()
    with capture_logs() as logged:
        while not logged:
            await asyncio.sleep(GATHER)
        path.unlink()
        say(journal, GROUP)
        await asyncio.sleep(module.RETRY + 0.1)

    assert await kept(journal) == list(range(GROUP + 1))
    assert now() - began < 2 * module.RETRY
    await journal.aclose()


async def test_a_journal_that_fails_when_closed_says_so(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.touch()
    journal = Journal(path)
    begin(journal, "a")

    with pytest.raises(JournalError, match="is empty, so it is no journal"):
        await journal.aclose()

    path.unlink()
    begin(journal, "b")
    await journal.aclose()
    assert [row.id for row in await journal.ask(journal.store.runs)] == ["b"]
    await journal.aclose()


async def test_a_lock_that_another_process_holds_is_waited_for(journal: Journal) -> None:
    with closing(sqlite3.connect(journal.store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        say(journal, 1)
        waits = journal.durable()
        for _ in range(100):
            await asyncio.sleep(0)
        assert not waits.done()
        other.execute("ROLLBACK")
    await waits

    assert await kept(journal) == [1]


async def test_a_lock_that_is_never_released_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "PATIENCE", 0.02)
    journal = Journal(path)
    begin(journal, "a")
    await journal.durable()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        say(journal, 1)
        with pytest.raises(JournalError, match="another process has kept it locked"):
            await journal.durable()

    await journal.aclose()
    assert await kept(journal) == [1]
    await journal.aclose()


@pytest.mark.parametrize(
    ("run", "columns", "says"),
    [
        ("unknown", {}, "run unknown is not in the journal, or no more"),
        ("half \ud83d", {}, "cannot be kept: 'utf-8' codec"),
        ("a", {"tokens": 1 << 70}, "run 'a' cannot be kept: Python int too large"),
    ],
)
async def test_a_run_that_cannot_be_written_does_not_hold_up_others(
    journal: Journal, run: str, columns: dict[str, object], says: str
) -> None:
    begin(journal, "b")
    journal.update(run, **columns)
    say(journal, 1, run=run)
    say(journal, 1, run="b")
    journal.keep_blob(run, b"1")
    digest = journal.keep_blob("b", b"2")
    with pytest.raises(JournalError, match=says) as caught:
        await journal.durable()
    assert caught.value.run == run

    say(journal, 2, run="b")
    await journal.durable()

    assert await kept(journal, "b") == [1, 2]
    assert await journal.ask(journal.store.blob, digest) == b"2"
    with pytest.raises(JournalError, match="is missing"):
        await journal.ask(journal.store.blob, digest_of(b"1"))


async def test_what_was_given_up_is_never_said_to_be_kept(journal: Journal) -> None:
    say(journal, 1, run="unknown")
    waits = [journal.durable()]
    await asyncio.sleep(0)  # the commit is under way
    say(journal, 2, run="unknown")
    waits.append(journal.durable())

    for told in await asyncio.gather(*waits, return_exceptions=True):
        assert isinstance(told, JournalError)


async def test_when_too_much_waits_nothing_more_is_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_BYTES", 100)
    path.parent.mkdir(mode=0o700)
    path.touch()
    journal = Journal(path)
    begin(journal, "a")
    say(journal, 1)
    with pytest.raises(JournalError):
        await journal.durable()
    say(journal, *range(2, 30))
    with pytest.raises(JournalError):
        await journal.durable()

    path.unlink()  # too late: what follows would leave a hole
    begin(journal, "b")
    say(journal, 30)
    journal.keep_blob("a", b"1")
    for _ in range(2):
        with pytest.raises(JournalError, match="is empty"):
            await journal.durable()
    assert not journal._batch
    with pytest.raises(JournalError, match="is empty"):
        await journal.aclose()

    begin(journal, "c")
    await journal.durable()  # a new beginning
    assert [row.id for row in await journal.ask(journal.store.runs)] == ["c"]
    await journal.aclose()


@pytest.mark.parametrize("turns", [0, 1])
def test_a_journal_goes_on_in_the_next_loop(path: Path, turns: int) -> None:
    journal = Journal(path)

    async def unfinished() -> None:
        begin(journal, "a")
        say(journal, 1)
        journal.durable()
        for _ in range(turns):
            await asyncio.sleep(0)
        assert (journal._writing is not None) == (turns > 0)

    async def goes_on() -> list[object]:
        say(journal, 2)
        await journal.durable()
        found = await kept(journal)
        await journal.aclose()
        return found

    asyncio.run(unfinished())

    assert asyncio.run(goes_on()) == [1, 2]


async def test_runs_that_are_too_old_go_when_a_journal_is_used(path: Path) -> None:
    journal = Journal(path, keep="1h")
    begin(journal, "old", state="finished", updated=1.0)
    begin(journal, "new", state="finished")
    begin(journal, "open", state="paused", updated=1.0)
    await journal.durable()

    assert [row.id for row in await journal.ask(journal.store.runs)] == ["open", "new"]

    begin(journal, "older", state="finished", updated=0.5)
    await journal.durable()
    assert len(await journal.ask(journal.store.runs)) == 3  # not at every commit
    journal._prune_at = 0.0
    journal.update("open", note="go on")
    await journal.durable()
    assert len(await journal.ask(journal.store.runs)) == 2
    await journal.aclose()


async def test_many_runs_go_in_portions_between_which_others_are_served(path: Path) -> None:
    journal = Journal(path, keep=0)
    for n in range(2 * PORTION + 5):
        begin(journal, f"run {n}", state="finished", updated=1.0)
    left: list[int] = []
    all_gone = threading.Event()

    def look() -> None:
        """See what is left, and stand in line again."""
        left.append(len(journal.store.runs()))
        if left[-1]:
            journal._thread().submit(look)
        else:
            all_gone.set()

    gate = threading.Event()
    asked: list[asyncio.Future[object]] = [asyncio.ensure_future(journal.ask(gate.wait))]
    await asyncio.sleep(0)
    committed = journal.durable()
    await asyncio.sleep(0)
    asked.append(asyncio.ensure_future(journal.ask(look)))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(committed, *asked)
    await asyncio.to_thread(all_gone.wait, 30)

    assert left == [2 * PORTION + 5, PORTION + 5, 5, 0]
    await journal.aclose()


async def test_runs_beyond_the_size_go_when_a_journal_is_used(path: Path) -> None:
    journal = Journal(path, keep=None, max_bytes=1)
    for run in "abc":
        begin(journal, run, state="failed")
    begin(journal, "d")
    await journal.durable()

    assert [row.id for row in await journal.ask(journal.store.runs)] == ["d"]
    await journal.aclose()


async def test_old_runs_that_cannot_be_removed_are_logged(path: Path) -> None:
    journal = Journal(path)
    begin(journal, "a")
    with capture_logs() as logged:
        journal._keep = "a while"  # type: ignore[assignment]  # to make it fail
        await journal.durable()
        await journal.ask(journal.store.runs)

    assert [entry["event"] for entry in logged] == ["old runs are not removed"]
    await journal.aclose()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"durability": "disk"}, "durability is 'process' or 'power', not 'disk'"),
        ({"keep": "a while"}, "keep: 'a while' is not a duration"),
        ({"keep": -1}, "keep: a duration cannot be -1"),
    ],
)
def test_an_argument_that_is_wrong_is_said(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        Journal("journal.db", **arguments)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"XDG_STATE_HOME": "/state"}, "/state/agentflow/journal.db"),
        ({"XDG_STATE_HOME": "relative"}, "/of/a/user/.local/state/agentflow/journal.db"),
        ({"AGENTFLOW_ESTIMATES": "/a/b.json"}, "/of/a/user/.local/state/agentflow/journal.db"),
    ],
)
def test_by_default_a_journal_is_in_the_state_directory(
    environ: dict[str, str], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/of/a/user")

    assert default_path(environ) == Path(path)


def test_a_journal_without_a_path_is_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    assert Journal().store.path == tmp_path / "agentflow" / "journal.db"
