"""Journals in a folder of the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentflow.executor.journal.rows import Batch
from agentflow.executor.journal.store import JournalStore

Open = Callable[..., JournalStore]


def begun(*runs: str, lines: list[str] | None = None, **columns: Any) -> Batch:
    """The first word of some runs, with the same columns and records."""
    first = {"name": "brief", "kind": "workflow", "target": {"module": "m"}, "began": 1.0}
    batch = Batch()
    for run in runs:
        batch.runs[run] = first | columns
        if lines is not None:
            batch.lines[run] = list(lines)
    return batch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a journal is made, in a folder that is not there yet."""
    return tmp_path / "state" / "journal.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Open]:
    """Makes stores of one file, each like a process of its own; they are closed in the end."""
    stores = []

    def make(**options: Any) -> JournalStore:
        stores.append(JournalStore(path, **options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Open) -> JournalStore:
    """A store whose wall clock stands at 100 s."""
    return opened(wall=lambda: 100.0)


@pytest.fixture(name="begun")
def begun_fixture() -> Callable[..., Batch]:
    """Builds the first batch of runs."""
    return begun
