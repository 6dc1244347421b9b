"""Ended runs go by age and by size, the oldest first; nothing else does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agentflow.errors import JournalError
from agentflow.executor.journal import retention
from agentflow.executor.journal.rows import ENDED, Batch
from agentflow.executor.journal.store import JournalStore, digest_of

Open = Callable[..., JournalStore]
Begun = Callable[..., Batch]


def ids(store: JournalStore) -> list[str]:
    """The runs that are kept, oldest first."""
    return [row.id for row in store.runs()][::-1]


def used(store: JournalStore) -> int:
    with store._file.read() as db:
        return retention.used_bytes(db)


def test_ended_runs_go_when_they_are_old(store: JournalStore, begun: Begun) -> None:
    states = ["running", "paused", *ENDED]
    for updated in (10.0, 20.0):
        for state in states:
            store.write(begun(f"{state} {updated:g}", state=state, updated=updated))

    assert store.prune(keep=None, max_bytes=None, now=1e9) == 0
    assert store.prune(keep=5.0, max_bytes=None, now=15.0) == 0
    assert store.prune(keep=5.0, max_bytes=None, now=20.0) == 3
    assert ids(store) == ["running 10", "paused 10", *(f"{state} 20" for state in states)]
    assert store.prune(keep=0.0, max_bytes=0, now=1e9) == 3
    assert ids(store) == ["running 10", "paused 10", "running 20", "paused 20"]


def test_an_interrupted_run_stays(store: JournalStore, opened: Open, begun: Begun) -> None:
    store.write(begun("a", updated=1.0))
    store.close()

    assert opened().prune(keep=1.0, max_bytes=0, now=1e9) == 0


def test_the_oldest_go_until_the_rest_fits(store: JournalStore, begun: Begun) -> None:
    line = json.dumps({"text": "x" * 100_000})
    for n in (3, 1, 2, 0):  # how long ago they ended is not how long ago they began
        store.write(begun(f"run {n}", lines=[line], state="finished", updated=float(n)))
    store.write(begun("goes on", lines=[line]))
    full = used(store)

    assert store.prune(keep=None, max_bytes=full, now=1e9) == 0
    assert store.prune(keep=None, max_bytes=full - 150_000, now=1e9) == 2

    assert ids(store) == ["run 3", "run 2", "goes on"]
    assert used(store) <= full - 150_000
    assert [record["text"] for record in store.records("run 2")] == ["x" * 100_000]


def test_a_large_value_stays_as_long_as_a_run_refers_to_it(
    store: JournalStore, begun: Begun
) -> None:
    shared, own = b"shared" * 9999, b"own" * 9999
    store.write(begun("a", "b", state="finished", updated=1.0))
    store.write(begun("c"))
    blobs = {digest_of(shared): shared, digest_of(own): own}
    refs = [("a", digest_of(shared)), ("b", digest_of(shared)), ("a", digest_of(own))]
    store.write(Batch(blobs=blobs, refs=refs, runs={r: {"updated": 1.0} for r in "ab"}))

    store.write(Batch(refs=[("c", digest_of(shared))]))
    assert store.prune(keep=1.0, max_bytes=None, now=99.0) == 2

    assert store.blob(digest_of(shared)) == shared
    with pytest.raises(JournalError, match="is missing"):
        store.blob(digest_of(own))
    assert store.check() == []


def test_the_file_shrinks(store: JournalStore, begun: Begun) -> None:
    line = json.dumps({"text": "x" * 500_000})
    for n in range(6):
        store.write(begun(f"run {n}", lines=[line], state="failed", updated=float(n)))
    store.close()
    before = os.path.getsize(store.path)

    store.prune(keep=0.0, max_bytes=None, now=5.0)
    store.close()

    assert before > 3_000_000
    assert os.path.getsize(store.path) < before / 4
    assert ids(store) == ["run 5"]
    assert store.check() == []


def test_more_than_a_portion_goes_at_once(store: JournalStore, begun: Begun) -> None:
    names = [f"run {n}" for n in range(2 * retention.PORTION + 7)]
    store.write(begun(*names, lines=["{}"], state="cancelled", updated=1.0))
    for name in names[::50]:
        store.answer(name, "q", "approve", None, "me")

    assert store.prune(keep=1.0, max_bytes=None, now=99.0) == len(names)

    assert ids(store) == []
    with store._file.read() as db:
        for table in ("records", "blobs", "refs", "answers"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_the_locks_of_the_dead_go(
    store: JournalStore, opened: Open, path: Path, begun: Begun
) -> None:
    locks = path.with_name("journal.db.owners")
    for run in "ab":  # each with an owner that lives
        opened().write(begun(run))
    store.open()
    alive = {lock.name for lock in locks.iterdir()}
    for name in ("old", "new"):
        (locks / name).touch()
    for name in ("old", *alive):
        os.utime(locks / name, (1000.0, 1000.0))

    store.prune(keep=None, max_bytes=None, now=1000.0)
    assert {lock.name for lock in locks.iterdir()} == {*alive, "old", "new"}
    store.prune(keep=None, max_bytes=None, now=1001.0 + retention.OWNERS)
    assert {lock.name for lock in locks.iterdir()} == {*alive, "new"}


def test_others_can_write_between_the_portions(
    store: JournalStore, opened: Open, begun: Begun
) -> None:
    store.write(begun(*map(str, range(250)), state="finished", updated=1.0))
    other, removed = opened(), []

    for portion in range(3):
        removed.append(store.prune_some(keep=1.0, max_bytes=None, now=9.0))
        other.write(begun(f"new {portion}"))

    assert removed == [100, 100, 50]
    assert ids(store) == ["new 0", "new 1", "new 2"]
