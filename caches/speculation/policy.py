"""Whether a call is worth starting before anybody asks for it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentflow.budgets.budget import Budget
from agentflow.caches.speculation.candidates import CandidateSource
from agentflow.errors import DefinitionError

_ORIGIN = re.compile(r"(?<![a-z0-9+.-])[a-z0-9+.-]*://[^\s/?#]*", re.IGNORECASE)


OVERHEAD = 0.001
"""Seconds of the loop that a guess takes, right or wrong."""


@dataclass(frozen=True, slots=True)
class Speculation:
    """How an engine speculates: what it may start early, and what waiting is worth.

    A call is started early if ``probability x seconds saved x wait_price`` is more than
    ``(1 - probability) x (its price + its seconds x load_price)``, and what it takes the loop
    to guess at all (`OVERHEAD`).

    Attributes:
        source: Who names the calls that may come next; a `Predictor` of the engine's own by
            default.
        breadth: Calls of one run under way at once that nobody has asked for.
        depth: How many guesses may rest on one another.
        waste: Guesses in vain for each one that comes true, at most, in the long run.
        wait_price: USD that a second of waiting saved is worth.
        load_price: USD that a second of a tool's work costs whoever runs it.
        budget: What may be spent on guesses, those that come true not counted.
        origins: Origins such as ``https://api.example.com`` that guesses may contact besides
            those the run has contacted already.
        memory: File that keeps what the predictor has learnt, or None.
    """

    source: CandidateSource | None = None
    breadth: int = 8
    depth: int = 2
    waste: float = 2.0
    wait_price: float = 0.01
    load_price: float = 0.0005
    budget: Budget | None = None
    origins: tuple[str, ...] = ()
    memory: str | Path | None = None

    def __post_init__(self) -> None:
        """Refuse what would not be speculation.

        Raises:
            DefinitionError: A value is out of range, or of the wrong type.
        """
        for name in ("breadth", "depth"):
            _at_least(name, getattr(self, name), 1, int)
        for name in ("waste", "wait_price", "load_price"):
            _at_least(name, getattr(self, name), 0, int | float)
        if not isinstance(self.budget, Budget | None):
            raise DefinitionError(f"Speculation(budget={self.budget!r}): write Budget(usd=...)")
        if isinstance(self.origins, str):  # type: ignore[unreachable]  # untyped code may
            raise DefinitionError("Speculation(origins=...) takes several: write a tuple of them")
        object.__setattr__(self, "origins", tuple(map(_origin, self.origins)))

    def gain(self, probability: float, seconds: float, usd: float, delay: float = 0.0) -> float:
        """Expected USD gained by starting a call early; not worth it unless above zero.

        Args:
            probability: That the call is made.
            seconds: What it takes.
            usd: What it costs.
            delay: Seconds that a guess gone wrong makes another call wait (a rate limit).
        """
        lost = usd + seconds * self.load_price + delay * self.wait_price
        saved = probability * seconds - OVERHEAD
        return saved * self.wait_price - (1.0 - probability) * lost


def _at_least(name: str, value: Any, least: int, kind: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, kind):
        raise DefinitionError(f"Speculation({name}={value!r}): it must be a number")
    if not value >= least:
        raise DefinitionError(f"Speculation({name}={value}): it must be {least} or more")


def _origin(text: Any) -> str:
    """An origin as URLs among arguments give it."""
    match = _ORIGIN.match(text.strip()) if isinstance(text, str) else None
    if match is None or match[0].endswith("://"):
        raise DefinitionError(
            f"Speculation(origins=...): {text!r} is no origin such as 'https://api.example.com'"
        )
    return match[0].lower()


def origins_in(arguments: Mapping[str, Any]) -> Iterator[str]:
    """The origins of the URLs among the arguments of a call."""
    todo = list(arguments.values())
    while todo:
        value = todo.pop()
        if isinstance(value, Mapping):
            todo += value.values()
        elif isinstance(value, list | tuple | set):
            todo += value
        elif isinstance(value, str) and "://" in value:
            yield from map(str.lower, _ORIGIN.findall(value))


class Bar:
    """The least probability that is worth a guess: so high that no more is wasted than may be.

    Every guess in vain raises it a little, every one that came true lowers it, in such a
    proportion that it comes to rest where the share of guesses in vain is the one allowed.

    Args:
        waste: Guesses in vain for each one that came true, at most.

    Attributes:
        level: The least probability.
    """

    START, LEAST, MOST = 0.08, 0.02, 0.5
    STEP = 0.02
    CAUTION = 0.85  # the share of `waste` that is aimed at

    def __init__(self, waste: float) -> None:
        aim = self.CAUTION * waste
        self._allowed = aim / (1.0 + aim)
        self.level = self.START

    def note(self, kept: bool) -> None:
        """A guess came true, or did not."""
        level = self.level * math.exp(self.STEP * ((not kept) - self._allowed))
        self.level = min(self.MOST, max(self.LEAST, level))


class Depth:
    """How deep guesses may rest on one another: as deep as they come true often enough.

    Args:
        most: The deepest.
    """

    START = 0.5
    ENOUGH = 0.2
    RATE = 0.05

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept = [self.START] * (most + 1)  # share that came true, by depth

    @property
    def allowed(self) -> int:
        """The deepest guess that may be made now."""
        for depth in range(2, self._most + 1):
            if self._kept[depth] < self.ENOUGH:
                return depth - 1
        return self._most

    def note(self, depth: int, kept: bool) -> None:
        """A guess came true, or did not."""
        self._kept[depth] += self.RATE * (kept - self._kept[depth])
        for deeper in range(depth + 1, self._most + 1):  # forget, so that it is tried again
            self._kept[deeper] += self.RATE * 0.1 * (self.START - self._kept[deeper])
