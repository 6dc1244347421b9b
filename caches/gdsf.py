"""Greedy-Dual-Size-Frequency: which entries make room, by what it would cost to miss them.

Each entry has the priority ``H = L + frequency * cost / size``; the lowest is evicted, and L,
which every later priority starts from, becomes the priority of what was evicted. So an
entry that was popular once ages away. The policy is a plain object without clock or values.

Source: L. Cherkasova, "Improving WWW proxies performance with Greedy-Dual-Size-Frequency
caching policy", HP Labs report HPL-98-69R1, 1998. The quotas for each group follow
category-aware caching.
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_SLACK = 64  # dead heap items that are not worth a rebuild


class _Slot(Generic[K]):
    """What is known of one key."""

    __slots__ = ("age", "frequency", "group", "key", "size", "worth")

    def __init__(self, key: K, size: int, worth: float, group: _Group[K]) -> None:
        self.key = key
        self.size = size
        self.worth = worth
        self.group = group
        self.frequency = 1
        self.age = 0.0

    @property
    def priority(self) -> float:
        return self.age + self.frequency * self.worth


class _Group(Generic[K]):
    """The keys that share a quota: their heap, their bytes and how far they have aged."""

    __slots__ = ("age", "bytes", "heap", "live")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, _Slot[K]]] = []
        self.bytes = 0
        self.live = 0
        self.age = 0.0


class Gdsf(Generic[K]):
    """Decides what to evict.

    A hit takes constant time: heap items are lower bounds of priorities, which only rise, and
    are corrected when they reach the top.

    Args:
        limit: The most bytes all keys together may take.
        quota: The share of `limit` that one group may take, or None for no such limit.

    Attributes:
        used: Bytes the keys take now.
    """

    def __init__(self, limit: int, quota: float | None = None) -> None:
        self.limit = limit
        self.used = 0
        self._group_limit = limit if quota is None else int(limit * quota)
        self._grouped = quota is not None
        self._age = 0.0
        self._slots: dict[K, _Slot[K]] = {}
        self._groups: dict[str, _Group[K]] = {}
        self._serial = count()

    def __len__(self) -> int:
        return len(self._slots)

    def hit(self, key: K) -> None:
        """Note that a key was used."""
        slot = self._slots[key]
        slot.frequency += 1
        slot.age = max(self._age, slot.group.age)

    def add(self, key: K, size: int, cost: float, group: str = "") -> list[K]:
        """Take a key in, anew if it is known, and say which keys make room for it.

        Args:
            key: The key.
            size: Bytes it takes, at least 1.
            cost: What it costs to obtain again, in any unit.
            group: Whose quota it counts against.

        Returns:
            The evicted keys; the key itself when it is larger than it may be.
        """
        frequency = self._slots[key].frequency + 1 if key in self._slots else 1
        self.remove(key)
        if size > self._group_limit:
            return [key]
        home = self._home(group if self._grouped else "")
        evicted = []
        while home.bytes + size > self._group_limit:
            evicted.append(self._evict_from(home))
        while self.used + size > self.limit:
            evicted.append(self._evict())
        slot = _Slot(key, size, cost / size, home)
        slot.frequency = frequency
        self._insert(slot)
        return evicted

    def remove(self, key: K) -> None:
        """Forget a key, if it is known."""
        slot = self._slots.pop(key, None)
        if slot is None:
            return
        group = slot.group
        self.used -= slot.size
        group.bytes -= slot.size
        group.live -= 1
        if len(group.heap) > 2 * group.live + _SLACK:
            group.heap = [item for item in group.heap if self._lives(item[2])]
            heapify(group.heap)

    def _home(self, name: str) -> _Group[K]:
        if (group := self._groups.get(name)) is None:
            group = self._groups[name] = _Group()
        return group

    def _insert(self, slot: _Slot[K]) -> None:
        group = slot.group
        slot.age = max(self._age, group.age)
        self._slots[slot.key] = slot
        self.used += slot.size
        group.bytes += slot.size
        group.live += 1
        heappush(group.heap, (slot.priority, next(self._serial), slot))

    def _evict(self) -> K:
        """Evict the lowest priority of all."""
        lowest = [slot for group in self._groups.values() if (slot := self._lowest(group))]
        victim = min(lowest, key=lambda slot: slot.priority)
        self._age = max(self._age, victim.priority)
        self.remove(victim.key)
        return victim.key

    def _evict_from(self, group: _Group[K]) -> K:
        """Evict the lowest priority of a group; only this group ages."""
        victim = self._lowest(group)
        assert victim is not None  # its bytes are above zero
        group.age = max(group.age, victim.priority)
        self.remove(victim.key)
        return victim.key

    def _lowest(self, group: _Group[K]) -> _Slot[K] | None:
        """The slot with the lowest priority, once the heap's top is not outdated."""
        heap = group.heap
        while heap:
            bound, _, slot = heap[0]
            if not self._lives(slot):
                heappop(heap)
            elif slot.priority > bound:
                heapreplace(heap, (slot.priority, next(self._serial), slot))
            else:
                return slot
        return None

    def _lives(self, slot: _Slot[K]) -> bool:
        return self._slots.get(slot.key) is slot
