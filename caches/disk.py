"""diskcache, made safe: bytes only, never unpickled, never outside its folder, never for ever.

What is guarded against, each seen with diskcache 5.6.3:

- A row or a key marked as pickled is unpickled on access (CVE-2025-69872; its ``JSONDisk``
  inherits that), and a row's file name is followed, and removed, wherever it leads.
- Every row of the table ``Settings`` becomes an attribute of the cache or a PRAGMA.
- Opening a database that another process has locked waits for a minute.
- A memory-mapped database that somebody truncates is a SIGBUS.
- SQLite built without double-quoted strings does not understand its statements.

No other module imports diskcache.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeGuard

from diskcache import DEFAULT_SETTINGS, Cache, Disk, Timeout  # type: ignore[import-untyped]  # it has no types

from agentflow._private import make_folder

__all__ = ["FILE", "LARGEST", "Refused", "SafeCache", "SafeDisk", "Timeout", "open_cache"]

FILE = "cache.db"
"""The database in its folder."""

LARGEST = 1 << 30
"""Bytes of a value file above which it is none of ours."""

BUSY = 0.1
"""Seconds to wait for another process's write lock."""

_RAW, _BINARY = 1, 2
_TRIES = 10
_VALUE_FILE = re.compile(r"[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{28}\.val")
_METADATA = {"count", "size", "hits", "misses"}
_PRAGMAS = {
    "sqlite_mmap_size": 0,
    "sqlite_wal_autocheckpoint": 256,  # pages: the log stays near a megabyte
    "sqlite_journal_size_limit": 1 << 20,
    "sqlite_trusted_schema": 0,
}


class Refused(OSError):
    """A row is not one of ours. diskcache takes it for a miss, as it does any OSError."""


class SafeDisk(Disk):  # type: ignore[misc]  # diskcache has no types
    """Stores bytes under text keys, and reads nothing else.

    Attributes:
        written: Value files of a transaction that has not been committed.
    """

    def __init__(self, directory: str, **settings: Any) -> None:
        super().__init__(directory, **settings)
        self.written: list[str] = []

    def put(self, key: object) -> tuple[str, bool]:
        """The key as it stands in the database."""
        if type(key) is not str:
            raise TypeError(f"a key is text, not {type(key).__name__}")
        return key.encode("utf-8", "backslashreplace").decode(), True

    def get(self, key: object, raw: object) -> str:
        """The key of a row; empty when it is none of ours."""
        return key if raw and type(key) is str else ""

    def store(self, value: object, read: bool, key: object = None) -> tuple[Any, ...]:
        """The columns of a value, which is bytes."""
        if read or type(value) is not bytes:
            raise TypeError(f"a value is bytes, not {type(value).__name__}")
        return super().store(value, False, key=key)  # type: ignore[no-any-return]  # of diskcache

    def filename(self, key: object = None, value: object = None) -> tuple[str, str]:
        """A new name for a value file, in the folder and in full."""
        name, path = super().filename()
        self.written.append(name)
        return name, path

    def _write(
        self, full_path: str, iterator: Iterable[bytes], mode: str, encoding: str | None = None
    ) -> int:
        """Write a value file that only its owner may read; its size."""
        for _ in range(_TRIES - 1):
            with suppress(FileNotFoundError):  # another process found its folder empty
                return _write_file(full_path, iterator)
        return _write_file(full_path, iterator)

    def fetch(self, mode: object, filename: object, value: object, read: bool) -> bytes:
        """The value of a row."""
        if not read and mode == _RAW and isinstance(value, bytes):
            return value
        if not read and mode == _BINARY and is_value_file(filename):
            return read_file(Path(self._directory, filename))
        raise Refused(f"refused a row of mode {mode!r}")

    def remove(self, file_path: object) -> None:
        """Remove a value file."""
        if is_value_file(file_path):
            super().remove(file_path)

    def discard_written(self) -> None:
        """Remove the value files of a transaction that was given up."""
        for name in self.written:
            self.remove(name)
        self.written.clear()


