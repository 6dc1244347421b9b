"""How many calls of a tool may run at once, across all runs of an engine."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
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
        """Make way, as soon as may be; the place is free when the work has ended."""
        ...


_order = itertools.count()


class Gate:
    """A limit on calls that run at once; the most urgent waiter goes first.

    Args:
        limit: How many.
        hosts: Whether optional work may have a place: not if it could not be stopped.

    Attributes:
        free: How many more may start; below zero until guests have been asked to leave.
        guests: Optional work that has a place.
        leaving: Work without a place that has not ended yet; calls that were let in wait for it.
        queue: Who waits, as a heap.
    """

    __slots__ = ("_held_up", "free", "guests", "hosts", "leaving", "limit", "queue")

    def __init__(self, limit: int, *, hosts: bool = True) -> None:
        self.limit = limit
        self.hosts = hosts
        self.free = limit
        self.guests: list[Guest] = []
        self.leaving: list[Guest] = []
        self.queue: list[tuple[float, int, Waiter, int]] = []
        self._held_up: deque[asyncio.Future[None]] = deque()

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

    def give_back(self) -> None:
        """A call has ended; its place is the caller's to offer."""
        self.free += 1
        if self._held_up:
            self._let_go_on()

    # Optional work

    def admit_guest(self, guest: Guest) -> bool:
        """Give optional work a place, if there is one: whoever queues has been offered it."""
        if not self.hosts or self.free <= len(self.leaving):
            return False
        self.free -= 1
        self.guests.append(guest)
        return True

    def vacate(self, guest: Guest) -> None:
        """A guest is a call by now, or never began: its place goes to the next in line."""
        if guest in self.guests:
            self.guests.remove(guest)
            self.give_back()
            if (waiter := self.next()) is not None:
                waiter[0].wake(waiter[1])

    def ended(self, guest: Guest) -> None:
        """The work of a guest has ended, whether it still had its place or not."""
        self.vacate(guest)
        if guest in self.leaving:
            self.leaving.remove(guest)
            self._let_go_on()

    def outstay(self, guest: Guest) -> None:
        """Work that is not waited for goes on beyond the call whose place it had."""
        self.leaving.append(guest)

    def make_room(self) -> None:
        """Have guests make way for the calls that were let in."""
        while self.free < 0:
            guest = min(self.guests, key=lambda guest: guest.worth)
            self.guests.remove(guest)
            self.free += 1
            self.leaving.append(guest)
            guest.leave()

    # Calls whose place is not empty yet

    async def emptied(self) -> None:
        """Wait until there is a place for a call that was let in."""
        if self._lacking <= len(self._held_up):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held_up.append(turn)
        try:
            await turn
        finally:
            if turn in self._held_up:
                self._held_up.remove(turn)

    @property
    def _lacking(self) -> int:
        """How many of the calls that were let in have to wait."""
        return len(self.leaving) - self.free

    def _let_go_on(self) -> None:
        while len(self._held_up) > max(0, self._lacking):
            turn = self._held_up.popleft()
            if not turn.done():
                turn.set_result(None)


OPEN = Gate(1 << 60)
"""For what is no call, or has its place by itself."""
