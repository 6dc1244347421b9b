"""Whether a replica may be sent requests: a circuit breaker, and how long a silence may last."""

from __future__ import annotations

import math
import random
from collections import deque
from typing import Literal, TypeAlias

from agentflow.caches.affinity.fleet import Replica
from agentflow.caches.affinity.rates import Rates

State: TypeAlias = Literal["closed", "open", "half-open"]

IN_A_ROW = 3
"""Failures without a success between them after which a replica is left alone."""

WINDOW = 20
"""Last outcomes of which a share may be failures."""

FEWEST = 10
"""Outcomes in the window below which their share says nothing."""

SHARE = 0.5
"""Share of failures in the window at which a replica is left alone."""

FIRST_BACKOFF = 1.0
"""Seconds for which a replica is left alone the first time; each time in a row doubles them."""

LONGEST_BACKOFF = 30.0
"""Seconds that a replica is left alone at most before it is asked again."""

SHORTEST_SILENCE = 5.0
"""Seconds of silence that never make a replica suspicious."""

SILENCE = 8.0
"""By what factor a silence exceeds what was expected before a replica is suspicious."""

SLOW_SILENCE = 30.0
"""Seconds for which a replica may at least be silent that says it is there when it is asked."""

SLOWER = 4.0
"""By what factor its silence may exceed one that makes it suspicious."""

MOST_DOUBLINGS = 8
"""How often what is thought a long silence is doubled at most."""


class Breaker:
    """Leaves a replica alone that fails, and tries it again later, with one request.

    Closed, it lets everything through. Open, nothing until `until`; then somebody asks the
    replica whether it is there (`probed`). Half-open, one request is tried, and what becomes of
    it decides. Apart from that a replica may have asked for a rest, which is no failure.

    Args:
        chance: Spreads the moments at which it is tried again.

    Attributes:
        state: ``closed``, ``open`` or ``half-open``.
        until: When an open one is to be tried again, on the loop's clock.
        rested: Until when the replica asked to be left alone.
        why: What it failed with last.
    """

    __slots__ = ("_chance", "_outcomes", "_row", "_since", "_trips", "rested", "state", "until",
                 "why")  # fmt: skip

    def __init__(self, chance: random.Random) -> None:
        self.state: State = "closed"
        self.until = -math.inf
        self.rested = -math.inf
        self.why = ""
        self._chance = chance
        self._outcomes: deque[bool] = deque(maxlen=WINDOW)
        self._row = 0
        self._trips = 0
        self._since = -math.inf  # when the state changed

    def allows(self, now: float) -> bool:
        """Whether the replica may be sent requests."""
        return self.state != "open" and now >= self.rested

    def due(self, now: float) -> float | None:
        """When something changes though nothing happens: a probe is due, or a rest is over."""
        if self.state == "open":
            return max(self.until, self.rested)
        return self.rested if self.rested > now else None

    def succeeded(self, sent: float) -> None:
        """A request that was sent then was answered."""
        if self.state == "open" or sent < self._since:
            return
        self._row = 0
        self._outcomes.append(True)
        if self.state == "half-open":
            self._change("closed", sent)
            self._trips = 0

    def failed(self, sent: float, now: float, why: str, *, gone: bool = False) -> None:
        """A request that was sent then was not answered; `gone`: the replica is not there."""
        if self.state == "open" or sent < self._since:
            return  # it belongs to the trouble that is known
        self.why = why
        self._row += 1
        self._outcomes.append(False)
        if gone or self.state == "half-open" or self._row >= IN_A_ROW or self._is_poor():
            self._open(now)

    def probed(self, alive: bool, now: float) -> None:
        """What an open replica said when it was asked whether it is there."""
        if self.state != "open":
            return
        if alive:
            self._change("half-open", now)
        else:
            self._open(now)

    def rest(self, until: float, why: str) -> None:
        """The replica asked to be left alone until then."""
        self.rested = max(self.rested, until)
        self.why = why

    def _is_poor(self) -> bool:
        outcomes = self._outcomes
        failures = outcomes.count(False)
        return len(outcomes) >= FEWEST and failures >= SHARE * len(outcomes)

    def _open(self, now: float) -> None:
        backoff = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(self._trips, 16))
        self._trips += 1
        self.until = now + backoff * (0.5 + 0.5 * self._chance.random())
        self._change("open", now)

    def _change(self, state: State, now: float) -> None:
        self.state = state
        self._since = now
        self._row = 0
        self._outcomes.clear()


class Doubt:
    """What is thought of a replica's silences; each that meant nothing makes for more patience.

    Attributes:
        since: When it was asked whether it is there, on the loop's clock; None if its silence is
            not suspicious.
        alive: Whether it has answered that it is.
    """

    __slots__ = ("_doublings", "alive", "since")

    def __init__(self) -> None:
        self.since: float | None = None
        self.alive = False
        self._doublings = 0

    def long(self, expected: float) -> float:
        """Seconds of silence that are suspicious, by what `longest_silence` says."""
        return expected * 2.0**self._doublings

    def too_long(self, expected: float) -> float:
        """Seconds of silence that are too long for one that says it is there."""
        return max(SLOW_SILENCE, SLOWER * self.long(expected))

    def begin(self, now: float) -> None:
        """Its silence is suspicious now."""
        self.since, self.alive = now, False

    def spoke(self) -> None:
        """It has said something."""
        if self.since is not None:
            self._doublings = min(self._doublings + 1, MOST_DOUBLINGS)
            self.since = None

    def end(self) -> None:
        """Nobody waits for it any more."""
        self.since = None


def longest_silence(replica: Replica, rates: Rates) -> float:
    """Seconds without a sign of life after which a replica with requests is suspicious.

    All prompts that it was sent and has not begun to answer may be in the way of everything
    else: not every server computes them in small portions.

    Args:
        replica: What was sent to it.
        rates: How fast it is, or one like it.
    """
    work = sum(flight.uncached for flight in replica.flights.values() if flight.first is None)
    first = max(rates.prefill(work), rates.prefill(0.0) + rates.wait(work))
    expected = first + rates.decode(replica.load)
    return max(SHORTEST_SILENCE, SILENCE * expected)
