"""Ctrl-C and SIGTERM: the first cancels cleanly, a second ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from agentflow.cli import codes
from agentflow.cli.screen import Screen

_CODES = {signal.SIGINT.value: codes.INTERRUPTED, signal.SIGTERM.value: codes.TERMINATED}


class Interrupts:
    """While entered, signals cancel the current task, or what `cancel` is set to.

    Attributes:
        arrived: The signal that came first, or None.
        cancel: Called once, when it comes.
    """

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None, "commands run in a task"
        self.cancel: Callable[[], object] = task.cancel
        self.arrived: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def code(self) -> int:
        """The exit code for the signal that came."""
        assert self.arrived is not None, "asked for after a signal"
        return _CODES[self.arrived]

    def __enter__(self) -> Self:
        # Not the loop's own handlers: they wait for a loop that a tool may be blocking.
        with suppress(ValueError):  # outside the main thread nothing is caught
            for number in _CODES:
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, _frame: object) -> None:
        if self.arrived is not None:
            os._exit(_CODES[number])
        self.arrived = number
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        self._screen.insist("agentflow: cancelling; once more ends at once")
        self.cancel()
