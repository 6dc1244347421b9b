"""Runs that are kept in a journal, broken off anywhere, and gone on with, on virtual time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentflow import Answer, Engine
from agentflow.executor.asking.answering import answer
from agentflow.executor.journal.rows import Batch, RunRow
from agentflow.executor.journal.store import JournalStore
from agentflow.testing.clock import run_virtual

Record = dict[str, Any]


class Desk:
    """One journal file after another, and what tools did meanwhile.

    Attributes:
        made: Calls that were made, as text, in the order they began.
        ended: Calls that gave a value or failed by themselves.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = 0
        self.made: list[str] = []
        self.ended: list[str] = []

    def path(self) -> Path:
        """A journal that nobody has written to."""
        self._files += 1
        return self._folder / f"{self._files}.db"

    def run(self, target: Any, *args: Any, path: Path, **engine: Any) -> Any:
        """Run something on virtual time in an engine with this journal; its value."""

        async def main() -> Any:
            async with Engine(journal=path, seed=1, **engine) as made:
                return await made.run(target, *args)

        return run_virtual(main())

    def resume(
        self, target: Any, *args: Any, path: Path, engine: Any = None, **options: Any
    ) -> Any:
        """Go on with the only run of a journal; its value."""
        run = rows(path)[0].id

        async def main() -> Any:
            async with Engine(journal=path, seed=1, **(engine or {})) as made:
                return await made.resume(run, target, args=args, **options)

        return run_virtual(main())

    def cut(self, path: Path, count: int, *, state: str = "running") -> Path:
        """A journal that has only the first records of a run, as if its process had died."""
        row, lines = rows(path)[0], [json.dumps(record) for record in records(path)]
        blobs = {}
        store = JournalStore(path)
        for digest in {d for line in lines[:count] for d in _digests(json.loads(line))}:
            blobs[digest] = store.blob(digest)
        store.close()
        other = self.path()
        columns = {"name": row.name, "kind": row.kind, "target": row.target, "began": row.began}
        store = JournalStore(other)
        refs = [(row.id, digest) for digest in blobs]
        store.write(
            Batch({row.id: lines[:count]}, {row.id: {**columns, "state": state}}, blobs, refs)
        )
        store.close()
        return other

    def answer(self, path: Path, given: Answer, *, question: str | None = None) -> None:
        """Answer a question of the only run of a journal, as another process would."""
        store = JournalStore(path)
        try:
            answer(store, store.runs()[0].id, question, given)
        finally:
            store.close()

    def count(self) -> Counter[str]:
        """How often each call was made."""
        return Counter(self.made)


def _digests(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$blob"]] if "$blob" in value else []
        return own + [d for item in value.values() for d in _digests(item)]
    return [d for item in value for d in _digests(item)] if isinstance(value, list) else []


def rows(path: Path) -> Sequence[RunRow]:
    """The runs of a journal, newest first."""
    store = JournalStore(path)
    try:
        return store.runs()
    finally:
        store.close()


def records(path: Path) -> list[Record]:
    """The records of the newest run of a journal."""
    store = JournalStore(path)
    try:
        return list(store.records(store.runs()[0].id))
    finally:
        store.close()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A folder of journals."""
    return Desk(tmp_path)


@pytest.fixture
def kept() -> Callable[[Path], list[Record]]:
    """The records of the newest run of a journal."""
    return records
