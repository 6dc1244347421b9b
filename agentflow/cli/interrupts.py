"""Ctrl-C and SIGTERM: the first cancels cleanly, a second ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from agentflow.cli.screen import Screen

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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

    @property
    def code(self) -> int:
        """The exit code for the signal that came."""
        return 128 + (self.arrived or 0)

    def __enter__(self) -> Self:
        # Not on every platform, nor outside the main thread: there Ctrl-C raises.
        with suppress(NotImplementedError, RuntimeError, ValueError):
            for number in _SIGNALS:
                self._loop.add_signal_handler(number, self._take, number)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(NotImplementedError, RuntimeError, ValueError):
            for number in _SIGNALS:
                self._loop.remove_signal_handler(number)

    def _take(self, number: int) -> None:
        if self.arrived is not None:
            self._screen.clear()
            os._exit(128 + number)
        self.arrived = number
        self._screen.insist("agentflow: cancelling; once more ends at once")
        self.cancel()
