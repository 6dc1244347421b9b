"""Single flight: equal calls under way at the same time are one call.

A flight belongs to nobody who waits for it. It runs until the last of them has left, so one
caller's cancellation, timeout or deadline does not touch the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Spawn = Callable[[Coroutine[Any, Any, Any], str], "asyncio.Task[Any]"]
"""Starts a task that somebody cleans up after."""


class Flight(Generic[T]):
    """One call, and those who wait for it.

    Attributes:
        optional: It was begun on speculation.
        waiters: How many wait.
    """

    __slots__ = ("_task", "optional", "waiters")

    def __init__(self, task: asyncio.Task[T], optional: bool) -> None:
        self._task = task
        self.optional = optional
        self.waiters = 0

    async def wait(self) -> T:
        """Wait for the value; the last who leaves early ends the call, and waits for its end.

        Raises:
            Left: The call was ended from outside, not by who waits here.
        """
        self.waiters += 1
        try:
            await _ended(self._task)
        except asyncio.CancelledError:
            if self.waiters == 1 and not self._task.done():
                self._task.cancel()
                await _ended(self._task)
            raise
        finally:
            self.waiters -= 1
        if self._task.cancelled():
            raise Left
        return self._task.result()

    @property
    def boarding(self) -> bool:
        """Whether it can still be joined."""
        return not self._task.done() and not self._task.cancelling()


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
