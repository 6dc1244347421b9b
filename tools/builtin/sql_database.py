"""A connection to a SQLite database for one statement, within limits."""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentflow.errors import AgentflowError
from agentflow.tools.builtin.sql_guard import authorize
from agentflow.tools.builtin.threads import settled, stopped
from agentflow.wording import nearest

MAX_TEXT = 10_000
"""Characters of one value that are given."""

MAX_RESULT = 2**20
"""Characters of all values that are given."""

MAX_VALUE = 64 * 2**20
"""Bytes of one value that SQLite may hold, also on the way to a result."""

_PAUSE = 0.02  # seconds between two looks at a database that another program has locked
_CHECK = 10_000  # steps of SQLite's machine between two looks whether to stop: about 0.1 ms


class SqlFailed(AgentflowError):
    """A statement could not be run; nothing has changed."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What a statement gave.

    Attributes:
        columns: Names of the columns; empty if it gives no rows.
        rows: The values, row by row. A blob is given by its length, as ``<12 bytes>``; a long
            text is cut and ends with ``…``.
        truncated: Whether there are more rows, or a text was cut.
        changed: Rows that were inserted, changed or deleted, by triggers too.
    """

    columns: list[str]
    rows: list[list[str | int | float | None]]
    truncated: bool = False
    changed: int = 0


class Database:
    """A database file that is open for one statement.

    Args:
        path: The file; it is never created.
        writes: Whether the statement may change it.
        limit: Seconds that a statement may take, waiting for other programs included.
        max_rows: Rows that are given.
    """

    def __init__(self, path: Path, *, writes: bool, limit: float, max_rows: int) -> None:
        self._path = path
        self._writes = writes
        self._limit = limit
        self._max_rows = max_rows
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None  # which file that was
        self._stopping = False

    async def open(self) -> None:
        """Open it and read its schema, if that can be done now; otherwise `run` will tell."""
        with suppress(SqlFailed, sqlite3.Error):
            await settled(self._open)

    async def run(self, query: str, params: Sequence[Any]) -> Rows:
        """Run one statement, in a transaction of its own.

        Raises:
            SqlFailed: It is wrong, not allowed, or takes too long.
        """
        busy = False
        try:
            async with asyncio.timeout(self._limit):
                while True:
                    try:
                        return await stopped(self._stop, self._run, query, params)
                    except _Busy:
                        busy = True
                    await asyncio.sleep(_PAUSE)
        except TimeoutError:
            why = "another program has locked the database" if busy else "ask for less at once"
            raise SqlFailed(f"stopped after {self._limit:g} s: {why}") from None

    async def aclose(self) -> None:
        """Close it."""
        await settled(self._close)

    def _run(self, query: str, params: Sequence[Any]) -> Rows:
        try:
            connection = self._open()
            with self._transaction(connection):
                before = connection.total_changes
                with self._guarded(connection), closing(connection.cursor()) as cursor:
                    rows, cut = self._rows(cursor.execute(query, params))
                    columns = [str(column[0]) for column in cursor.description or ()]
                changed = connection.total_changes - before
        except (sqlite3.Error, ValueError, OverflowError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise _Busy from error
            raise self._explained(error) from error
        return Rows(columns, rows, cut, changed)

    def _open(self) -> sqlite3.Connection:
        """The connection to the file that has the name now."""
        try:
            found = os.stat(self._path)
        except OSError:
            found = None
        if found is None or not stat.S_ISREG(found.st_mode):
            raise SqlFailed(f"there is no database {str(self._path)!r}: it has to be created first")
        if self._connection is None or self._opened != (found.st_dev, found.st_ino):
            self._close()
            self._opened = (found.st_dev, found.st_ino)
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.as_uri()}?mode={'rw' if self._writes else 'ro'}",
            uri=True,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,  # one call at a time, from any thread
        )
        try:
            connection.text_factory = _text
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute(f"PRAGMA {'foreign_keys' if self._writes else 'query_only'}=ON")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _stop(self) -> None:
        """End what is running, or is about to; safe from any thread."""
        self._stopping = True  # seen between steps; some that are long look only for the other
        with suppress(sqlite3.ProgrammingError):  # closed meanwhile
            if self._connection is not None:
                self._connection.interrupt()

    @contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        connection.execute("BEGIN IMMEDIATE" if self._writes else "BEGIN")
        try:
            yield
            if self._stopping:
                raise sqlite3.OperationalError("interrupted")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    @contextmanager
    def _guarded(self, connection: sqlite3.Connection) -> Iterator[None]:
        """What runs here is not ours: it is watched."""
        connection.set_authorizer(authorize)
        connection.set_progress_handler(lambda: self._stopping, _CHECK)
        try:
            yield
        finally:
            connection.set_progress_handler(None, 0)
            connection.set_authorizer(None)

    def _rows(self, cursor: sqlite3.Cursor) -> tuple[list[list[Any]], bool]:
        """The rows that are given, and whether anything of them was left out."""
        rows: list[list[Any]] = []
        size, cut = 0, False
        for found in cursor:
            if len(rows) == self._max_rows or size > MAX_RESULT:
                return rows, True
            row = [_shown(value) for value in found]
            cut = cut or any(isinstance(v, str) and len(v) > MAX_TEXT for v in found)
            size += sum(len(value) if isinstance(value, str) else 8 for value in row)
            rows.append(row)
        return rows, cut

    def _explained(self, error: Exception) -> SqlFailed:
        """The error in SQLite's words, and what to do."""
        text = str(error).rstrip(".")
        if text.startswith("no such table: "):
            known = self._tables()
            name = text.partition(": ")[2]
            return SqlFailed(f"{text}. {nearest(name, known) if known else 'It has no tables.'}")
        for words, remedy in _REMEDIES.items():
            if words in text:
                return SqlFailed(f"{text}. {remedy}")
        return SqlFailed(text)

    def _tables(self) -> list[str]:
        """Tables and views that a statement can name."""
        query = (
            "SELECT name FROM sqlite_master "
            "WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        )
        with suppress(sqlite3.Error):
            if self._connection is not None:
                return [str(row[0]) for row in self._connection.execute(query)]
        return []


class _Busy(Exception):
    """Another program has locked the database."""


_REMEDIES = {
    "no such column": "PRAGMA table_info(the_table) lists the columns of a table.",
    "one statement at a time": "Make one call for each statement.",
    "authorized": "A statement reaches the tables of this one file, in a transaction of its own.",
    "readonly": "This database can only be read: SELECT, WITH, EXPLAIN, PRAGMA table_info.",
    "bindings supplied": "params holds one value for each ? in the query.",
    "not a database": "It has to be a SQLite file.",
}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _shown(value: Any) -> str | int | float | None:
    """A value as JSON can have it."""
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, str) and len(value) > MAX_TEXT:
        return value[: MAX_TEXT - 1] + "…"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    shown: str | int | float | None = value
    return shown
