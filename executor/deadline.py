"""The deadline of a run, as its calls see it: what would be late is not begun."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from agentflow.budgets.ledger import Ledger
from agentflow.errors import BudgetExceeded
from agentflow.executor.calls.bound import BoundCall, Invoke, Site
from agentflow.executor.models.ratelimit import RateLimiter


class Deadline:
    """When a run gives up.

    Args:
        ledger: Whose time it is.
        at: Loop time.
        loop: Whose time that is.

    Attributes:
        at: Loop time.
    """

    __slots__ = ("_ledger", "_loop", "at")

    def __init__(self, ledger: Ledger, at: float, loop: asyncio.AbstractEventLoop) -> None:
        self._ledger = ledger
        self._loop = loop
        self.at = at

    @classmethod
    def of(cls, ledger: Ledger, loop: asyncio.AbstractEventLoop) -> Deadline | None:
        """The deadline of a ledger that has begun, or None."""
        return None if ledger.deadline is None else cls(ledger, ledger.deadline, loop)

    def check(self, call: BoundCall) -> None:
        """Check that a call can end in time, as far as the last ones of its tool tell.

        Calls that models try are left to whatever chooses the models.

        Raises:
            BudgetExceeded: It cannot; the unit is seconds.
        """
        if _is_tried(call):
            return
        chance = self._ledger.least_chance
        slow = call.latencies.too_slow(self.at - self._loop.time(), chance)
        if slow is not None:
            took = f"{1 - chance:.0%} of its last calls took longer"
            self._require(slow, f"{call.tool.name} was not called, for {took}: ")

    def is_late(self, call: BoundCall) -> bool:
        """Whether another attempt at a call that is made already would likely end too late."""
        chance = self._ledger.least_chance
        if not chance or _is_tried(call):
            return False
        least = call.latencies.quantile(chance)
        return least is not None and least > self.at - self._loop.time()

    def check_turn(self, wait: float, limiter: RateLimiter, call: BoundCall) -> None:
        """Check that the turn that a call has taken comes in time; if not, it is given back.

        Raises:
            BudgetExceeded: It does not; the unit is seconds.
        """
        name = call.tool.name
        try:
            self._require(wait, f"{name} was not called, for its rate limit allows it too late: ")
        except BudgetExceeded:
            limiter.give_back(self._loop.time(), 0, request=True)
            raise

    def allowed(self, pause: float, error: Exception) -> float | None:
        """A pause before another attempt; None if the deadline comes first, which is noted."""
        if self._loop.time() + pause < self.at:
            return pause
        error.add_note(f"not tried again: after a pause of {pause:.5g} s the run's time is over")
        return None

    def checked(self, call: BoundCall) -> Invoke:
        """What makes an attempt of a call that can end in time; see `check`."""
        self.check(call)
        return self.timed(call)

    def timed(self, call: BoundCall) -> Invoke:
        """What makes an attempt, and notes how long it took if it gives a value."""
        return call.invoke if call.policy.hedge else partial(self._timed, call)

    async def _timed(
        self, call: BoundCall, args: Sequence[Any], kwargs: dict[str, Any], site: Site | None
    ) -> Any:
        began = self._loop.time()
        value = await call.invoke(args, kwargs, site)
        call.latencies.note(self._loop.time() - began)
        return value

    def _require(self, seconds: float, why: str) -> None:
        try:
            self._ledger.reserve(seconds=seconds)
        except BudgetExceeded as refused:
            raise BudgetExceeded(
                f"{why}{refused}",
                asked=refused.asked,
                left=refused.left,
                unit=refused.unit,
                when_spent=refused.when_spent,
            ) from None


def _is_tried(call: BoundCall) -> bool:
    """Whether models try the call: whoever chooses them judges the time."""
    return call.tool.sampling is not None and call.tool.sampling.chooses
