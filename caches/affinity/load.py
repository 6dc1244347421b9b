"""What is at a replica, what of that others have sent, and how much of its time something takes."""

from __future__ import annotations

import math
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

LATELY = 10.0
"""Seconds after which what was done counts a third."""


class Busy:
    """What share of the time something is done, lately."""

    __slots__ = ("_at", "_share")

    def __init__(self) -> None:
        self._share = 0.0
        self._at = 0.0

    def note(self, seconds: float, now: float) -> None:
        """So many seconds of it have come."""
        self._share, self._at = self.share(now, seconds), now

    def share(self, now: float, more: float = 0.0) -> float:
        """The share, with so many seconds more; above 1 if there is no time for all of it."""
        return self._share * math.exp((self._at - now) / LATELY) + more / LATELY
