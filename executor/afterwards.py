"""Work of a run that goes on when no call waits for it: the run is not over before it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from agentflow.executor.services import Services


class Afterwards:
    """Waits for such work, but not for longer than cancelled work has to end.

    Args:
        services: Takes what would not end.

    Attributes:
        over: Called when the last of it has ended, or was given up on; set by the driver.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._timers: dict[asyncio.Task[Any], asyncio.TimerHandle] = {}
        self.over: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._timers)

    def wait_for(self, task: asyncio.Task[Any]) -> None:
        """Wait for a task that ends, or was cancelled."""

        def give_up() -> None:
            self._services.abandon(task, task.get_name())
            self._ended(task)

        loop = asyncio.get_running_loop()
        self._timers[task] = loop.call_later(self._services.limits.grace, give_up)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if (timer := self._timers.pop(task, None)) is not None:
            timer.cancel()
            if not self._timers:
                self.over()
