"""What is at a replica, and what of that others have sent."""

from __future__ import annotations

from dataclasses import dataclass

OLD = 15.0
"""Seconds for which what a server told of its load is believed: three looks at it."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is at a replica.

    Attributes:
        requests: Those that it works on, and those that wait there.
        waiting: Of these, those that wait.
        tokens: Of KV that those hold which it works on.
    """

    requests: int = 0
    waiting: int = 0
    tokens: float = 0.0

    def beyond(self, own: Load) -> Load:
        """What others have sent of this; what of `own` had not come there yet hides as much."""
        requests = max(0, self.requests - own.requests)
        waiting = min(requests, max(0, self.waiting - own.waiting))
        return Load(requests, waiting, max(0.0, self.tokens - own.tokens) if requests else 0.0)


NOTHING = Load()
