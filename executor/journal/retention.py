"""How long a journal keeps its runs: ended ones go by age and by size, the oldest first."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from agentflow.caches.owners import Owner
from agentflow.executor.journal.rows import ENDED

PORTION = 100
"""Runs that one transaction removes, so that others who write need not wait long."""

OWNERS = 86_400.0
"""Seconds for which the lock of a process is left alone: it may be about to be taken."""

PAGES = 1024
"""Pages that are given back to the disk at once."""


def prune_some(db: sqlite3.Connection, *, before: float | None, max_bytes: int | None) -> int:
    """Remove up to `PORTION` ended runs, within a transaction.

    Args:
        db: The journal.
        before: Runs that ended before this wall time go.
        max_bytes: More go while what is kept takes more than this.

    Returns:
        How many were removed; fewer than `PORTION` when nothing is left to be done.
    """
    oldest = db.execute(
        f"SELECT number, updated FROM runs WHERE state IN {ENDED} ORDER BY updated LIMIT ?",
        (PORTION,),
    ).fetchall()
    for removed, (number, updated) in enumerate(oldest):
        is_old = before is not None and updated < before
        if not is_old and (max_bytes is None or used_bytes(db) <= max_bytes):
            return removed
        remove(db, number)
    return len(oldest)


def remove(db: sqlite3.Connection, number: int) -> None:
    """Remove a run, and the large values that no other run refers to, within a transaction."""
    db.execute(
        "DELETE FROM blobs WHERE digest IN (SELECT digest FROM refs WHERE run = ?) AND NOT EXISTS"
        " (SELECT 1 FROM refs WHERE refs.digest = blobs.digest AND refs.run <> ?)",
        (number, number),
    )
    for statement in (
        "DELETE FROM refs WHERE run = ?",
        "DELETE FROM answers WHERE run = ?",
        "DELETE FROM records WHERE run = ?",
        "DELETE FROM runs WHERE number = ?",
    ):
        db.execute(statement, (number,))


def sweep(owner: Owner, folder: Path, *, now: float) -> None:
    """Remove the locks that processes left when they died."""
    with suppress(OSError):
        for file in list(os.scandir(folder)):
            if file.stat().st_mtime < now - OWNERS:
                owner.lives(file.name)  # forgets one that does not


def used_bytes(db: sqlite3.Connection) -> int:
    """What the journal holds; pages that can be filled again do not count."""
    return (_pragma(db, "page_count") - _pragma(db, "freelist_count")) * _pragma(db, "page_size")


def shrink(db: sqlite3.Connection) -> None:
    """Give the pages that are free back to the disk."""
    while free := _pragma(db, "freelist_count"):
        db.execute(f"PRAGMA incremental_vacuum({PAGES})").fetchall()
        if _pragma(db, "freelist_count") >= free:
            return


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])
