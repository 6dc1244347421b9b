"""How many calls of a tool may run at once, across all runs of an engine."""

from __future__ import annotations

import heapq
import itertools
from typing import Protocol


class Waiter(Protocol):
    """A run state with calls that wait at a gate."""

    def waits_at_gate(self, slot: int) -> bool:
        """Whether the call still wants to start."""
        ...

    def wake(self, slot: int) -> None:
        """A gate lets the call through: its run is to react to `Admitted`."""
        ...


_order = itertools.count()


class Gate:
    """A limit on calls that run at once; the most urgent waiter goes first.

    Attributes:
        free: How many more may start.
        queue: Who waits, as a heap.
    """

    __slots__ = ("free", "limit", "queue")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.free = limit
        self.queue: list[tuple[float, int, Waiter, int]] = []

    def park(self, rank: float, state: Waiter, slot: int) -> None:
        """Queue a call; larger ranks go first, equal ones in order of arrival."""
        heapq.heappush(self.queue, (-rank, next(_order), state, slot))

    def next(self) -> tuple[Waiter, int] | None:
        """Take the most urgent call that still wants to start, if one may."""
        while self.free > 0 and self.queue:
            _, _, state, slot = heapq.heappop(self.queue)
            if state.waits_at_gate(slot):
                return state, slot
        return None
