"""The rows of shared epochs: a count for each path, and the writes that have not ended."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping

from agentflow.caches.disk import SafeCache
from agentflow.caches.epochs import Count
from agentflow.tools.effects import Resource

OPEN = "open "
"""What the key of a write that has not ended starts with; its owner and a number follow."""

Counts = dict[Resource, Count]
Writes = dict[str, frozenset[Resource]]
"""The paths of writes, by the keys of their rows."""


def read_counts(cache: SafeCache, paths: Iterable[Resource]) -> Counts:
    """The counts of paths, those that have any."""
    rows = cache.read_rows([to_key(path) for path in paths])
    return {to_path(key): to_count(row) for key, row in rows.items()}


def write_counts(cache: SafeCache, before: Mapping[Resource, Count], after: Counts) -> None:
    """Write what has changed."""
    for path in before.keys() - after.keys():
        cache.delete(to_key(path))
    for path, count in after.items():
        if before.get(path) != count:
            cache.set(to_key(path), json.dumps(count).encode())


def oldest_paths(cache: SafeCache, number: int) -> list[Resource]:
    """The paths of the first rows, without the root."""
    keys = (key for _, key in cache.rows_after(0, number))
    return [path for key in keys if key.startswith("[") and (path := to_path(key))]


def read_open(cache: SafeCache) -> Writes:
    """The writes that have not ended."""
    rows = cache.read_rows_from(OPEN)
    return {key: frozenset(to_paths(row)) for key, row in rows.items()}


def write_open(cache: SafeCache, writes: Mapping[str, frozenset[Resource] | None]) -> None:
    """Note that writes have begun, or, where there are no paths, that they have ended."""
    for key, paths in writes.items():
        if paths is None:
            cache.delete(key)
        else:
            cache.set(key, json.dumps(sorted(paths)).encode())


def owner_of(name: str) -> str:
    """Whose a write is, by the key of its row."""
    return name.split(" ")[1]


def to_key(path: Resource) -> str:
    """The key of a path's row."""
    return json.dumps(path)


def to_path(key: str) -> Resource:
    """The path of a row's key.

    Raises:
        sqlite3.DatabaseError: It is none; the database is damaged.
    """
    [path] = to_paths(f"[{key}]".encode())
    return path


def to_paths(row: bytes) -> list[Resource]:
    """The paths in a row.

    Raises:
        sqlite3.DatabaseError: They are none; the database is damaged.
    """
    try:
        return [tuple(map(str, path)) for path in json.loads(row)]
    except (ValueError, TypeError, RecursionError) as error:
        raise sqlite3.DatabaseError(f"not paths: {row[:32]!r}") from error


def to_count(row: bytes) -> Count:
    """The count in a row.

    Raises:
        sqlite3.DatabaseError: It is none; the database is damaged.
    """
    try:
        own, below = json.loads(row)
        return int(own), int(below)
    except (ValueError, TypeError, RecursionError) as error:
        raise sqlite3.DatabaseError(f"not a count: {row[:32]!r}") from error
