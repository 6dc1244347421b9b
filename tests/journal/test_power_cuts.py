"""A power cut at any moment leaves a journal that is whole up to some commit.

SQLite's log grows by frames, one for each page that a commit changed. When the power goes, any
part of what was not synced may be missing: the log is cut here after every frame and inside of
frames, and where it is used again from its start, new frames are cut into the old ones.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentflow.executor.journal.rows import Batch
from agentflow.executor.journal.store import JournalStore, digest_of

Begun = Callable[..., Batch]

PAGE = 512
HEADER, FRAME = 32, 24 + PAGE


@dataclass
class Taken:
    """The files of a journal after a commit.

    Attributes:
        commits: How many were acknowledged.
        file: The database.
        log: Its log.
    """

    commits: int
    file: bytes
    log: bytes


class Site:
    """A journal of small pages that is written to, and copies of it that are cut."""

    def __init__(self, folder: Path) -> None:
        self.store = JournalStore(folder / "journal.db")
        self._copy = folder / "copy.db"
        self.copies = 0

    def take(self, commits: int) -> Taken:
        log = self.store.path.with_name("journal.db-wal")
        return Taken(commits, self.store.path.read_bytes(), log.read_bytes())

    def commits_in(self, file: bytes, log: bytes) -> int:
        """Open what a power cut left, check it, and count the commits that are in it."""
        self._copy.write_bytes(file)
        self._copy.with_name("copy.db-wal").write_bytes(log)
        store = JournalStore(self._copy)
        try:
            with store._file.read() as db:
                db.execute("PRAGMA synchronous = OFF").fetchall()  # nobody cuts the copy's power
            assert store.check() == []
            found = sorted(n for row in store.runs() for n in numbers(store, row.id))
            assert found == list(range(len(found)))
        finally:
            store.close()
        self.copies += 1
        return len(found)


def numbers(store: JournalStore, run: str) -> list[int]:
    """What was appended to a run: one number a commit, in as many records as it has pages."""
    records = list(store.records(run))
    found = [int(str(record["n"])) for record in records]
    assert found == sorted(found)
    assert found == [n for n in dict.fromkeys(found) for _ in range(records_of(n))]
    for record in records:
        if digest := record["blob"]:
            store.blob(str(digest))
    return list(dict.fromkeys(found))


def records_of(n: int) -> int:
    return 1 + n % 3


def commit(store: JournalStore, begun: Begun, n: int) -> None:
    """Commit number `n`: to one of four runs, now and then with a large value."""
    run = f"run {n % 4}"
    batch = begun(run) if n < 4 else Batch(runs={run: {"tokens": n}})
    data = json.dumps([n // 7] * 300).encode() if n % 5 == 0 else b""
    digest = digest_of(data) if data else ""
    batch.lines[run] = [json.dumps({"n": n, "blob": digest})] * records_of(n)
    if data:
        batch.blobs[digest] = data
        batch.refs.append((run, digest))
    store.write(batch)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    site.store.open()
    site.store.close()
    with closing(sqlite3.connect(site.store.path)) as db:
        for statement in ("journal_mode = DELETE", f"page_size = {PAGE}"):
            db.execute(f"PRAGMA {statement}").fetchall()
        db.execute("VACUUM")
        db.execute("PRAGMA journal_mode = WAL").fetchall()
    yield site
    site.store.close()


def test_the_log_may_end_anywhere(site: Site, begun: Begun) -> None:
    taken = []
    for n in range(40):
        commit(site.store, begun, n)
        taken.append(site.take(n + 1))
    file, log = taken[-1].file, taken[-1].log
    assert all(one.file == file for one in taken)  # all of it is in the log
    ends = {len(one.log): one.commits for one in taken}
    frames = range(HEADER, len(log) + 1, FRAME)
    torn = [at + inside for at in frames[:-1] for inside in (1, 30)]

    for cut in sorted([0, 7, *frames, *torn]):
        committed = max((n for end, n in ends.items() if end <= cut), default=0)
        assert site.commits_in(file, log[:cut]) == committed

    assert site.copies >= 500, site.copies


def test_a_log_that_begins_anew_may_end_anywhere_among_its_old_frames(
    site: Site, begun: Begun
) -> None:
    with site.store._file.read() as db:
        db.execute("PRAGMA wal_autocheckpoint = 30").fetchall()
    before, checkpoints = None, 0
    for n in range(25):
        commit(site.store, begun, n)
        after = site.take(n + 1)
        if before is not None:
            end = changed_until(before.log, after.log)
            for cut in {*range(HEADER, end, 3 * FRAME), *range(HEADER + 30, end, 3 * FRAME)}:
                found = site.commits_in(before.file, after.log[:cut] + before.log[cut:])
                assert found == before.commits
            assert site.commits_in(before.file, after.log) == after.commits
            checkpoints += before.file != after.file
        before = after

    assert checkpoints >= 3
    assert site.copies >= 100, site.copies


def test_the_move_of_the_log_into_the_file_may_end_anywhere(site: Site, begun: Begun) -> None:
    with site.store._file.read() as db:
        db.execute("PRAGMA wal_autocheckpoint = 60").fetchall()
    before = None
    for n in range(30):
        commit(site.store, begun, n)
        after = site.take(n + 1)
        if before is not None and before.file != after.file:
            for cut in range(0, len(after.file), PAGE):
                half = after.file[:cut] + before.file[cut:]
                assert site.commits_in(half, after.log) == after.commits
        before = after

    assert site.copies >= 50, site.copies


def changed_until(before: bytes, after: bytes) -> int:
    """Where the last byte of a log that a commit changed ends."""
    after = after.ljust(len(before), b"\0")
    before = before.ljust(len(after), b"\0")
    at = len(after)
    while at and after[at - PAGE : at] == before[at - PAGE : at]:
        at -= PAGE
    while at and after[at - 1] == before[at - 1]:
        at -= 1
    return at
