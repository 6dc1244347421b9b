"""Hedging: a second attempt beside a first one that is slower than most; the first answer wins.

After Dean and Barroso, "The Tail at Scale" (2013): the second attempt is made once the first has
taken longer than 95 % of calls do, and for at most one call in twenty.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentflow.caches.cancelling import cancel_once
from agentflow.caches.flights import Spawn
from agentflow.clock import now
from agentflow.executor.models.ratelimit import RateLimiter
from agentflow.executor.state.gates import Gate
from agentflow.tools.policy import Policy
from agentflow.tools.values import fresh

if TYPE_CHECKING:
    from agentflow.executor.calls.bound import Invoke, Site

WINDOW = 256
"""Calls whose duration is remembered."""

ENOUGH = 20
"""Calls after which their quantiles mean something."""

EVERY = 20
"""Of so many calls one may have a second attempt."""

SAVED = 5
"""Second attempts that are still allowed after many calls that needed none."""

SLOW = 1 - 1 / EVERY
"""The quantile after which an attempt is slow."""

LONGER = 1.001
"""Times the quantile: an attempt that takes just as long as most do is not slow."""


class Latencies:
    """How long the last calls of a tool took, in seconds, hedged or not.

    Attributes:
        credit: Calls that have not been used to allow a second attempt yet.
    """

    __slots__ = ("_last", "_refused", "_sorted", "credit")

    def __init__(self) -> None:
        self.credit = 0
        self._refused = 0
        self._last: deque[float] = deque()
        self._sorted: list[float] = []

    def note(self, seconds: float) -> None:
        """A call gave a value so long after its first attempt began."""
        if len(self._last) == WINDOW:
            del self._sorted[bisect_left(self._sorted, self._last.popleft())]
        self.credit = min(self.credit + 1, SAVED * EVERY)
        self._last.append(seconds)
        insort(self._sorted, seconds)

    @property
    def known(self) -> Sequence[float]:
        """All that are remembered, ascending."""
        return self._sorted

    def quantile(self, share: float) -> float | None:
        """The duration that this share of calls stayed below; None while they are few."""
        if len(self._last) < ENOUGH:
            return None
        return self._sorted[min(len(self._sorted) - 1, int(share * len(self._sorted)))]

    def too_slow(self, left: float, share: float) -> float | None:
        """The duration that only this share of calls stayed below, if it is more than is left.

        Every so often there is none all the same: a tool that has become faster is to be noticed.
        """
        least = self.quantile(share) if share else None
        if least is None or least <= left:
            return None
        self._refused += 1
        return least if self._refused % EVERY else None

    @property
    def mean(self) -> float | None:
        """The mean of all that are remembered; None before the first."""
        return sum(self._last) / len(self._last) if self._last else None


@dataclass(frozen=True, slots=True)
class Hedge:
    """Makes an attempt, and another beside it if the first is slow and there is room.

    The second attempt has a place, a turn and money of its own, and can end in time, or is not
    made: it never takes what a call that was asked for could use.

    Attributes:
        make: Makes one attempt.
        policy: Says when the first is slow, and what an attempt costs.
        gate: Of the tool.
        limiter: Of the tool, or None.
        latencies: Of the tool.
        spawn: Starts the tasks that make the attempts.
    """

    make: Invoke
    policy: Policy
    gate: Gate
    limiter: RateLimiter | None
    latencies: Latencies
    spawn: Spawn

    async def __call__(self, args: Sequence[Any], kwargs: dict[str, Any], site: Site | None) -> Any:
        """The value of the first attempt that has one.

        Args:
            args: Valid positional arguments.
            kwargs: Valid keyword arguments.
            site: Where the call is made; what the second attempt reports is not heard.

        Raises:
            Exception: What the first attempt raised, if no other gave a value.
        """
        assert site is not None, "the second attempt is paid for and told of"
        spare = fresh(list(args)), fresh(kwargs)
        first = _Attempt()
        first.task = self.spawn(self.make(args, kwargs, site), "attempt")
        attempts = [first]
        try:
            await asyncio.wait([first.task], timeout=self._patience())
            if not first.task.done() and (second := self._second(spare, site)) is not None:
                attempts.append(second)
                site.hedged(now() - first.began)
            winner = await _first(attempts)
        except asyncio.CancelledError:
            for attempt in attempts:
                attempt.leave()
            await asyncio.wait([attempt.task for attempt in attempts])
            raise
        # Of a first attempt that was beaten it is known that it would have taken longer.
        self.latencies.note(now() - first.began)
        self._dismiss(attempts)
        return winner.task.result()

    def _patience(self) -> float | None:
        """Seconds until a second attempt; None for never."""
        if self.policy.hedge is not True:
            return self.policy.hedge
        slow = self.latencies.quantile(SLOW)
        return None if slow is None else slow * LONGER

    def _second(self, given: tuple[list[Any], dict[str, Any]], site: Site) -> _Attempt | None:
        second, counted = _Attempt(), self.policy.hedge is True
        # A slow attempt that is beaten never tells how slow: the quantile alone drifts down.
        if counted and self.latencies.credit < EVERY:
            return None
        if not self.gate.admit_guest(second):
            return None
        if not self._has_means(site):
            self.gate.vacate(second)
            return None
        second.task = self.spawn(self.make(*given, site.unheard()), "hedge")
        second.task.add_done_callback(lambda _: self.gate.ended(second))
        self.latencies.credit -= EVERY if counted else 0
        return second

    def _has_means(self, site: Site) -> bool:
        """Take a turn, time and the money for a second attempt, if all are there at once."""
        at, usd = now(), self.policy.usd
        has_turn = self.limiter is None or self.limiter.delay(at) <= 0
        if has_turn and site.spend(usd):
            return True
        if self.limiter is not None:
            self.limiter.give_back(at, 0, request=True)
        return False

    def _dismiss(self, attempts: list[_Attempt]) -> None:
        """Cancel who lost; the call ends before they have."""
        first = attempts[0]
        if not first.task.done():
            self.gate.outstay(first)
            first.task.add_done_callback(lambda _: self.gate.ended(first))
        for attempt in attempts:
            attempt.leave()


class _Attempt:
    """One of two attempts; as the guest of a gate it makes way for a call that queues."""

    worth = 0.0

    def __init__(self) -> None:
        self.began = now()
        self.task: asyncio.Task[Any]

    def leave(self) -> None:
        cancel_once(self.task)


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
