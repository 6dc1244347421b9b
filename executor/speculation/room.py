"""Room for guesses: nothing that was asked for waits for what they take."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from agentflow.caches.speculation.foresight import Foresight
from agentflow.errors import BudgetExceeded
from agentflow.executor.calls.billing import Advance
from agentflow.executor.services import Services
from agentflow.executor.speculation.guesses import Guess

if TYPE_CHECKING:
    from agentflow.executor.run import Run


class Room:
    """Says whether a guess of one run may start.

    Args:
        foresight: What the engine may spend on guesses.
        services: What the engine's runs share.
        run: The run.
    """

    def __init__(self, foresight: Foresight, services: Services, run: Run[Any]) -> None:
        self._foresight = foresight
        self._services = services
        self._run = run
        self._loop = asyncio.get_running_loop()

    def admits(self, guess: Guess, others: Collection[Guess]) -> bool:
        """Whether a guess may start; if it may, it has its place and its money."""
        under_way = [other for other in others if other.seconds is None]
        if len(under_way) >= self._foresight.policy.breadth or self._run.driver.state.crowded:
            return False
        call = guess.call
        if call.tool.kind == "thread" and not self._has_threads(under_way):
            return False
        if call.policy.usd and not self._advance(guess):
            return False
        if call.gate.admit_guest(guess):
            now = self._loop.time()
            if call.limiter is None or call.limiter.delay(now) <= 0:
                return True
            call.limiter.give_back(now, 0, request=True)
            call.gate.vacate(guess)
        if guess.bill is not None:
            guess.bill.waive()
        return False

    def _advance(self, guess: Guess) -> bool:
        """Set the price of a guess aside; not where it would be taken from what calls may cost."""
        if self._foresight.policy.budget is None and self._run.ledger.left.usd is not None:
            return False
        try:
            foresight, usd = self._foresight, guess.call.policy.usd
            guess.bill = Advance(foresight.ledger, usd)
        except BudgetExceeded:
            return False
        return True

    def _has_threads(self, under_way: Collection[Guess]) -> bool:
        """Whether a guess may take a thread: half of them are for calls that were asked for."""
        taken = sum(guess.call.tool.kind == "thread" for guess in under_way)
        services = self._services
        return taken < services.limits.threads // 2 and services.threads.spare
