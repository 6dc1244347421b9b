"""Time limits of running calls: one timer for a whole run.

A run has few different limits. Calls with the same limit end in the order they began, so each
limit has a queue, and the next to expire is at the head of one of them. A slot that shows life
often is in the queue of its silence once: whether it has been silent is seen when that is due.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Callable

from agentflow.errors import CallTimeout

NEVER = float("inf")


class Timers:
    """Calls back when a slot has run too long, or has been silent too long.

    Args:
        loop: Whose clock counts.
        expired: Called with the slot and the limit in seconds that passed.

    Attributes:
        running: When the time of each slot is over.
    """

    __slots__ = ("_due", "_expired", "_handle", "_idle", "_loop", "_next", "_queues", "running")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, expired: Callable[[int, float], None]
    ) -> None:
        self._loop = loop
        self._expired = expired
        self._queues: dict[float, deque[tuple[float, int]]] = {}
        self._idle: dict[int, float] = {}  # when its silence has lasted too long
        self._due: dict[int, float] = {}  # when that is looked at next
        self.running: dict[int, float] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._next = NEVER

    def start(self, slot: int, limit: float) -> None:
        """Allow a slot `limit` seconds from now."""
        when = self.running[slot] = self._loop.time() + limit
        self._push(slot, limit, when)

    def touch(self, slot: int, limit: float) -> None:
        """A sign of life: the slot may be silent for `limit` seconds from now."""
        when = self._idle[slot] = self._loop.time() + limit
        if slot not in self._due:
            self._due[slot] = when
            self._push(slot, limit, when)

    def stop(self, slot: int) -> None:
        """The slot has ended, or its attempt has."""
        self.running.pop(slot, None)
        if self._idle:
            self._idle.pop(slot, None)
            self._due.pop(slot, None)

    def close(self) -> None:
        """Call nobody back any more."""
        self.running.clear()
        self._idle.clear()
        self._due.clear()
        self._queues.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _push(self, slot: int, limit: float, when: float) -> None:
        queue = self._queues.get(limit)
        if queue is None:
            queue = self._queues[limit] = deque()
        queue.append((when, slot))
        if when < self._next:
            self._arm(when)

    def _arm(self, when: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._next = when
        self._handle = self._loop.call_at(when, self._fire)

    def _fire(self) -> None:
        self._handle, self._next = None, NEVER
        # A timer may fire up to one tick of the clock early.
        now = self._loop.time() + getattr(self._loop, "_clock_resolution", 0.0)
        late: list[tuple[int, float]] = []
        for limit, queue in self._queues.items():
            while queue and (queue[0][0] <= now or not self._waits(*queue[0])):
                when, slot = queue.popleft()
                if not self._waits(when, slot):
                    continue
                if self.running.get(slot) != when and self._idle[slot] > now:
                    self._due[slot] = self._idle[slot]
                    insort(queue, (self._due[slot], slot))
                else:
                    late.append((slot, limit))
        heads = [queue[0][0] for queue in self._queues.values() if queue]
        if heads:
            self._arm(min(heads))
        for slot, limit in late:
            self.stop(slot)
            self._expired(slot, limit)

    def _waits(self, when: float, slot: int) -> bool:
        """Whether an entry still counts: its slot has not ended, nor begun anew."""
        return self.running.get(slot) == when or self._due.get(slot) == when


def timed_out(
    tool: str, limit: float, node: int, *, idle: bool, cause: BaseException | None
) -> CallTimeout:
    """The error of a call whose time limit has passed; `idle` if it was the one on silence."""
    what = "was silent for" if idle else "took longer than"
    late = CallTimeout(
        f"{tool} {what} {limit:g} s. Raise it with @tool(timeout=...) "
        f"or {tool}.with_(timeout=...), or see why it is slow.",
        tool=tool,
        seconds=limit,
        node=node,
    )
    late.__cause__ = cause
    return late
