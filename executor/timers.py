"""Time limits of running calls: one heap and one timer for a whole run."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable


class Timers:
    """Calls back when a slot has run too long, or has been silent too long.

    Args:
        loop: Whose clock counts.
        expired: Called with the slot and the limit in seconds that passed.

    Attributes:
        running: When each slot's time is over, and its limit in seconds.
    """

    __slots__ = ("_armed", "_expired", "_handle", "_heap", "_idle", "_loop", "running")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, expired: Callable[[int, float], None]
    ) -> None:
        self._loop = loop
        self._expired = expired
        self._heap: list[tuple[float, int]] = []
        self.running: dict[int, tuple[float, float]] = {}  # when, limit
        self._idle: dict[int, tuple[float, float]] = {}  # last sign of life, limit
        self._handle: asyncio.TimerHandle | None = None
        self._armed = float("inf")

    def start(self, slot: int, limit: float) -> None:
        """Allow a slot `limit` seconds from now."""
        when = self._loop.time() + limit
        self.running[slot] = (when, limit)
        self._push(when, slot)

    def touch(self, slot: int, limit: float) -> None:
        """A sign of life: the slot may be silent for `limit` seconds from now."""
        known = slot in self._idle
        now = self._loop.time()
        self._idle[slot] = (now, limit)
        if not known:
            self._push(now + limit, slot)

    def stop(self, slot: int) -> None:
        """The slot has ended, or its attempt has."""
        self.running.pop(slot, None)
        if self._idle:
            self._idle.pop(slot, None)

    def close(self) -> None:
        """Call nobody back any more."""
        self.running.clear()
        self._idle.clear()
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _push(self, when: float, slot: int) -> None:
        heapq.heappush(self._heap, (when, slot))
        if when < self._armed:
            self._arm(when)

    def _arm(self, when: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed = when
        self._handle = self._loop.call_at(when, self._fire)

    def _fire(self) -> None:
        self._handle, self._armed = None, float("inf")
        now = self._armed_now()
        heap = self._heap
        late: list[tuple[int, float]] = []
        while heap and heap[0][0] <= now:
            _, slot = heapq.heappop(heap)
            if (limit := self._passed(slot, now)) is not None:
                late.append((slot, limit))
        while heap and heap[0][1] not in self.running and heap[0][1] not in self._idle:
            heapq.heappop(heap)
        if heap:
            self._arm(heap[0][0])
        for slot, limit in late:
            self.stop(slot)
            self._expired(slot, limit)

    def _armed_now(self) -> float:
        # A timer may fire up to one tick of the clock early.
        return self._loop.time() + getattr(self._loop, "_clock_resolution", 0.0)

    def _passed(self, slot: int, now: float) -> float | None:
        if (total := self.running.get(slot)) is not None and total[0] <= now:
            return total[1]
        if (idle := self._idle.get(slot)) is not None:
            when = idle[0] + idle[1]
            if when <= now:
                return idle[1]
            heapq.heappush(self._heap, (when, slot))
        return None
