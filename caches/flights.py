"""Single flight: equal calls under way at the same time are one call.

A flight belongs to nobody who waits for it. It runs until the last of them has left, so one
caller's cancellation, timeout or deadline does not touch the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, Protocol, TypeVar

from agentflow.caches.cancelling import cancel_once

T = TypeVar("T")

Spawn = Callable[[Coroutine[Any, Any, Any], str], "asyncio.Task[Any]"]
"""Starts a task that somebody cleans up after."""


class Bill(Protocol):
    """Money that a caller has set aside for a call.

    Attributes:
        open: It is neither paid nor waived.
        optional: Nobody has asked for the call; whoever asks pays first.
    """

    open: bool
    optional: bool

    def pay(self) -> None:
        """The call was made for this caller."""
        ...

    def waive(self) -> None:
        """The call was not made, or another pays."""
        ...


class Flight(Generic[T]):
    """One call, and those who wait for it; the first who asked for it and is left pays.

    Attributes:
        optional: It was begun on speculation.
        waiters: How many wait.
    """

    __slots__ = ("_bills", "_costs", "_left", "_task", "optional", "waiters")

    def __init__(self, task: asyncio.Task[T], optional: bool, costs: Callable[[T], bool]) -> None:
        self._task = task
        self._costs = costs
        self._bills: list[Bill] = []
        self._left: set[asyncio.Task[Any] | None] = set()
        self.optional = optional
        self.waiters = 0

    async def wait(self, bill: Bill | None = None) -> T:
        """Wait for the value; the last who leaves early ends the call, and waits for its end.

        Args:
            bill: Paid or waived if the caller leaves early; see `settle` otherwise.

        Raises:
            Left: The call was ended from outside, not by who waits here.
        """
        self.waiters += 1
        if bill is not None:
            self._bills.append(bill)
        try:
            await _ended(self._task)
        except asyncio.CancelledError:
            self._left.add(asyncio.current_task())
            if self.waiters == 1:
                cancel_once(self._task)
                await _ended(self._task)
                self.settle(bill)  # of what was cut off nobody knows what it has cost by then
            elif bill is not None:
                bill.waive()
            raise
        finally:
            self.waiters -= 1
        if self._task.cancelled():
            raise Left
        return self._task.result()

    def settle(self, bill: Bill | None) -> None:
        """The flight is over: the first who asked for it and has not left pays, or else a guess.

        What is optional stays open until somebody has paid.
        """
        if bill is None:
            return
        if self._was_free:
            return bill.waive()
        waiting = [other for other in self._bills if other.open]
        if min(waiting, key=lambda other: other.optional, default=None) is bill:
            self._bills.clear()
            bill.pay()
            for other in waiting:
                if other.optional and other is not bill:
                    other.waive()
        elif not bill.optional:
            bill.waive()

    @property
    def _was_free(self) -> bool:
        """Whether it has brought a value for which no call was made."""
        task = self._task
        landed = task.done() and not task.cancelled() and task.exception() is None
        return landed and not self._costs(task.result())

    @property
    def boarding(self) -> bool:
        """Whether it can still be joined by the current task.

        Who has left it, because it took too long, calls anew: it may never end.
        """
        ending = self._task.done() or self._task.cancelling()
        return not ending and asyncio.current_task() not in self._left


async def _ended(task: asyncio.Task[Any]) -> None:
    """Wait until a task is done, whatever becomes of it; a quicker `asyncio.wait` for one."""
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(_task: asyncio.Task[Any]) -> None:
        if not waiter.done():
            waiter.set_result(None)

    task.add_done_callback(wake)
    try:
        await waiter
    finally:
        task.remove_done_callback(wake)


class Left(Exception):  # no failure of the call
    """A flight ended before its call did."""


class Flights:
    """The flights of one engine.

    Args:
        spawn: Starts their tasks.
        costs: Whether a call was made for what one has brought.
    """

    def __init__(self, spawn: Spawn, costs: Callable[[Any], bool] = lambda _: True) -> None:
        self._spawn = spawn
        self._costs = costs
        self._flying: dict[Hashable, Flight[Any]] = {}

    def __len__(self) -> int:
        return len(self._flying)

    def get(self, key: Hashable) -> Flight[Any] | None:
        """The flight under way for a key, or None."""
        flight = self._flying.get(key)
        return flight if flight is not None and flight.boarding else None

    def begin(
        self,
        key: Hashable,
        work: Coroutine[Any, Any, T],
        name: str,
        *,
        optional: bool = False,
    ) -> Flight[T]:
        """Start a flight, in a copy of the caller's context; it must be waited for at once."""
        task = self._spawn(work, name)
        flight = self._flying[key] = Flight(task, optional, self._costs)
        task.add_done_callback(lambda _: self._landed(key, flight))
        return flight

    def _landed(self, key: Hashable, flight: Flight[Any]) -> None:
        if self._flying.get(key) is flight:
            del self._flying[key]