class SafeCache(Cache):  # type: ignore[misc]  # diskcache has no types
    """A diskcache that waits for locks no longer than `BUSY`, also while it opens."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        try:
            super().__init__(str(folder), timeout=BUSY, disk=SafeDisk, **settings)
        except BaseException:
            self.close()  # or its connection stays open
            raise

    @property
    def _con(self) -> sqlite3.Connection:
        is_new = getattr(self._local, "con", None) is None
        con: sqlite3.Connection = super()._con
        if is_new:
            con.execute(f"PRAGMA busy_timeout = {int(BUSY * 1000)}")
            allow_double_quotes(con)
        return con

    @property
    def _sql_retry(self) -> Any:
        return self._sql

    def verify(self) -> None:
        """Read the whole database.

        Raises:
            sqlite3.DatabaseError: Part of it is damaged.
        """
        ((verdict,),) = self._sql("PRAGMA quick_check(1)").fetchall()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)

    def read_rows(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Values inside the database, those there are; up to 500 keys are one snapshot."""
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), 500):
            some = keys[start : start + 500]
            holes = ",".join("?" * len(some))
            query = f"SELECT key, mode, value FROM Cache WHERE raw = 1 AND key IN ({holes})"
            rows = self._sql(query, some).fetchall()
            found |= {key: self.disk.fetch(mode, None, value, False) for key, mode, value in rows}
        return found

    def read_rows_from(self, start: str) -> dict[str, bytes]:
        """Values inside the database of the keys that begin with some text."""
        query = "SELECT key, mode, value FROM Cache WHERE raw = 1 AND key >= ? AND key < ?"
        rows = self._sql(query, (start, start[:-1] + chr(ord(start[-1]) + 1))).fetchall()
        return {key: self.disk.fetch(mode, None, value, False) for key, mode, value in rows}

    def rows_after(self, rowid: int, limit: int) -> list[tuple[int, str]]:
        """Numbers and keys of the next rows, in the order in which they were made."""
        query = "SELECT rowid, key, raw FROM Cache WHERE rowid > ? ORDER BY rowid LIMIT ?"
        return [
            (row, self.disk.get(key, raw)) for row, key, raw in self._sql(query, (rowid, limit))
        ]

    def value_files(self) -> set[str]:
        """The names of the value files that rows refer to."""
        rows = self._sql("SELECT filename FROM Cache WHERE filename IS NOT NULL").fetchall()
        return {name for (name,) in rows}


def open_cache(folder: Path, **settings: Any) -> SafeCache:
    """Open the cache in a folder, or make it.

    Raises:
        Timeout: Another process holds the database locked.
        ValueError: Its settings are not ours.
        sqlite3.Error: It is damaged, or cannot be written.
        OSError: The folder cannot be used.
    """
    settings = {**_PRAGMAS, **settings}
    check(folder / FILE, set(settings))
    return SafeCache(folder, **settings)


def check(path: Path, ours: set[str]) -> None:
    """See that a database can be written now, and that its settings are those of diskcache."""
    with closing(sqlite3.connect(path, timeout=BUSY, isolation_level=None)) as con:
        try:
            con.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise Timeout from None
            raise
        tables = con.execute("SELECT name FROM sqlite_master WHERE name = 'Settings'").fetchall()
        rows = con.execute("SELECT key, value FROM Settings").fetchall() if tables else []
        con.execute("ROLLBACK")
    allowed = {*DEFAULT_SETTINGS, *_METADATA, *ours}
    for key, value in rows:
        if key not in allowed or type(value) not in (int, str):
            raise ValueError(f"unknown setting {key!r}")


def primary_code(error: sqlite3.Error) -> int | None:
    """SQLite's result code, without the extension; None when the module itself complains."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def is_value_file(name: object) -> TypeGuard[str]:
    """Whether a name is one that diskcache gives to value files."""
    return isinstance(name, str) and _VALUE_FILE.fullmatch(name) is not None


def read_file(path: Path) -> bytes:
    """The bytes of a value file; never follows a link, nor waits at a pipe.

    Raises:
        OSError: There is none, or it is no regular file of a sane size.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST:
            raise Refused(f"refused the value file {path.name}")
        return file.read()


def _write_file(path: str, parts: Iterable[bytes]) -> int:
    make_folder(Path(path).parent)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as file:
        return sum(map(file.write, parts))


def allow_double_quotes(con: sqlite3.Connection) -> None:
    """Let a strict SQLite read diskcache's statements, which quote text like names."""
    if sys.version_info >= (3, 12):
        con.setconfig(sqlite3.SQLITE_DBCONFIG_DQS_DDL, True)
        con.setconfig(sqlite3.SQLITE_DBCONFIG_DQS_DML, True)
