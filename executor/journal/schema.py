"""The file of a journal: made whole or not at all, checked when opened, brought up to date."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from secrets import token_hex

from agentflow._private import check_owner
from agentflow.errors import JournalError
from agentflow.executor.journal.rows import LARGEST

APPLICATION = int.from_bytes(b"agfl", "big")
"""What tells a journal from the databases of other programs."""

PATIENCE = 5.0
"""Seconds to wait for a lock that another process holds."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE runs (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            name TEXT NOT NULL,
            kind TEXT NOT NULL,
            target TEXT NOT NULL,
            state TEXT NOT NULL DEFAULT 'running',
            began REAL NOT NULL,
            updated REAL NOT NULL,
            seconds REAL NOT NULL DEFAULT 0,
            usd TEXT NOT NULL DEFAULT '0',
            tokens INTEGER NOT NULL DEFAULT 0,
            asks TEXT NOT NULL DEFAULT '[]',
            note TEXT NOT NULL DEFAULT '',
            size INTEGER NOT NULL DEFAULT 0,
            rows INTEGER NOT NULL DEFAULT 0,
            owner TEXT NOT NULL
        )""",
        """CREATE INDEX runs_ended ON runs (updated)
            WHERE state IN ('finished', 'failed', 'cancelled')""",
        """CREATE TABLE records (
            run INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            lines BLOB NOT NULL,
            checksum INTEGER NOT NULL,
            UNIQUE (run, seq)
        )""",
        "CREATE TABLE blobs (digest TEXT PRIMARY KEY, data BLOB NOT NULL)",
        """CREATE TABLE refs (
            run INTEGER NOT NULL,
            digest TEXT NOT NULL,
            PRIMARY KEY (run, digest)
        ) WITHOUT ROWID""",
        "CREATE INDEX refs_digest ON refs (digest)",
        """CREATE TABLE answers (
            run INTEGER NOT NULL,
            question TEXT NOT NULL,
            verdict TEXT NOT NULL,
            value TEXT,
            by TEXT NOT NULL,
            at REAL NOT NULL,
            PRIMARY KEY (run, question)
        ) WITHOUT ROWID""",
    ),
)
"""The statements that lead from each version of the schema to the next, from nothing on."""

_SETTINGS = (
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "mmap_size = 0",  # of a file that somebody truncates it would be a SIGBUS
    f"journal_size_limit = {4 << 20}",
)


def connect(path: Path, *, power: bool) -> sqlite3.Connection:
    """Open a journal that is there, and bring it to the newest schema.

    Args:
        path: The file.
        power: Whether what is committed survives a power cut.

    Raises:
        JournalError: It is not a journal, or of a newer version.
        sqlite3.Error: SQLite cannot open it.
        OSError: Likewise.
    """
    _check_file(path)
    uri = f"{path.absolute().as_uri()}?mode=rw"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=PATIENCE)
    try:
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST)
        db.text_factory = _text
        _set(db, *_SETTINGS, f"synchronous = {'FULL' if power else 'NORMAL'}")
        _set(db, f"fullfsync = {'ON' if power else 'OFF'}")
        if _version(db, path) < len(MIGRATIONS):
            _migrate(db)
    except BaseException:
        db.close()
        raise
    return db


def create(path: Path) -> None:
    """Make an empty journal, unless somebody else just did.

    It appears under its name when it is complete, readable by its user alone.

    Raises:
        sqlite3.Error: It cannot be made.
        OSError: Likewise.
    """
    draft = path.with_name(f"{path.name}.{token_hex(4)}.new")
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with closing(sqlite3.connect(draft, isolation_level=None)) as db:
            _set(db, "auto_vacuum = INCREMENTAL")  # only while nothing has been written
            _set(db, f"application_id = {APPLICATION}", "journal_mode = WAL")
            _migrate(db)
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.unlink(draft)
    _sync_folder(path.parent)


def _check_file(path: Path) -> None:
    """Refuse a file that is not the user's or holds nothing; keep others from reading it."""
    try:
        files = [check_owner(path.with_name(f"{path.name}{end}")) for end in ("", "-wal", "-shm")]
    except PermissionError as error:
        raise JournalError(f"the journal {error}", path=str(path)) from None
    about = files[0]
    if about is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if about.st_nlink > 1:  # who goes on with a run is known by locks beside the file's name
        raise JournalError(
            f"the journal {path} has another name as well: remove one of the two", path=str(path)
        )
    if about.st_size == 0:
        raise JournalError(
            f"{path} is empty, so it is no journal: remove it and a new one begins", path=str(path)
        )
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.chmod(f"{path}{suffix}", 0o600)


def _version(db: sqlite3.Connection, path: Path) -> int:
    """The version of the schema.

    Raises:
        JournalError: It is not one of ours.
    """
    if _get(db, "application_id") != APPLICATION:
        raise JournalError(
            f"{path} is a database of another program: name another file", path=str(path)
        )
    version = _get(db, "user_version")
    if version > len(MIGRATIONS):
        raise JournalError(
            f"the journal {path} was written by a newer version of agentflow (format {version}, "
            f"this one reads up to {len(MIGRATIONS)}): update agentflow, or name another file",
            path=str(path),
        )
    return version


def _migrate(db: sqlite3.Connection) -> None:
    """Bring the schema up to date, in one transaction."""
    db.execute("BEGIN IMMEDIATE")
    try:
        steps: Sequence[tuple[str, ...]] = MIGRATIONS[_get(db, "user_version") :]
        for statement in (statement for step in steps for statement in step):
            db.execute(statement)
        _set(db, f"user_version = {len(MIGRATIONS)}")
        db.execute("COMMIT")
    except BaseException:
        db.rollback()
        raise


def _get(db: sqlite3.Connection, pragma: str) -> int:
    return int(db.execute(f"PRAGMA {pragma}").fetchone()[0])


def _set(db: sqlite3.Connection, *pragmas: str) -> None:
    for pragma in pragmas:
        db.execute(f"PRAGMA {pragma}").fetchall()


def _text(data: bytes) -> str:
    """Text of a row; damage shows, and hides nothing else."""
    return data.decode("utf-8", "replace")


def _sync_folder(folder: Path) -> None:
    """Let the name of a new file survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
