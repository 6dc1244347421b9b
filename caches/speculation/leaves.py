"""The single values inside a larger one, each with the path that leads to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

LEAVES = 400
"""Leaves of one value that are remembered."""

DEPTH = 12
"""Levels of a value that are looked at."""

JSON_LIMIT = 200_000
"""Characters of a text that are read as JSON."""

LONGEST = 120
"""Characters of a text that may be an argument elsewhere."""


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
    return list(islice(_walk(_parsed(value), (), ()), LEAVES))


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "[") and len(value) <= JSON_LIMIT:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _walk(value: Any, path: tuple[str, ...], at: tuple[int, ...]) -> Iterator[Leaf]:
    if len(path) > DEPTH:
        return
    if isinstance(value, dict):
        for place, (key, item) in enumerate(value.items()):
            if _is_data(key):
                yield Leaf(".".join((*path, "*key")), (*at, place), key)
                yield from _walk(item, (*path, "*"), (*at, place))
            else:
                yield from _walk(item, (*path, key), at)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _walk(item, (*path, "*"), (*at, place))
    elif _is_single(value):
        yield Leaf(".".join(path), at, value)


def _is_single(value: Any) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= LONGEST
    return value is None or isinstance(value, int | float)


def _is_data(key: Any) -> bool:
    """Whether a key is a value of its own (an id, a date) and not the name of a field."""
    return not isinstance(key, str) or any(map(str.isdigit, key))
