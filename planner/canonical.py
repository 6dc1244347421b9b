"""Canonical keys of arguments: equal exactly when the arguments are the same value.

``1``, ``1.0`` and ``True`` differ; the order of a dict's keys does not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from enum import Enum
from typing import Any

from agentflow.planner.plan import Each, Ref, Template

_SCALARS = frozenset((str, int, bool, type(None), bytes))


class NotCanonical(TypeError):
    """A value has no canonical form; `where` is its path inside the argument."""

    def __init__(self, value: Any, where: str = "") -> None:
        self.where = where
        super().__init__(
            f"{where or 'the value'} is a {type(value).__name__}, which has no canonical form: "
            "pass text, numbers, lists, dicts, dataclasses or pydantic models"
        )


def canonical(value: Any, where: str = "") -> Hashable:
    """A hashable key for an argument.

    Raises:
        NotCanonical: The value, or something inside it, has no canonical form.
    """
    kind = type(value)
    if kind in _SCALARS:
        return (kind, value)
    if kind is float:
        return (float, repr(value))  # tells -0.0 from 0.0, and finds nan equal to itself
    if kind is Ref:
        return value  # type: ignore[no-any-return]
    if kind is Template:
        return (Template, *(canonical(part) for part in value.parts))
    if kind is Each:
        return (Each, canonical(value.source, where))
    if kind is list or kind is tuple:
        return (kind, *(canonical(item, f"{where}[{i}]") for i, item in enumerate(value)))
    if kind is dict:
        items = [(canonical(k), canonical(v, f"{where}.{k}")) for k, v in value.items()]
        return (dict, frozenset(items))
    if kind is set or kind is frozenset:
        return (kind, frozenset(canonical(item, where) for item in value))
    if isinstance(value, Enum):
        return (kind, value.name)
    return (kind, *_fields(value, where))


def _fields(value: Any, where: str) -> tuple[Hashable, ...]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
    elif hasattr(type(value), "model_fields"):
        names = list(type(value).model_fields)
    else:
        raise NotCanonical(value, where)
    return tuple(canonical(getattr(value, name), f"{where}.{name}") for name in names)
