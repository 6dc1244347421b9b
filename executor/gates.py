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


class Guest(Protocol):
    """Work that nobody has asked for yet: it has a place while no call wants it.

    Attributes:
        worth: Of several guests the one that is worth least makes way.
    """

    worth: float

    def leave(self) -> None:
        """Make way: the place is gone already."""
        ...


_order = itertools.count()


class Gate:
    """A limit on calls that run at once; the most urgent waiter goes first.

    Attributes:
        free: How many more may start; below zero until guests have made way.
        guests: Optional work that has a place.
        queue: Who waits, as a heap.
    """

    __slots__ = ("free", "guests", "limit", "queue")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.free = limit
        self.guests: list[Guest] = []
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

    @property
    def room(self) -> int:
        """How many more calls may start, if all guests make way."""
        return self.free + len(self.guests)

    # Optional work

    def admit_guest(self, guest: Guest) -> bool:
        """Give optional work a place, if nobody else could use it now."""
        if self.free <= 0 or self.queue:
            return False
        self.free -= 1
        self.guests.append(guest)
        return True

    def part(self, guest: Guest) -> None:
        """A guest has ended, or is a call by now: its place goes to the next in line."""
        if guest in self.guests:
            self.guests.remove(guest)
            self.free += 1
            if (waiter := self.next()) is not None:
                waiter[0].wake(waiter[1])

    def make_room(self) -> None:
        """Have guests make way for the calls that were let in."""
        while self.free < 0:
            guest = min(self.guests, key=lambda guest: guest.worth)
            self.guests.remove(guest)
            self.free += 1
            guest.leave()
