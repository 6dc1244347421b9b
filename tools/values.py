"""Values as they cross from one call to the next.

Nobody sees another's mutation: a consumer gets its own copy of whatever can change.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

T = TypeVar("T")

IMMUTABLE = frozenset((str, int, float, bool, type(None), bytes, complex, type, range, frozenset))
"""Types whose values are shared as they are."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """How a call ended, for the join policy ``settled``.

    Attributes:
        status: ``done``, ``failed``, ``skipped`` or ``cancelled``.
        value: The value, if done.
        error: What it raised, if failed.
    """

    status: Literal["done", "failed", "skipped", "cancelled"]
    value: T | None = None
    error: BaseException | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self.status == "done"


def fresh(value: Any) -> Any:
    """A value that its receiver may change without anybody else seeing it.

    Lists, dicts, sets, tuples, dataclasses and pydantic models are copied, all the way down.
    An object of any other class, an exception too, is passed as it is: agentflow does not know
    how to copy it.
    """
    kind = type(value)
    if kind in IMMUTABLE:
        return value
    if kind is list:
        return [item if type(item) in IMMUTABLE else fresh(item) for item in value]
    if kind is dict:
        return {
            key: item if type(item) in IMMUTABLE else fresh(item) for key, item in value.items()
        }
    if kind is tuple:
        return tuple(map(fresh, value))
    if kind is set:
        return set(value)
    if kind is bytearray:
        return bytearray(value)
    if hasattr(kind, "model_copy"):
        return value if kind.model_config.get("frozen") else value.model_copy(deep=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _copied(value)
    return value


def _copied(value: Any) -> Any:
    """A dataclass whose attributes are fresh; not built anew, so that nothing is checked twice."""
    twin = copy.copy(value)
    for field in dataclasses.fields(value):
        if hasattr(value, field.name):
            item = getattr(value, field.name)
            if type(item) not in IMMUTABLE:
                object.__setattr__(twin, field.name, fresh(item))
    return twin


def as_text(value: Any) -> str:
    """A value as it stands inside a string: text as it is, everything else as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(plain(value), ensure_ascii=False, default=str)


def plain(value: Any) -> Any:
    """A value as JSON data, as far as it has a JSON form; what has none is left as it is."""
    try:
        return _plain(value)
    except Exception:  # noqa: BLE001  # keys and errors whose text raises, cycles
        return value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(type(value), "model_dump"):
        return _dumped(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return value


def _dumped(model: Any) -> Any:
    try:
        return model.model_dump(mode="json")
    except Exception:  # noqa: BLE001  # a field of an arbitrary type, a serializer that raises
        return model
