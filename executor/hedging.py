"""Hedging: a second attempt beside a first one that is slower than most; the first answer wins.

After Dean and Barroso, "The Tail at Scale" (2013): the second attempt is made once the first has
taken longer than 95 % of attempts do, which costs about 5 % more calls.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from agentflow.caches.flights import Spawn
from agentflow.clock import now
from agentflow.executor.gates import Gate
from agentflow.tools.values import fresh

WINDOW = 256
"""Attempts whose duration is remembered."""

ENOUGH = 20
"""Attempts after which their quantiles mean something."""

SLOW = 0.95
"""The quantile after which an attempt is slow."""


class Latencies:
    """How long the last attempts of a tool took, in seconds."""

    __slots__ = ("_last", "_sorted")

    def __init__(self) -> None:
        self._last: deque[float] = deque()
        self._sorted: list[float] = []

    def note(self, seconds: float) -> None:
        """An attempt gave a value after so long."""
        if len(self._last) == WINDOW:
            self._sorted.remove(self._last.popleft())
        self._last.append(seconds)
        insort(self._sorted, seconds)

    def quantile(self, share: float) -> float | None:
        """The duration that this share of attempts stayed below; None while they are few."""
        if len(self._last) < ENOUGH:
            return None
        return self._sorted[min(len(self._sorted) - 1, int(share * len(self._sorted)))]

    @property
    def mean(self) -> float | None:
        """The mean of all that are remembered; None before the first."""
        return sum(self._last) / len(self._last) if self._last else None


async def hedged(
    make: Callable[[Sequence[Any], dict[str, Any], Any], Coroutine[Any, Any, Any]],
    patience: float | bool,
    gate: Gate,
    latencies: Latencies,
    spawn: Spawn,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    site: Any,
) -> Any:
    """Make an attempt, and another beside it if the first is slow and there is room.

    Args:
        make: Makes one attempt.
        patience: Seconds until the second, or True for the 95th percentile so far.
        gate: The second attempt goes through it too, and never takes a place that a queued
            call could use.
        latencies: Of the tool.
        spawn: Starts the tasks that make the attempts.
        args: Valid positional arguments.
        kwargs: Valid keyword arguments.
        site: Where the call is made, or None; what the second attempt reports is not heard.

    Raises:
        Exception: What the first attempt raised, if no other gave a value.
    """
    spare = fresh(list(args)), fresh(kwargs)
    delay = latencies.quantile(SLOW) if patience is True else patience
    attempts = [_Attempt()]
    attempts[0].task = spawn(make(args, kwargs, site), "attempt")
    try:
        await asyncio.wait([attempts[0].task], timeout=delay)
        if not attempts[0].task.done():
            second = _Attempt()
            if gate.admit_guest(second):
                second.task = spawn(make(*spare, site and site.unheard()), "hedge")
                second.task.add_done_callback(lambda _: gate.part(second))
                attempts.append(second)
        winner = await _first(attempts)
    except asyncio.CancelledError:
        for attempt in attempts:
            attempt.task.cancel()
        await asyncio.wait([attempt.task for attempt in attempts])
        raise
    for attempt in attempts:
        attempt.task.cancel()
    latencies.note(now() - winner.began)
    return winner.task.result()


class _Attempt:
    """One of two attempts; as the guest of a gate it makes way for a call that queues."""

    worth = 0.0

    def __init__(self) -> None:
        self.began = now()
        self.task: asyncio.Task[Any]

    def leave(self) -> None:
        self.task.cancel()


async def _first(attempts: list[_Attempt]) -> _Attempt:
    """The first attempt that has a value.

    Raises:
        Exception: None has; what the first one raised.
    """
    waiting = {attempt.task: attempt for attempt in attempts}
    while waiting:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in [task for task in waiting if task in done]:
            if not task.cancelled() and task.exception() is None:
                return waiting[task]
            del waiting[task]
    attempts[0].task.result()
    raise AssertionError("an attempt that failed raises")
