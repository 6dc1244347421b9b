"""Single flight: equal calls under way at the same time are one call.

A flight belongs to nobody who waits for it. It runs until the last of them has left, so one
caller's cancellation, timeout or deadline does not touch the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")

Spawn = Callable[[Coroutine[Any, Any, Any], str], "asyncio.Task[Any]"]
"""Starts a task that somebody cleans up after."""


class Bill(Protocol):
    """Money that a caller has set aside for a call.

    Attributes:
        open: It is neither paid nor waived.
    """

    open: bool

    def pay(self) -> None:
        """The call was made for this caller."""
        ...

    def waive(self) -> None:
        """The call was not made, or another pays."""
        ...


class Flight(Generic[T]):
    """One call, and those who wait for it; the first of them who is left in the end pays.

    Attributes:
        optional: It was begun on speculation.
        waiters: How many wait.
    """

    __slots__ = ("_bills", "_left", "_task", "optional", "waiters")

    def __init__(self, task: asyncio.Task[T], optional: bool) -> None:
        self._task = task
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
            if self.waiters == 1 and not self._task.done():
                if not self._task.cancelling():  # a second time would cut off its cleaning up
                    self._task.cancel()
                await _ended(self._task)
                self.settle(bill)  # cut off, and nobody knows what it has cost by then
            elif bill is not None:
                bill.waive()
            raise
        finally:
            self.waiters -= 1
        if self._task.cancelled():
            raise Left
        return self._task.result()

    def settle(self, bill: Bill | None) -> None:
        """The call has been made: the first who waited and has not left pays."""
        if bill is None:
            return
        if next((other for other in self._bills if other.open), None) is bill:
            self._bills.clear()
            bill.pay()
        else:
            bill.waive()

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
    """

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
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
        flight = self._flying[key] = Flight(task, optional)
        task.add_done_callback(lambda _: self._landed(key, flight))
        return flight

    def _landed(self, key: Hashable, flight: Flight[Any]) -> None:
        if self._flying.get(key) is flight:
            del self._flying[key]
