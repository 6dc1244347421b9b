"""A time limit on many short waits, with one timer for all of them.

``asyncio.timeout`` sets and cancels a timer at every wait; while tokens stream in, that costs
more than reading them. The timer here stays where it is and is moved only when it rings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

R = TypeVar("R")


class Expired(Exception):
    """The time for a wait is over."""


class Watch:
    """Watches one wait at a time, of one task."""

    __slots__ = ("_limit", "_loop", "_timer", "_until")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._until: float | None = None

    async def wait(self, step: Awaitable[R], until: float | None) -> R:
        """Await a step, at the latest until a time of the loop's clock (None: without end).

        Raises:
            Expired: The time came first; the step has been cancelled.
        """
        self._until = until
        if until is not None and (self._timer is None or until < self._timer.when()):
            self._set(until)
        limit = self._limit = asyncio.timeout(None)
        try:
            async with limit:
                return await step
        except TimeoutError:
            if limit.expired():
                raise Expired from None
            raise
        finally:
            self._limit = None

    def stop(self) -> None:
        """Take the timer off the loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, until: float) -> None:
        self.stop()
        self._timer = self._loop.call_at(until, self._ring, until)

    def _ring(self, at: float) -> None:
        self._timer = None
        if self._limit is None or self._until is None:
            return  # nobody waits now; the next wait sets the timer
        if self._until <= at:
            self._limit.reschedule(at)
        else:
            self._set(self._until)
