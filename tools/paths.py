"""Paths into values: ``$1.hits[0].url`` and ``[*]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, TypeAlias


class Star(Enum):
    """The path step ``[*]``: every element of a list."""

    ALL = "*"

    def __repr__(self) -> str:
        return "ALL"


ALL = Star.ALL

PathStep: TypeAlias = "str | int | Star"
"""A field or key (text), an index (negative counts from the end), or `ALL`."""


def resolve(value: Any, path: Sequence[PathStep]) -> Any:
    """Follow a path into a value.

    A name is a key of a mapping, else an attribute without a leading underscore; ``[*]``
    applies the rest of the path to every element.

    Raises:
        LookupError: The path does not lead anywhere; the text says where it ends.
    """
    for position, step in enumerate(path):
        if step is ALL:
            rest = path[position + 1 :]
            return [resolve(item, rest) for item in _elements(value)]
        value = _step(value, step)
    return value


def _elements(value: Any) -> Sequence[Any]:
    if isinstance(value, list | tuple):
        return value
    raise LookupError(f"[*] needs a list, not {_kind(value)}")


def _step(value: Any, step: str | int) -> Any:
    if isinstance(step, int):
        if isinstance(value, list | tuple):
            try:
                return value[step]
            except IndexError:
                raise LookupError(f"there is no [{step}] in a list of {len(value)}") from None
        if isinstance(value, Mapping) and step in value:
            return value[step]
        raise LookupError(f"[{step}] needs a list, not {_kind(value)}")
    if isinstance(value, Mapping):
        if step in value:
            return value[step]
        raise LookupError(f"there is no {step!r} among {_some(value)}")
    if not step.startswith("_") and hasattr(value, step):
        found = getattr(value, step)
        if not callable(found):
            return found
    raise LookupError(f"{_kind(value)} has no field {step!r}")


def _kind(value: Any) -> str:
    return "null" if value is None else f"a value of type {type(value).__name__}"


def _some(value: Mapping[Any, Any]) -> str:
    keys = [repr(key) for key in list(value)[:8]]
    return ", ".join(keys) + (", ..." if len(value) > 8 else "") if keys else "no keys at all"
