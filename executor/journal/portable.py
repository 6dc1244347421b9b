"""One run as a file of its own: JSON lines that can be read anywhere, and kept with a test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from agentflow.errors import JournalError
from agentflow.executor.journal.rows import LARGEST, RunRow, read_object, to_run
from agentflow.executor.journal.store import JournalStore

VERSION = 1
"""Of the format that is written, and the newest that is read."""

LARGEST_FILE = 1 << 30
"""Bytes of a file that is read."""

BLOB, INLINE = "$blob", "$json"
"""How a record refers to a large value, and how it stands in its record."""


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run that was read from a file.

    Attributes:
        row: What is listed of it.
        records: What happened in it, in order, with large values in their places.
    """

    row: RunRow
    records: tuple[dict[str, Any], ...]


def export(store: JournalStore, run: str, file: TextIO) -> None:
    """Write a run as JSON lines: what is listed of it, then its records.

    Args:
        store: The journal.
        run: The id of the run, or a beginning of it.
        file: What to write to.

    Raises:
        JournalError: There is no such run, or its records are damaged.
    """
    row = store.run(run)
    records = list(store.records(row.id))
    head = {"agentflow": "run", "version": VERSION, "records": len(records), **asdict(row)}
    file.write(_line(store, row.id, head))
    for record in records:
        whole = {name: _inlined(store, value) for name, value in record.items()}
        file.write(_line(store, row.id, whole))


def load(path: str | Path) -> RecordedRun:
    """Read a run that was exported.

    Raises:
        JournalError: The file cannot be read, is none, is damaged, or is of a newer version; the
            line at fault is named.
    """
    try:
        with open(path, "rb") as file:
            objects = _objects(file)
            head = next(objects, {})
            row, records = _row(head), tuple(objects)
            if len(records) != head.get("records"):
                raise ValueError(f"{len(records)} records instead of {head.get('records')}")
            return RecordedRun(row, records)
    except OSError as error:
        raise JournalError(f"a recorded run cannot be read: {error}", path=str(path)) from error
    except ValueError as error:
        raise JournalError(f"{path}: {error}", path=str(path)) from error


def _objects(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """The objects in the lines of a file.

    Raises:
        ValueError: A line is none, or too large to be read; it is named.
    """
    left = LARGEST_FILE
    for number in count(1):
        line = file.readline(LARGEST + 1)
        if not line:
            return
        left -= len(line)
        if len(line) > LARGEST or left < 0:
            raise ValueError(f"line {number}: there is more than can be read")
        try:
            value = read_object(line)
        except ValueError as error:
            it = "it is no recorded run: " if number == 1 else ""
            raise ValueError(f"line {number}: {it}{error}") from error
        yield value


def _row(data: dict[str, Any]) -> RunRow:
    """What is listed of the run, from the first line."""
    version = data.get("version")
    if data.get("agentflow") != "run" or type(version) is not int:
        raise ValueError("line 1: it is no recorded run")
    if version > VERSION:
        raise ValueError(
            f"line 1: it is of a newer version of agentflow (format {version}, this one reads up "
            f"to {VERSION}): update agentflow"
        )
    try:
        return to_run(data)
    except ValueError as error:
        raise ValueError(f"line 1: {error}") from error


def _line(store: JournalStore, run: str, data: dict[str, Any]) -> str:
    try:
        return json.dumps(data, separators=(",", ":")) + "\n"
    except RecursionError as error:
        path = str(store.path)
        message = f"{path}: a record of run {run} is nested too deeply"
        raise JournalError(message, path=path, run=run) from error


def _inlined(store: JournalStore, value: Any) -> Any:
    """A value, or what it refers to."""
    if not (isinstance(value, dict) and value.keys() == {BLOB}):
        return value
    digest = str(value[BLOB])
    try:
        return {INLINE: json.loads(store.blob(digest))}
    except (ValueError, RecursionError) as error:
        path = str(store.path)
        raise JournalError(f"{path}: the value {digest} is no JSON: {error}", path=path) from error
