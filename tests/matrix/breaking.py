"""A process that dies at some event: what it leaves on disk and in the world."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from agentflow.testing.chat import Exchange
from tests.matrix.world import State


@dataclass(frozen=True)
class Remains:
    """What a process leaves that died.

    Attributes:
        folder: Copies of its files as they were.
        ids: Of the runs that it had begun, by pass.
        results: What came of those that had ended, by pass.
        calls: The calls that had ended.
        state: Of the environment.
        exchanges: With all servers.
        written: When what has been written down by now had come.
    """

    folder: Path
    ids: dict[str, str]
    results: dict[str, str]
    calls: dict[str, str]
    state: State
    exchanges: list[Exchange]
    written: float


def copied(folder: Path, to: Path) -> None:
    """Copy files as another process would find them now; databases with all that is committed."""
    for path in sorted(folder.rglob("*")):
        copy = to / path.relative_to(folder)
        if path.is_dir() or path.name.endswith(("-wal", "-shm", "-journal")):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".db":
            backed_up(path, copy)
        else:
            shutil.copyfile(path, copy)


def backed_up(path: Path, copy: Path) -> None:
    """Copy a database with all that is committed."""
    with closing(sqlite3.connect(path)) as one, closing(sqlite3.connect(copy)) as other:
        one.backup(other)
