"""Canonical keys of arguments: equal exactly when the arguments are the same value.

``1``, ``1.0`` and ``True`` differ; the order of a dict's keys does not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from agentflow.planner.plan import Arg, Each, Node, Ref, Template
from agentflow.redaction import is_secret
from agentflow.tools.spec import ToolSpec

_SCALARS = frozenset((str, int, bool, type(None), bytes))
_SPELLED = frozenset((float, datetime, date, time, timedelta, Decimal, UUID))


class NotCanonical(TypeError):
    """A value has no canonical form; `where` is its path inside the argument."""

    def __init__(self, value: Any, where: str = "") -> None:
        self.where = where
        if isinstance(value, Concealed):
            super().__init__("it holds a secret, which is part of nothing that is kept")
            return
        super().__init__(
            f"{where or 'the value'} is a {type(value).__name__}, which has no canonical form: "
            "pass text, numbers, lists, dicts, dataclasses or pydantic models"
        )


class Concealed:
    """A secret among arguments: equal to the same secret, and spelled in no key that is kept."""

    __slots__ = ("_held",)

    def __init__(self, held: Hashable) -> None:
        self._held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Concealed) and self._held == other._held

    def __hash__(self) -> int:
        return hash(self._held)


def canonical(value: Any, where: str = "") -> Hashable:
    """A hashable key for an argument.

    Raises:
        NotCanonical: The value, or something inside it, has no canonical form.
    """
    kind = type(value)
    if kind in _SCALARS:
        return (kind, value)
    if isinstance(value, Ref):
        return value
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
    if kind in _SPELLED or isinstance(value, PurePath):
        return (kind, repr(value))  # tells -0.0 from 0.0, and finds nan equal to itself
    if isinstance(value, Enum):
        return (kind, value.name)
    if is_secret(value):
        return (kind, Concealed(canonical(value.get_secret_value(), where)))
    return (kind, *_fields(value, where))


def bound(node: Node, spec: ToolSpec | None) -> dict[str | int, Arg]:
    """The arguments of a call by parameter name; by position where the name is not known."""
    if not node.args:
        return dict(node.kwargs)
    parameters = () if spec is None else spec.parameters
    named: dict[str | int, Arg] = {}
    for position, value in enumerate(node.args):
        named[parameters[position].name if position < len(parameters) else position] = value
    named.update(node.kwargs)
    return named


def _fields(value: Any, where: str) -> tuple[Hashable, ...]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        extra = None
    elif hasattr(type(value), "model_fields"):
        names = list(type(value).model_fields)
        extra = value.model_extra
    else:
        raise NotCanonical(value, where)
    fields = (canonical(getattr(value, name), f"{where}.{name}") for name in names)
    return (*fields, canonical(extra, where)) if extra else tuple(fields)


def encoded(key: Any, refer: Callable[[Ref], bytes] | None = None) -> bytes:
    """A canonical key as bytes that are the same in every process.

    Args:
        key: What `canonical` gave.
        refer: Spells a reference to another value. With it the key is a step's, in which all
            secrets are one: a digest would let them be guessed, and they change between runs.

    Raises:
        NotCanonical: The key is to be kept, and holds a secret.
    """
    if isinstance(key, tuple):
        return framed(b"(", [encoded(part, refer) for part in key])
    if isinstance(key, frozenset):
        return framed(b"{", sorted(encoded(part, refer) for part in key))
    if isinstance(key, type):
        return framed(b"t", [f"{key.__module__}.{key.__qualname__}".encode()])
    if isinstance(key, Ref) and refer is not None:
        return refer(key)
    if isinstance(key, Concealed):
        if refer is None:
            raise NotCanonical(key)
        return b"*"
    if isinstance(key, bytes):
        return framed(b"b", [key])
    text = f"{key:x}" if type(key) is int else str(key)  # digits cost linear time in hex only
    return framed(b"v", [type(key).__name__.encode(), text.encode("utf-8", "surrogatepass")])


def framed(kind: bytes, parts: Sequence[bytes]) -> bytes:
    """Parts with their lengths, so that different parts never give the same bytes."""
    return kind + b"%d:" % len(parts) + b"".join(b"%d:" % len(part) + part for part in parts)
