"""A time limit on many short waits, with one timer for all of them.

``asyncio.timeout`` sets and cancels a timer at every wait; while tokens stream in, that costs
more than reading them. The timer here stays where it is and is moved only when it rings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

R = TypeVar("R")


class Expired(Exception):
    """The time for a wait is over."""


class Watch:
    """Watches one wait at a time, of one task."""

    __slots__ = ("_cancelling", "_loop", "_rang", "_task", "_timer", "_until")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._until: float | None = None
        self._rang = False
        self._cancelling = 0

    async def wait(self, step: Awaitable[R], until: float | None) -> R:
        """Await a step, at the latest until a time of the loop's clock (None: without end).

        Raises:
            Expired: The time came first; the step has been cancelled.
        """
        self._until = until
        if until is not None and (self._timer is None or until < self._timer.when()):
            self._set(until)
        task = self._task = asyncio.current_task()
        self._cancelling = task.cancelling() if task is not None else 0
        try:
            return await step
        except asyncio.CancelledError:
            if self._rang and self._take_back():
                raise Expired from None
            raise
        finally:
            if self._rang:
                self._take_back()
            self._task = None

    def expire(self) -> None:
        """The time for the wait under way, if there is one, is over now."""
        if self._task is not None and not self._rang:
            self._rang = True
            self._task.cancel()

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
        if self._task is None or self._until is None:
            return  # nobody waits now; the next wait sets the timer
        if self._until > at:
            self._set(self._until)
            return
        self.expire()

    def _take_back(self) -> bool:
        """Undo our cancellation; whether the task is cancelled by nobody else besides."""
        self._rang = False
        return self._task is not None and self._task.uncancel() <= self._cancelling
