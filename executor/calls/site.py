"""Where a call is made: what a tool may learn of its run, and report to it."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from agentflow.context import Context
from agentflow.errors import BudgetExceeded
from agentflow.executor.calls.bound import BoundCall
from agentflow.executor.calls.threads import from_anywhere
from agentflow.executor.state.commands import RUNNING

if TYPE_CHECKING:
    from agentflow.executor.calls.running import Running


class CallSite:
    """One attempt of one call of a run."""

    __slots__ = ("_attempt", "_call", "_driver", "_finishing", "_over", "_slot")

    def __init__(self, driver: Running, slot: int, attempt: int, call: BoundCall) -> None:
        self._driver = driver
        self._slot = slot
        self._attempt = attempt
        self._call = call
        self._over = False
        self._finishing = False

    def close(self) -> None:
        """The attempt is over; a thread of it may run on, and is not heard."""
        self._over = True

    def unheard(self) -> CallSite:
        """The site of a second attempt beside this one: what it reports was heard, or will be."""
        twin = CallSite(self._driver, self._slot, self._attempt, self._call)
        twin.close()
        return twin

    def spend(self, usd: Decimal) -> bool:
        """Pay for a second attempt before it begins, if there is enough left, of time too.

        Who began the call and has left begins no more.
        """
        deadline = self._driver.deadline
        if self._over or (deadline is not None and deadline.is_late(self._call)):
            return False
        try:
            self._driver.ledger.reserve(usd).settle(usd)
        except BudgetExceeded:
            return False
        return True

    def hedged(self, after: float) -> None:
        """A second attempt began, `after` seconds into the first."""
        if self._driver.teller is not None and not self._over:
            self._driver.teller.hedged(self._slot, after)

    def finishing(self) -> None:
        """The call has its value; what follows is not its own time."""
        self._finishing = True
        if not self._over:
            self._driver.timers.stop(self._slot)

    def context(self) -> Context:
        """The `Context` of this attempt."""
        driver = self._driver
        node, element = driver.state.where(self._slot)
        suffix = "" if element is None else f"[{element}]"
        return Context(
            driver.run,
            node,
            self._attempt,
            None if driver.deadline is None else driver.deadline.at,
            partial(from_anywhere, driver.loop, self.emit),
            lambda: driver.key(node) + suffix,
            driver.loop.time,
        )

    def emit(self, data: Any) -> None:
        """Report something while the tool works; a sign of life. From the loop's thread only."""
        driver, slot = self._driver, self._slot
        if self._over or driver.state.status[slot] is not RUNNING:
            return  # it was given up on
        if (idle := self._call.policy.idle) is not None and not self._finishing:
            driver.timers.touch(slot, idle)
        if driver.teller is not None:
            driver.teller.emitted(slot, data)
