"""The single values inside a larger one, each with the path that leads to it."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

LEAVES = 400
"""Leaves of one value that are remembered."""

DEPTH = 12
"""Levels of a value that are looked at."""

JSON_LIMIT = 200_000
"""Characters of a text that are read as JSON."""

LONGEST = 120
"""Characters of a text that may be an argument elsewhere."""

_DIGIT = re.compile(r"\d")


class Leaf(NamedTuple):
    """A single value inside a larger one.

    Attributes:
        path: The way to it, every element and every key that is data as ``*``: ``flights.*.date``.
        at: What stands for each ``*``, as positions among their siblings.
        value: Text, number, truth value or None.
    """

    path: str
    at: tuple[int, ...]
    value: Any


def leaves(value: Any) -> list[Leaf]:
    """The first `LEAVES` leaves of a value, in its order; text that is JSON is read as such."""
    found: list[Leaf] = []
    _collect(_parsed(value), "", (), DEPTH, found)
    return found


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "[") and len(value) <= JSON_LIMIT:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _collect(value: Any, path: str, at: tuple[int, ...], depth: int, found: list[Leaf]) -> None:
    """Add the leaves of a value to those found; `depth` more levels are looked at."""
    if depth < 0 or len(found) >= LEAVES:
        return
    if isinstance(value, dict):
        for place, (key, item) in enumerate(value.items()):
            if _is_data(key):
                found.append(Leaf(_below(path, "*key"), (*at, place), key))
                _collect(item, _below(path, "*"), (*at, place), depth - 1, found)
            else:
                _collect(item, _below(path, key), at, depth - 1, found)
            if len(found) >= LEAVES:
                return
    elif isinstance(value, list | tuple):
        below = _below(path, "*")
        for place, item in enumerate(value[:LEAVES]):
            _collect(item, below, (*at, place), depth - 1, found)
    elif _is_single(value):
        found.append(Leaf(path, at, value))


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _is_single(value: Any) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= LONGEST
    return value is None or isinstance(value, int | float)


def _is_data(key: Any) -> bool:
    """Whether a key is a value of its own (an id, a date) and not the name of a field."""
    return not isinstance(key, str) or _DIGIT.search(key) is not None
