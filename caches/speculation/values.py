"""What a call gave the last time, as a guess at what it will give now."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, TypeVar

from agentflow.caches.speculation.trail import call_key

LIMIT = 2048
"""Calls that are remembered."""

LARGEST = 16384
"""Characters of the largest value that is remembered."""

K = TypeVar("K")
V = TypeVar("V")

_encode = json.JSONEncoder(sort_keys=True).encode


@dataclass(slots=True)
class _Memory:
    """The last value as JSON, and how often a value was the same as the one before it."""

    value: str
    same: float = 0.0
    changed: float = 0.0

    @property
    def steadiness(self) -> float:
        return (self.same + 0.5) / (self.same + self.changed + 1.0)


class Recent(OrderedDict[K, V]):
    """A dict that keeps what was set last.

    Args:
        limit: The most items.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, key: K, value: V) -> None:
        """Set an item; the one that was set longest ago is forgotten if there are too many."""
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self._limit:
            self.popitem(last=False)


class GuardMemory:
    """How often the guards of a tool's calls held."""

    def __init__(self) -> None:
        self._seen: Recent[str, tuple[int, int]] = Recent()

    def note(self, tool: str, held: bool) -> None:
        """The guard of a call was decided."""
        true, total = self._seen.get(tool, (0, 0))
        self._seen[tool] = (true + held, total + 1)

    def probability(self, tool: str) -> float:
        """That the next guard of the tool holds."""
        true, total = self._seen.get(tool, (0, 0))
        return (true + 1.0) / (total + 2.0)


class ValueMemory:
    """Last values by call, and by tool where every call gave the same.

    Bounded: the calls made longest ago are forgotten.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._known: OrderedDict[str, _Memory] = OrderedDict()

    def note(self, tool: str, arguments: dict[str, Any], value: Any) -> None:
        """A call gave a value; one that is no JSON data is not remembered."""
        try:
            text = _encode(value)
            keys = (call_key(tool, arguments), tool)
        except (TypeError, ValueError, RecursionError):
            return
        for key in keys:
            self._learn(key, text)

    def guess(self, tool: str, arguments: dict[str, Any]) -> tuple[Any, float] | None:
        """What a call will give, and with which probability; None if nothing is known."""
        for key in (call_key(tool, arguments), tool):
            if (known := self._known.get(key)) is not None and known.value:
                return json.loads(known.value), known.steadiness
        return None

    def _learn(self, key: str, text: str) -> None:
        known = self._known.pop(key, None)
        if known is None:
            known = _Memory(text)
        elif known.value == text:
            known.same += 1
        else:
            known.changed += 1
            known.value = text
        if len(text) > LARGEST:
            known.value = ""
        self._known[key] = known
        if len(self._known) > self._limit:
            self._known.popitem(last=False)
