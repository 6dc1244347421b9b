"""A database that may break: opened late, watched, put aside when damaged, and made anew."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, NoReturn

import structlog

from agentflow import clock
from agentflow._private import own_file, own_folder
from agentflow.caches.disk import FILE, Refused, SafeCache, Timeout, open_cache, primary_code

_log = structlog.get_logger("agentflow.caches")

_OF_THE_MACHINE = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_ABORT,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}
"""Result codes that say nothing against the file itself."""


class Unusable(Exception):
    """The database cannot be used now."""


class Busy(Unusable):
    """Another process holds its write lock; trying again soon can help."""


class Database:
    """One diskcache database, alone in a folder; used from one thread.

    The folder is replaced as a whole: a damaged database is moved aside with its value files,
    and whoever else has it open notices that the file is another one.

    Args:
        folder: Made when needed; the folder above it has to be the user's own.
        pause: Seconds to leave it alone after the machine refused it.
        verify: Whether to read it all when it is opened, to find damage.
        settings: Of diskcache.
    """

    def __init__(
        self, folder: Path, *, pause: float = 2.0, verify: bool = False, **settings: Any
    ) -> None:
        self.folder = folder
        self._pause = pause
        self._verify = verify
        self._settings = settings
        self._cache: SafeCache | None = None
        self._file: tuple[int, int] | None = None  # the one that is open
        self._not_before = 0.0
        self._warned: set[str] = set()

    @contextmanager
    def used(self) -> Iterator[SafeCache]:
        """Use the database, opening it when needed.

        Raises:
            Busy: Another process holds it locked.
            Unusable: Anything else went wrong; the next use may find it repaired.
        """
        try:
            yield self._opened()
        except Unusable:
            raise
        except Timeout:
            raise Busy("another process holds the cache locked") from None
        except (sqlite3.Error, OSError) as error:
            self._fail(error, damaged=is_damage(error))

    def close(self) -> None:
        """Close the database; the next use opens it again."""
        cache, self._cache, self._file = self._cache, None, None
        if cache is not None:
            with suppress(sqlite3.Error):
                cache.disk.discard_written()
                cache.close()

    def clear(self) -> None:
        """Remove everything, at once for every process that uses the folder."""
        self.close()
        with suppress(OSError):
            self._move_aside("cleared")
        remove_aside(self.folder)

    def warn(self, kind: str, what: str, error: object = None) -> None:
        """Log a warning, once of its kind."""
        if kind not in self._warned:
            self._warned.add(kind)
            why = {} if error is None else {"error": str(error)}
            _log.warning(what, folder=str(self.folder), **why)

    def _opened(self) -> SafeCache:
        if self._cache is not None:
            if self._file == identity(self.folder / FILE):
                return self._cache
            self.close()
        if clock.monotonic() < self._not_before:
            raise Unusable("left alone for a moment")
        own_folder(self.folder)
        own_file(self.folder / FILE)
        self._file = identity(self.folder / FILE)
        try:
            self._cache = open_cache(self.folder, **self._settings)
        except (ValueError, TypeError, KeyError) as error:  # diskcache reads odd settings
            raise sqlite3.DatabaseError(str(error)) from error
        self._file = identity(self.folder / FILE)
        if self._verify:
            self._cache.verify()
        return self._cache

    def _fail(self, error: Exception, *, damaged: bool) -> NoReturn:
        """Close after an error, put the folder aside if the file is to blame, and say so."""
        was = self._file
        self.close()
        if damaged and was == identity(self.folder / FILE):
            self.warn("damaged", "the cache was damaged and starts empty", error)
            with suppress(OSError):
                self._keep_only(self._move_aside("damaged"))
        elif not damaged:
            self._not_before = clock.monotonic() + self._pause
            state = "is read-only" if is_read_only(error) else "cannot be used"
            self.warn("refused", f"the cache {state}, everything is a miss", error)
        raise Unusable(str(error)) from error

    def _move_aside(self, why: str) -> Path:
        """Rename the folder, with all in it, in one step."""
        return self.folder.rename(self.folder.with_name(f"{self.folder.name}.{why}-{token_hex(4)}"))

    def _keep_only(self, newest: Path) -> None:
        """Remove what was put aside before."""
        for old in newest.parent.glob(f"{self.folder.name}.damaged-*"):
            if old != newest:
                shutil.rmtree(old, ignore_errors=True)


def identity(path: Path) -> tuple[int, int] | None:
    """Which file a path leads to; None for none."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return about.st_dev, about.st_ino


def is_damage(error: Exception) -> bool:
    """Whether an error says that the file itself is broken."""
    if isinstance(error.__context__, sqlite3.Error):  # the rollback failed too
        error = error.__context__
    if not isinstance(error, sqlite3.Error) or isinstance(error, sqlite3.ProgrammingError):
        return isinstance(error, Refused)
    return primary_code(error) not in _OF_THE_MACHINE


def is_read_only(error: Exception) -> bool:
    """Whether an error says that nothing may be written there."""
    if isinstance(error, sqlite3.Error):
        return primary_code(error) == sqlite3.SQLITE_READONLY
    return isinstance(error, OSError) and error.errno == errno.EROFS


def remove_aside(folder: Path) -> None:
    """Remove what was put aside of a database because it was damaged or cleared."""
    for why in ("cleared", "damaged"):
        for old in folder.parent.glob(f"{folder.name}.{why}-*"):
            shutil.rmtree(old, ignore_errors=True)
