"""What a journal keeps, as Python sees it and as SQLite does. Nothing in it is ever unpickled."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentflow.errors import DefinitionError

ENDED = ("finished", "failed", "cancelled")
"""States of a run that will not go on."""

VERDICTS = ("approve", "deny", "done")
"""What can be answered to a question."""

LARGEST_RECORD = 16 << 20
"""Characters of a record that is kept."""

LARGEST = 256 << 20
"""Bytes of a row that is read."""

ROW = 1 << 20
"""Characters in a row of records; a larger record has one for itself."""

NEEDED = ("name", "kind", "target", "began")
"""Columns that the first word of a run has to bring."""

SETTABLE = frozenset([*NEEDED, "state", "updated", "seconds", "usd", "tokens", "asks", "note"])

_TYPES: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "name": str,
    "kind": str,
    "target": dict,
    "state": str,
    "began": (float, int),
    "updated": (float, int),
    "seconds": (float, int),
    "usd": str,
    "tokens": int,
    "asks": list,
    "note": str,
    "size": int,
}
COLUMNS = tuple(_TYPES)


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run, as a list of runs shows it.

    Attributes:
        id: Of the run.
        name: Of what it runs.
        kind: ``workflow``, ``plan`` or ``task``.
        target: How to find what it runs again.
        state: ``running``, ``paused``, ``finished``, ``failed`` or ``cancelled``;
            ``interrupted`` when its process died, ``damaged`` when the row cannot be read.
        began: Wall time, in seconds since 1970.
        updated: Wall time of the last word of it.
        seconds: Of running, without pauses.
        usd: Spent, a decimal number.
        tokens: Spent.
        asks: Questions that are open.
        note: The head of its answer or of its error, one line.
        size: Bytes of its records.
    """

    id: str
    name: str
    kind: str
    target: dict[str, Any]
    state: str
    began: float
    updated: float
    seconds: float
    usd: str
    tokens: int
    asks: tuple[dict[str, Any], ...]
    note: str
    size: int

    @property
    def tenant(self) -> str:
        """Name of the tenant whose run it is, or empty."""
        return str(self.target.get("tenant", ""))


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody said to a question of a run.

    Attributes:
        verdict: ``approve``, ``deny`` or ``done``.
        value: JSON text: for ``done`` of the value that the call had, else of why; or None.
        by: Who said it.
        at: Wall time, in seconds since 1970.
    """

    verdict: str
    value: str | None
    by: str
    at: float


@dataclass(slots=True)
class Batch:
    """What is written in one transaction.

    Attributes:
        lines: Records by run, in order: JSON texts of one line.
        runs: Columns to set, by run; the first word of a run brings all of `NEEDED`.
        blobs: Large values by digest.
        refs: Runs, each with the digest of a value that it refers to.
    """

    lines: dict[str, list[str]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    refs: list[tuple[str, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lines or self.runs or self.blobs or self.refs)

    def all_runs(self) -> list[str]:
        """The runs that it says something of."""
        return list(dict.fromkeys([*self.runs, *self.lines, *(run for run, _ in self.refs)]))

    def size(self) -> int:
        """Characters and bytes that wait to be written."""
        lines = sum(len(line) for lines in self.lines.values() for line in lines)
        return lines + sum(map(len, self.blobs.values()))

    def add(self, later: Batch) -> None:
        """Append what came later."""
        for run, lines in later.lines.items():
            self.lines.setdefault(run, []).extend(lines)
        for run, columns in later.runs.items():
            self.runs.setdefault(run, {}).update(columns)
        self.blobs.update(later.blobs)
        self.refs.extend(later.refs)

    def forget(self, run: str) -> None:
        """Leave a run out."""
        self.lines.pop(run, None)
        self.runs.pop(run, None)
        self.refs = [ref for ref in self.refs if ref[0] != run]
        kept = {digest for _, digest in self.refs}
        self.blobs = {digest: data for digest, data in self.blobs.items() if digest in kept}


def to_columns(values: Mapping[str, Any]) -> dict[str, str | int | float]:
    """Columns of a run as SQLite takes them; columns that are already so stay as they are.

    Raises:
        DefinitionError: There is no such column, or JSON cannot say the value.
    """
    if unknown := values.keys() - SETTABLE:
        raise DefinitionError(f"a run has no column {min(unknown)!r}: {', '.join(COLUMNS)}")
    try:
        return {name: _to_sql(value) for name, value in values.items()}
    except (TypeError, ValueError, RecursionError) as error:
        raise DefinitionError(f"a column of a run is no JSON: {error}") from error


def _to_sql(value: Any) -> str | int | float:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()  # half a pair is no UTF-8
    if isinstance(value, int | float):
        return value
    return json.dumps(value)


def to_run(values: Mapping[str, Any]) -> RunRow:
    """A run from plain data.

    Raises:
        ValueError: A field is missing, or not of its type.
    """
    for name, kind in _TYPES.items():
        if not _fits(values.get(name), kind):
            raise ValueError(f"{name} is {str(values.get(name))[:40]!r}")
    return RunRow(**{name: values[name] for name in COLUMNS} | {"asks": tuple(values["asks"])})


def _fits(value: Any, kind: type | tuple[type, ...]) -> bool:
    if not isinstance(value, kind) or isinstance(value, bool):
        return False
    if isinstance(value, list):
        return all(isinstance(item, dict) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


def from_columns(values: Mapping[str, Any]) -> RunRow:
    """A run from its columns; one that cannot be read says so."""
    try:
        decoded = {name: json.loads(values[name]) for name in ("target", "asks")}
        return to_run({**values, **decoded})
    except (TypeError, ValueError, RecursionError) as error:
        began = values["began"] if _fits(values["began"], float) else 0.0
        note = f"its row is damaged: {error}"
        run = str(values["id"])
        return RunRow(run, "", "", {}, "damaged", began, began, 0.0, "0", 0, (), note, 0)


def to_answer(verdict: Any, value: Any, by: Any, at: Any) -> Answer:
    """An answer from its columns.

    Raises:
        ValueError: One is not of its type.
    """
    if verdict not in VERDICTS or not isinstance(value, str | None):
        raise ValueError(f"{verdict!r}, {value!r}")
    return Answer(verdict, value, str(by), at if isinstance(at, float) else 0.0)


def pack(lines: Iterable[str]) -> Iterator[tuple[bytes, int]]:
    """Records as rows: their bytes and a checksum."""
    part: list[str] = []
    size = 0
    for line in lines:
        size += len(line)
        if part and size > ROW:
            yield _packed(part)
            part, size = [], len(line)
        part.append(line)
    if part:
        yield _packed(part)


def _packed(part: list[str]) -> tuple[bytes, int]:
    # Half of a surrogate pair stands inside a JSON string, where \udXXX says the same.
    data = "\n".join(part).encode("utf-8", "backslashreplace")
    return data, zlib.crc32(data)


def unpack(data: Any, checksum: Any) -> Iterator[dict[str, Any]]:
    """The records of a row, in order.

    Raises:
        ValueError: The row is damaged; all records before the damage have been given.
    """
    if not isinstance(data, bytes) or zlib.crc32(data) != checksum:
        raise ValueError("the checksum is another one")
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            yield read_object(line)
        except ValueError as error:
            raise ValueError(f"record {number}: {error}") from error


def read_object(line: bytes) -> dict[str, Any]:
    """A JSON object from a line.

    Raises:
        ValueError: It is none.
    """
    try:
        value = json.loads(line.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if type(value) is dict:
        return value
    raise ValueError(f"it is a {type(value).__name__}, not an object")
