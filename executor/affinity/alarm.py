"""One timer that is moved rarely: it rings early rather than being set again at every change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context


class Alarm:
    """Rings at the latest when it was asked to; whoever is woken says when to ring again.

    Args:
        ring: Called when it rings; gives the next time on the loop's clock, or None.
    """

    __slots__ = ("_handle", "_ring")

    def __init__(self, ring: Callable[[], float | None]) -> None:
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at: float | None) -> None:
        """Ring at that time, unless it rings before; None: no wish."""
        if at is None or (self._handle is not None and self._handle.when() <= at):
            return
        self.stop()
        loop = asyncio.get_running_loop()
        self._handle = loop.call_at(at, self._rang, context=Context())  # it is nobody's own

    def stop(self) -> None:
        """Do not ring."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _rang(self) -> None:
        self._handle = None
        self.set(self._ring())
