"""The journal's database: one file that processes share, one connection, used from one thread."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from agentflow import clock
from agentflow.errors import DefinitionError, JournalError
from agentflow.executor.journal import retention
from agentflow.executor.journal.connection import Connection
from agentflow.executor.journal.rows import (
    COLUMNS,
    NEEDED,
    VERDICTS,
    Answer,
    Batch,
    RunRow,
    from_columns,
    pack,
    to_answer,
    to_columns,
    unpack,
)
from agentflow.wording import nearest

Durability = Literal["process", "power"]

_SELECT = f"SELECT {', '.join(COLUMNS)}, owner FROM runs"


def digest_of(data: bytes) -> str:
    """The name of a large value, by its content."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class _Place(NamedTuple):
    """Where a run is in the database, and whose it is."""

    number: int
    state: str
    rows: int
    owner: str


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
                which is unknown, which another process goes on with, or which SQLite cannot say.
        """
        with self._file.write() as db:
            self._owner.appear()
            for run in batch.all_runs():
                try:
                    self._write_run(db, batch, run)
                except (UnicodeEncodeError, OverflowError) as error:
                    raise self._file.error(f"run {run!r} cannot be kept: {error}", run) from error
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
            name: Its id, the beginning of its id if no other begins so, or ``last``: the newest.

        Raises:
            JournalError: There is none, or there are several.
        """
        with self._file.read() as db:
            found = db.execute(f"{_SELECT} WHERE id = ?", (name,)).fetchall()
            if not found and name == "last":
                found = db.execute(f"{_SELECT} ORDER BY number DESC LIMIT 1").fetchall()
            if not found:
                like = "WHERE substr(id, 1, ?) = ? ORDER BY number DESC LIMIT 6"
                beginning = (len(name), name)
                found = db.execute(f"{_SELECT} {like}", beginning).fetchall() if name else []
            if len(found) != 1:
                raise self._unknown(db, name, [columns[0] for columns in found])
            return self._row(found[0])

    def records(self, run: str) -> Iterator[dict[str, Any]]:
        """The records of a run, in order; a large value stays a reference.

        Raises:
            JournalError: One is missing or damaged; all before it have been given.
        """
        with self._file.read() as db:
            place = self._place(db, run)
        for seq in range(place.rows):
            with self._file.read() as db:
                query = "SELECT lines, checksum FROM records WHERE run = ? AND seq = ?"
                row = db.execute(query, (place.number, seq)).fetchone() or (None, None)
            try:
                yield from unpack(*row)
            except ValueError as error:
                raise self._file.error(
                    f"the records of run {run} are damaged (row {seq + 1} of {place.rows}): {error}",
                    run,
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
            place = self._place(db, run)
            if place.owner != self._owner.name and self._goes_on(place):
                raise self._file.error(f"run {run} is going on in another process", run)
            db.execute(
                "UPDATE runs SET state = 'running', owner = ?, updated = ? WHERE number = ?",
                (self._owner.name, self._wall(), place.number),
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
            DefinitionError: There is no such verdict.
        """
        if verdict not in VERDICTS:
            raise DefinitionError(f"a verdict is one of {', '.join(VERDICTS)}, not {verdict!r}")
        with self._file.write() as db:
            number = self._place(db, run).number
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
            return self._answers(db, self._place(db, run).number)

    def prune(self, *, keep: float | None, max_bytes: int | None, now: float) -> int:
        """Remove ended runs, the oldest first; gives how many.

        Args:
            keep: Seconds after which they go, or None for never.
            max_bytes: How much all runs may take, or None for any amount.
            now: Wall time.
        """
        removed, step = 0, retention.PORTION
        while step == retention.PORTION:
            step = self.prune_some(keep=keep, max_bytes=max_bytes, now=now)
            removed += step
        return removed

    def prune_some(self, *, keep: float | None, max_bytes: int | None, now: float) -> int:
        """The same for one portion; fewer than `retention.PORTION` were the last."""
        before = None if keep is None else now - keep
        with self._file.write() as db:
            removed = retention.prune_some(db, before=before, max_bytes=max_bytes)
        if removed:
            self._shrink()
        if removed < retention.PORTION:
            retention.sweep(self._owner, self._file.owners, now=now)
        return removed

    def delete(self, run: str) -> None:
        """Remove a run and all that only it refers to.

        Raises:
            JournalError: There is no such run, or it is going on.
        """
        with self._file.write() as db:
            place = self._place(db, run)
            if self._goes_on(place):
                raise self._file.error(f"run {run} is going on: cancel it first", run)
            retention.remove(db, place.number)
        self._shrink()

    def check(self) -> list[str]:
        """What is damaged, in words; empty if nothing is. Reads everything."""
        try:
            with self._file.read() as db:
                found = [text for (text,) in db.execute("PRAGMA integrity_check") if text != "ok"]
                runs = [str(run) for (run,) in db.execute("SELECT id FROM runs")]
                digests = [str(name) for (name,) in db.execute("SELECT DISTINCT digest FROM refs")]
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
        if (place := self._find(db, run)) is None:
            place = self._insert(db, run, columns)
        if place.owner != self._owner.name:
            raise self._file.error(f"run {run} is gone on with by another process", run)
        rows, size = place.rows, 0
        for data, checksum in pack(batch.lines.get(run, ())):
            row = (place.number, rows, data, checksum)
            db.execute("INSERT INTO records VALUES (?, ?, ?, ?)", row)
            rows, size = rows + 1, size + len(data)
        columns = {"updated": self._wall(), "rows": rows, **columns}
        changes = ", ".join(f"{name} = ?" for name in columns)
        db.execute(
            f"UPDATE runs SET size = size + ?, {changes} WHERE number = ?",
            (size, *columns.values(), place.number),
        )

    def _insert(
        self, db: sqlite3.Connection, run: str, columns: Mapping[str, str | int | float]
    ) -> _Place:
        if missing := [name for name in NEEDED if name not in columns]:
            raise self._file.error(
                f"run {run} is not in the journal, or no more (it would need {missing[0]!r})", run
            )
        cursor = db.execute(
            "INSERT INTO runs (id, name, kind, target, began, updated, owner)"
            " VALUES (?, ?, ?, ?, ?, 0, ?)",
            (run, *(columns[name] for name in NEEDED), self._owner.name),
        )
        return _Place(cursor.lastrowid or 0, "running", 0, self._owner.name)

    def _row(self, columns: tuple[Any, ...]) -> RunRow:
        """A run as it is now: one whose process died was interrupted."""
        values = dict(zip((*COLUMNS, "owner"), columns, strict=True))
        if values["state"] == "running" and not self._owner.lives(str(values["owner"])):
            values["state"] = "interrupted"
        return from_columns(values)

    def _place(self, db: sqlite3.Connection, run: str) -> _Place:
        if (place := self._find(db, run)) is None:
            raise self._unknown(db, run)
        return place

    def _find(self, db: sqlite3.Connection, run: str) -> _Place | None:
        query = "SELECT number, state, rows, owner FROM runs WHERE id = ?"
        if (found := db.execute(query, (run,)).fetchone()) is None:
            return None
        place = _Place(*found)
        if not isinstance(place.rows, int) or place.rows < 0:
            raise self._file.error(
                f"the row of run {run} is damaged: it has {place.rows!r} rows", run
            )
        return place

    def _goes_on(self, place: _Place) -> bool:
        return place.state == "running" and self._owner.lives(str(place.owner))

    def _answers(self, db: sqlite3.Connection, number: int) -> dict[str, Answer]:
        query = "SELECT question, verdict, value, by, at FROM answers WHERE run = ?"
        try:
            return {str(row[0]): to_answer(*row[1:]) for row in db.execute(query, (number,))}
        except ValueError as error:
            raise self._file.error(f"an answer is damaged: {error}") from error

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
            return self._file.error(
                f"several runs begin with {name!r}: {', '.join(map(str, several))}"
            )
        query = "SELECT id FROM runs ORDER BY number DESC LIMIT 1000"
        known = [str(run) for (run,) in db.execute(query)]
        there_are = nearest(name, known) if known else "It has no runs yet."
        return self._file.error(f"there is no run {name!r}. {there_are}", name)


def _complaint(read: Callable[[], object]) -> str:
    """What is wrong with something that is read; empty if nothing is."""
    try:
        read()
    except JournalError as error:
        return str(error)
    return ""
