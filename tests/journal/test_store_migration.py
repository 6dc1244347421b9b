"""A journal of an older version is brought up to date when it is opened, or not touched."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agentflow.errors import JournalError
from agentflow.executor.journal import schema
from agentflow.executor.journal.rows import Batch
from agentflow.executor.journal.store import JournalStore

Open = Callable[..., JournalStore]

SECOND = (
    "ALTER TABLE runs ADD COLUMN tenant TEXT NOT NULL DEFAULT 'nobody'",
    "UPDATE runs SET note = 'moved'",
)


@pytest.fixture
def old(store: JournalStore, begun: Callable[..., Batch]) -> Path:
    """A journal of version 1 with a run."""
    store.write(begun("a", lines=['{"n":1}']))
    store.close()
    return store.path


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def test_the_first_version_is_one(old: Path) -> None:
    assert version(old) == 1


def test_an_older_journal_is_brought_up_to_date(
    old: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, SECOND))
    one, other = opened(), opened()

    assert one.run("a").note == "moved"
    assert [record["n"] for record in one.records("a")] == [1]
    assert other.run("a").note == "moved"  # not a second time: the column is there
    assert version(old) == 2


def test_a_migration_that_fails_changes_nothing(
    old: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, (*SECOND, "no statement")))
        with pytest.raises(JournalError, match="syntax error"):
            opened().runs()

    assert version(old) == 1
    assert opened().run("a").note == ""


def test_a_new_journal_is_made_through_all_versions(
    store: JournalStore, begun: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, SECOND))
    store.write(begun("a"))

    assert store.run("a").note == ""
    assert version(store.path) == 2


def test_a_journal_that_could_not_be_made_leaves_nothing(
    path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "MIGRATIONS", (("no statement",),))
    with pytest.raises(JournalError, match="the journal cannot be opened"):
        opened().runs()

    assert [file.name for file in path.parent.iterdir()] == ["journal.db.owners"]
