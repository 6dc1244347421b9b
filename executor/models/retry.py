"""When a failed model call is tried again, and after how long."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentflow.errors import BackendError

if TYPE_CHECKING:
    from tenacity import RetryCallState
    from tenacity.wait import wait_base

    Wait = wait_base | Callable[[RetryCallState], float | int]

LONGEST_WAIT = 60.0
"""Seconds of ``Retry-After`` above which the failure goes to the caller at once."""


@dataclass(slots=True)
class RetryPolicy:
    """How often, and after how long, a call that a backend failed is made again.

    Attributes:
        max_retries: Attempts after the first.
        wait: A wait strategy of tenacity; None doubles from half a second up to 8.
        chance: Spreads the waits, so that callers who failed together do not return together.
    """

    max_retries: int = 2
    wait: Wait | None = None
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    def delay(self, attempt: int, error: BackendError) -> float | None:
        """Seconds to wait after this attempt (from 1) failed; None when it was the last."""
        if attempt > self.max_retries or not error.retryable:
            return None
        if error.retry_after is not None:
            spread = 0.1 * self.chance.random()
            return error.retry_after + spread if error.retry_after <= LONGEST_WAIT else None
        return self._backoff(attempt) * (0.5 + 0.5 * self.chance.random())

    def _backoff(self, attempt: int) -> float:
        import tenacity

        if self.wait is None:
            self.wait = tenacity.wait_exponential(multiplier=0.5, max=8)
        state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
        state.attempt_number = attempt
        return float(self.wait(state))
