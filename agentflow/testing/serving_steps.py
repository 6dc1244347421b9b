"""How the steps of a serving engine pass while its batch stays the same."""

from __future__ import annotations

import math


class Steps:
    """Converts between time and steps, whole and parts of them, in closed form.

    While the batch stays the same every step takes a little longer than the one before, because
    each sequence has one more token of context: step x takes ``cost + growth * x`` seconds.
    """

    def __init__(self) -> None:
        self._at = 0.0
        self._steps = 0.0
        self._cost = 0.0
        self._growth = 0.0

    def change(self, at: float, steps: float, cost: float, growth: float) -> None:
        """From `at`, when `steps` have been made, the next takes `cost` and each `growth` more."""
        self._at, self._steps = at, steps
        self._cost, self._growth = cost, growth

    def when(self, steps: float) -> float:
        """When that many steps will have been made."""
        more = max(0.0, steps - self._steps)
        return self._at + more * (self._cost + 0.5 * self._growth * more)

    def by(self, now: float) -> float:
        """How many steps have been made by then."""
        gone = max(0.0, now - self._at)
        if gone == 0.0 or self._cost == 0.0:  # nothing to do takes no steps
            return self._steps
        root = math.sqrt(self._cost**2 + 2.0 * self._growth * gone)
        return self._steps + 2.0 * gone / (self._cost + root)
