"""How a task that several may want to end is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any


def cancel_once(task: asyncio.Task[Any]) -> None:
    """Cancel a task, unless that has been done: a second time would cut off its cleaning up."""
    if not task.cancelling():
        task.cancel()
