"""What a call may do to the world, declared with the tool.

`docs/semantics.md` says what each effect allows the engine to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

Kind = Literal["pure", "reads", "samples", "writes", "undeclared"]

Resource = tuple[str, ...]
"""A resource path in segments; ``*`` is a segment that is not known yet."""

_HOLE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Effect:
    """The declared effect of a tool.

    Attributes:
        kind: ``pure``, ``reads``, ``samples``, ``writes`` or ``undeclared``.
        resources: Paths such as ``orders/{order_id}``; a name in braces is a parameter.
        idempotent: Doing it twice is the same as doing it once (writes only).
        asks: Somebody may be asked before a call; nothing of it begins before.
    """

    kind: Kind = "undeclared"
    resources: tuple[str, ...] = ()
    idempotent: bool = False
    asks: bool = False

    @property
    def holes(self) -> Iterator[tuple[str, str]]:
        """The resources that name parameters, and the parameters."""
        return ((pattern, name) for pattern in self.resources for name in _HOLE.findall(pattern))

    @property
    def starts_early(self) -> bool:
        """Whether a call may start before the plan that holds it has been read to its end."""
        return self.repeats and not self.asks

    @property
    def repeats(self) -> bool:
        """Whether a call that is made again changes nothing."""
        return self.kind in ("pure", "reads", "samples")

    @property
    def repeats_safely(self) -> bool:
        """Whether a failed attempt may be made again without being asked."""
        return self.repeats or (self.kind == "writes" and self.idempotent)

    def touched(self, arguments: Mapping[str, Any]) -> tuple[Resource, ...]:
        """The resources of one call; an argument that is not a plain scalar is unknown (``*``)."""
        return tuple(_segments(pattern, arguments) for pattern in self.resources)

    def __str__(self) -> str:
        text = self.kind if not self.resources else f"{self.kind}({', '.join(self.resources)})"
        return text + ", idempotent" * self.idempotent + ", asks" * self.asks


UNDECLARED = Effect()
PURE = Effect("pure")
SAMPLES = Effect("samples")


def declared(
    pure: bool,
    reads: str | Iterable[str] | None,
    writes: str | Iterable[str] | None,
    idempotent: bool,
) -> Effect:
    """The effect for the decorator's arguments.

    Raises:
        ValueError: They contradict each other.
    """
    named = [
        word for word, given in (("pure", pure), ("reads", reads), ("writes", writes)) if given
    ]
    if len(named) > 1:
        raise ValueError(f"a tool is one of pure, reads or writes, not {' and '.join(named)}")
    if idempotent and not writes:
        raise ValueError("idempotent=True goes with writes=...; a read or a pure tool always is")
    if pure:
        return PURE
    if reads:
        return Effect("reads", _names(reads))
    if writes:
        return Effect("writes", _names(writes), idempotent)
    return UNDECLARED


def conflict(one: Resource, other: Resource) -> bool:
    """Whether two paths overlap: equal, or one an ancestor of the other."""
    return all(a == b or a == "*" or b == "*" for a, b in zip(one, other, strict=False))


def _names(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _path(value: str) -> list[str]:
    """The segments of a value; one that names nothing, or climbs, could be anything."""
    parts = [part for part in value.split("/") if part not in ("", ".")]
    return parts if parts and ".." not in parts else ["*"]


@lru_cache(maxsize=1024)
def _parsed(pattern: str) -> tuple[tuple[str, bool], ...]:
    """The segments of a pattern; of a parameter its name, and True."""
    out = []
    for segment in pattern.strip("/").split("/"):
        hole = _HOLE.fullmatch(segment)
        if hole is not None:
            out.append((hole[1], True))
        else:
            out.append((segment if not _HOLE.search(segment) else "*", False))
    return tuple(out)


def _segments(pattern: str, arguments: Mapping[str, Any]) -> Resource:
    out: list[str] = []
    for segment, is_parameter in _parsed(pattern):
        if is_parameter:
            value = arguments.get(segment)
            out += _path(str(value)) if isinstance(value, (str, int)) else ["*"]
        else:
            out.append(segment)
    return tuple(out)
