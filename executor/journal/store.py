"""The journal's database: one file that processes share, one connection, used from one thread."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from agentflow import clock
from agentflow.errors import JournalError
from agentflow.executor.journal import retention
from agentflow.executor.journal.connection import Connection
from agentflow.executor.journal.rows import (
    COLUMNS,
    NEEDED,
    Answer,
    Batch,
    RunRow,
    from_columns,
    pack,
    to_columns,
    unpack,
)
from agentflow.wording import nearest

Durability = Literal["process", "power"]

_SELECT = f"SELECT {', '.join(COLUMNS)}, owner FROM runs"


def digest_of(data: bytes) -> str:
    """The name of a large value, by its content."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class JournalStore:
    """Keeps what runs did.

    Args:
        path: The file; it and its folder are made when needed, for their user alone.
        durability: What committed words survive: the death of the ``process``, or also a
            ``power`` cut, which costs milliseconds a commit.
        wall: Wall time, in seconds since 1970.
    """

    def __init__(
        self,
        path: Path,
        *,
        durability: Durability = "process",
        wall: Callable[[], float] = clock.wall,
    ) -> None:
        self.path = Path(path).absolute()
        self._wall = wall
        self._file = Connection(self.path, power=durability == "power")
        self._owner = self._file.owner

    def open(self, *, create: bool = True) -> None:
        """Open the file, unless it is open; a store that is used opens by itself.

        Args:
            create: Whether one that is missing is made.

        Raises:
            JournalError: It cannot be opened, is none, is damaged, or is of a newer version.
        """
        self._file.open(create=create)

    def write(self, batch: Batch) -> None:
        """Keep a batch: all of it or nothing, in one transaction.

        Raises:
            JournalError: It could not be written; its `run` says so if that is due to one run,
                which is unknown or which another process goes on with.
        """
        with self._file.write() as db:
            self._owner.appear()
            for run in batch.all_runs():
                self._write_run(db, batch, run)
            db.executemany("INSERT OR IGNORE INTO blobs VALUES (?, ?)", batch.blobs.items())
            db.executemany(
                "INSERT OR IGNORE INTO refs SELECT number, ? FROM runs WHERE id = ?",
                [(digest, run) for run, digest in batch.refs],
            )

    def runs(self, *, states: Sequence[str] = (), limit: int | None = None) -> list[RunRow]:
        """The runs, newest first.

        Args:
            states: Only runs in one of these states.
            limit: The most runs.
        """
        found: list[RunRow] = []
        with self._file.read() as db:
            for columns in db.execute(f"{_SELECT} ORDER BY number DESC"):
                if limit is not None and len(found) >= limit:
                    break
                row = self._row(columns)
                if not states or row.state in states:
                    found.append(row)
        return found

    def run(self, name: str) -> RunRow:
        """One run.

        Args:
            name: Its id, or the beginning of its id if no other begins so.

        Raises:
            JournalError: There is none, or there are several.
        """
        with self._file.read() as db:
            found = db.execute(f"{_SELECT} WHERE id = ?", (name,)).fetchall()
            if not found:
                like = "WHERE substr(id, 1, length(?1)) = ?1 ORDER BY number DESC LIMIT 6"
                found = db.execute(f"{_SELECT} {like}", (name,)).fetchall() if name else []
            if len(found) != 1:
                raise self._unknown(db, name, [columns[0] for columns in found])
            return self._row(found[0])

    def records(self, run: str) -> Iterator[dict[str, Any]]:
        """The records of a run, in order; a large value stays a reference.

        Raises:
            JournalError: One is missing or damaged; all before it have been given.
        """
        with self._file.read() as db:
            number, rows = self._numbers(db, run)
        for seq in range(rows):
            with self._file.read() as db:
                query = "SELECT lines, checksum FROM records WHERE run = ? AND seq = ?"
                row = db.execute(query, (number, seq)).fetchone() or (None, None)
            try:
                yield from unpack(*row)
            except ValueError as error:
                raise self._file.error(
                    f"the records of run {run} are damaged (row {seq + 1} of {rows}): {error}", run
                ) from error

    def blob(self, digest: str) -> bytes:
        """A large value.

        Raises:
            JournalError: It is missing or damaged.
        """
        with self._file.read() as db:
            row = db.execute("SELECT data FROM blobs WHERE digest = ?", (digest,)).fetchone()
        data = row[0] if row else None
        if not isinstance(data, bytes) or digest_of(data) != digest:
            raise self._file.error(f"the value {digest} is {'damaged' if row else 'missing'}")
        return data

    def claim(self, run: str) -> None:
        """Go on with a run in this process; of several that claim it one wins.

        Raises:
            JournalError: There is no such run, or another process is running it.
        """
        with self._file.write() as db:
            self._owner.appear()
            query = "SELECT state, owner FROM runs WHERE id = ?"
            state, owner = db.execute(query, (run,)).fetchone() or ("", "")
            if not state:
                raise self._unknown(db, run)
            if state == "running" and owner != self._owner.name and self._owner.lives(owner):
                raise self._file.error(f"run {run} is going on in another process", run)
            db.execute(
                "UPDATE runs SET state = 'running', owner = ?, updated = ? WHERE id = ?",
                (self._owner.name, self._wall(), run),
            )

    def answer(
        self,
        run: str,
        question: str,
        verdict: Literal["approve", "deny", "done"],
        value: str | None,
        by: str,
    ) -> None:
        """Answer a question of a run; the first answer stays.

        Raises:
            JournalError: There is no such run, or it was answered otherwise before.
        """
        with self._file.write() as db:
            number, _ = self._numbers(db, run)
            if (known := self._answers(db, number).get(question)) is None:
                row = (number, question, verdict, value, by, self._wall())
                db.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)", row)
            elif (known.verdict, known.value) != (verdict, value):
                raise self._file.error(
                    f"question {question} of run {run} was answered with {known.verdict!r} "
                    f"by {known.by} already",
                    run,
                )

    def answers(self, run: str) -> dict[str, Answer]:
        """The answers to the questions of a run, by question."""
        with self._file.read() as db:
            return self._answers(db, self._numbers(db, run)[0])

    def prune(self, *, keep: float | None, max_bytes: int | None, now: float) -> int:
        """Remove ended runs, the oldest first; gives how many.

        Args:
            keep: Seconds after which they go, or None for never.
            max_bytes: How much all runs may take, or None for any amount.
            now: Wall time.
        """
        before = None if keep is None else now - keep
        removed, step = 0, retention.PORTION
        while step == retention.PORTION:
            with self._file.write() as db:
                step = retention.prune_some(db, before=before, max_bytes=max_bytes)
            removed += step
        self._shrink()
        return removed

    def delete(self, run: str) -> None:
        """Remove a run and all that only it refers to.

        Raises:
            JournalError: There is no such run, or it is going on.
        """
        with self._file.write() as db:
            query = "SELECT number, state, owner FROM runs WHERE id = ?"
            number, state, owner = db.execute(query, (run,)).fetchone() or (None, "", "")
            if number is None:
                raise self._unknown(db, run)
            if state == "running" and self._owner.lives(owner):
                raise self._file.error(f"run {run} is going on: cancel it first", run)
            retention.remove(db, number)
        self._shrink()

    def check(self) -> list[str]:
        """What is damaged, in words; empty if nothing is. Reads everything."""
        try:
            with self._file.read() as db:
                found = [text for (text,) in db.execute("PRAGMA integrity_check") if text != "ok"]
                runs = [run for (run,) in db.execute("SELECT id FROM runs")]
                digests = [name for (name,) in db.execute("SELECT DISTINCT digest FROM refs")]
        except JournalError as error:
            return [str(error)]
        reads: list[Callable[[], object]] = [partial(self._read_through, run) for run in runs]
        reads += [partial(self.blob, digest) for digest in digests]
        return found + [text for read in reads if (text := _complaint(read))]

    def close(self) -> None:
        """Close the file and let other processes go on with its runs. It can be opened again."""
        self._file.close()
        self._owner.vanish()

    def _write_run(self, db: sqlite3.Connection, batch: Batch, run: str) -> None:
        columns = to_columns(batch.runs.get(run, {}))
        query = "SELECT number, rows, owner FROM runs WHERE id = ?"
        number, rows, owner = db.execute(query, (run,)).fetchone() or (None, 0, self._owner.name)
        if owner != self._owner.name:
            raise self._file.error(f"run {run} is gone on with by another process", run)
        if number is None:
            number = self._insert(db, run, columns)
        size = 0
        for seq, (data, checksum) in enumerate(pack(batch.lines.get(run, ())), rows):
            db.execute("INSERT INTO records VALUES (?, ?, ?, ?)", (number, seq, data, checksum))
            rows, size = seq + 1, size + len(data)
        columns = {"updated": self._wall(), "rows": rows, **columns}
        changes = ", ".join(f"{name} = ?" for name in columns)
        db.execute(
            f"UPDATE runs SET size = size + ?, {changes} WHERE number = ?",
            (size, *columns.values(), number),
        )

    def _insert(
        self, db: sqlite3.Connection, run: str, columns: dict[str, str | int | float]
    ) -> int:
        if missing := [name for name in NEEDED if name not in columns]:
            raise self._file.error(
                f"run {run} is not in the journal, or no more ({missing[0]})", run
            )
        cursor = db.execute(
            "INSERT INTO runs (id, name, kind, target, began, updated, owner)"
            " VALUES (?, ?, ?, ?, ?, 0, ?)",
            (run, *(columns[name] for name in NEEDED), self._owner.name),
        )
        return int(cursor.lastrowid or 0)

    def _row(self, columns: tuple[Any, ...]) -> RunRow:
        """A run as it is now: one whose process died was interrupted."""
        values = dict(zip((*COLUMNS, "owner"), columns, strict=True))
        if values["state"] == "running" and not self._owner.lives(str(values["owner"])):
            values["state"] = "interrupted"
        return from_columns(values)

    def _numbers(self, db: sqlite3.Connection, run: str) -> tuple[int, int]:
        """The number of a run, and of rows that hold its records."""
        row = db.execute("SELECT number, rows FROM runs WHERE id = ?", (run,)).fetchone()
        if row is None:
            raise self._unknown(db, run)
        number, rows = row
        return number, rows

    def _answers(self, db: sqlite3.Connection, number: int) -> dict[str, Answer]:
        query = "SELECT question, verdict, value, by, at FROM answers WHERE run = ?"
        return {question: Answer(*rest) for question, *rest in db.execute(query, (number,))}

    def _read_through(self, run: str) -> None:
        for _ in self.records(run):
            pass

    def _shrink(self) -> None:
        with self._file.read() as db:
            retention.shrink(db)

    def _unknown(
        self, db: sqlite3.Connection, name: str, several: Sequence[str] = ()
    ) -> JournalError:
        if several:
            return self._file.error(f"several runs begin with {name!r}: {', '.join(several)}")
        query = "SELECT id FROM runs ORDER BY number DESC LIMIT 1000"
        known = [run for (run,) in db.execute(query)]
        there_are = nearest(name, known) if known else "It has no runs yet."
        return self._file.error(f"there is no run {name!r}. {there_are}", name)


def _complaint(read: Callable[[], object]) -> str:
    """What is wrong with something that is read; empty if nothing is."""
    try:
        read()
    except JournalError as error:
        return str(error)
    return ""
