"""Work in threads that nobody walks away from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def settled(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Do something in a thread; whoever is cancelled waits until it has ended, one way or other.

    So what it works on can be closed, or removed, as soon as this is over.
    """
    return await stopped(_nothing, work, *args, **kwargs)


async def stopped(
    stop: Callable[[], object], work: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> R:
    """As `settled`, for work that can be told to end early.

    Args:
        stop: Called, in the loop's thread, when the caller is cancelled.
        work: Called in a thread.
        *args: For `work`.
        **kwargs: For `work`.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop()
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # looked at: the cancellation is what counts
        raise


def _nothing() -> None:
    """Work that cannot be told to end early."""
