"""The one connection to a journal's file: what goes wrong with it is said in words."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agentflow._private import own_folder
from agentflow.caches.database import identity
from agentflow.caches.disk import primary_code
from agentflow.caches.owners import Owner
from agentflow.errors import JournalError
from agentflow.executor.journal import schema

_REMEDIES = {
    sqlite3.SQLITE_BUSY: "another process has kept it locked for too long: try again",
    sqlite3.SQLITE_FULL: "the disk is full: make room and go on",
    sqlite3.SQLITE_CORRUPT: "it is damaged: move it aside, and a new one begins",
    sqlite3.SQLITE_NOTADB: "it is no journal: move it aside, or name another file",
    sqlite3.SQLITE_READONLY: "it may not be written: name a file in a folder of your own",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: name a file in a folder of your own",
    sqlite3.SQLITE_IOERR: "the disk failed: see whether it has room and is whole",
}
"""What to do, by SQLite's result code."""


class Connection:
    """Opens a journal when it is used, and again when the file was replaced.

    Args:
        path: The file.
        power: Whether what is committed survives a power cut.

    Attributes:
        path: The file.
        owners: A folder beside it, where each process that writes has a lock.
        owner: This process among them.
    """

    def __init__(self, path: Path, *, power: bool) -> None:
        self.path = path
        self.owners = path.with_name(f"{path.name}.owners")
        self.owner = Owner(self.owners)
        self._power = power
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # the one that is open, or was last

    def open(self, *, create: bool = True) -> None:
        """Open the file unless it is open, and make it if `create` says so.

        Raises:
            JournalError: That is not possible.
        """
        file = identity(self.path)
        if self._db is not None and self._file == file:
            return
        if file != self._file:
            self.owner.vanish()  # its lock is beside the file that was here before
        self.close()
        with self._in_words("opened"):
            if not self.path.exists():
                self._create(wanted=create)
            own_folder(self.owners)
            self._db = schema.connect(self.path, power=self._power)
            self._file = identity(self.path)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Use the connection for reading.

        Raises:
            JournalError: The journal cannot be opened or read.
        """
        with self._used("read") as db:
            yield db

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Use the connection for one transaction: all of it is kept, or nothing.

        Raises:
            JournalError: The journal cannot be opened or written.
        """
        with self._used("written") as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    db.rollback()
                raise

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.OperationalError):
                db.close()

    def error(self, message: str, run: str = "") -> JournalError:
        """An error that names the file."""
        return JournalError(f"{self.path}: {message}", path=str(self.path), run=run)

    def _create(self, *, wanted: bool) -> None:
        if not wanted:
            raise self.error("there is no journal yet: it begins with the first run that is kept")
        own_folder(self.owners)
        # Whoever makes the file does so before its log: this order cannot mistake a new one.
        if self.path.with_name(f"{self.path.name}-wal").exists() and not self.path.exists():
            raise self.error("the log of a removed journal is left (-wal): remove it too")
        schema.create(self.path)

    @contextmanager
    def _used(self, how: str) -> Iterator[sqlite3.Connection]:
        self.open()
        assert self._db is not None  # it was just opened
        with self._in_words(how):
            yield self._db

    @contextmanager
    def _in_words(self, how: str) -> Iterator[None]:
        """Turn errors of SQLite and of the system into ours; after most the file is reopened."""
        try:
            yield
        except UnicodeEncodeError as error:
            raise self.error(f"there is nothing by a name that is no text: {error}") from error
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
            code = _code(error)
            if code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL):
                self.close()
            remedy = _REMEDIES.get(code, "name a file in a folder of your own")
            raise self.error(f"the journal cannot be {how} ({error}); {remedy}") from error


def _code(error: sqlite3.Error | OSError | UnicodeDecodeError) -> int:
    """The result code of SQLite, also for what the system says; 0 for anything else."""
    if isinstance(error, sqlite3.Error):
        return primary_code(error) or 0
    if isinstance(error, UnicodeDecodeError):  # SQLite quotes what is damaged
        return sqlite3.SQLITE_CORRUPT
    return sqlite3.SQLITE_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else 0
