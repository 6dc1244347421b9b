"""Where the time of programs goes, in `agent.py`: what was under way for each at every moment.

Several things are under way at once; a moment belongs to the first of `PARTS` that is. What tools
do while a reply is written takes no time of its own, then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise

from agentflow.clock import now
from agentflow.testing.serving import ChangeKind

MAIN = "main"
"""The model that replicas serve; the others are asked for estimates."""

PARTS = ("decode", "prefill", "queue", "held", "estimates", "tools")
"""A reply is written, a prompt is computed, waits at its server, is held back before it, ..."""

BETWEEN, FAILED = "between", "failed"
"""Nothing of all that; what a program that failed counts until its deadline."""

PROGRAM: ContextVar[str] = ContextVar("program", default="")
"""The program that runs here."""

Spans = Sequence[tuple[str, float, float]]


class Times:
    """What was under way for each program, from when to when, in seconds."""

    def __init__(self) -> None:
        self._spans: dict[str, list[tuple[str, float, float]]] = defaultdict(list)

    def add(self, owner: str, part: str, began: float, ended: float) -> None:
        """Note a span."""
        self._spans[owner].append((part, began, ended))

    def served(
        self, owner: str, model: str, came: float, moments: Mapping[ChangeKind, float]
    ) -> None:
        """Note a request that is over now: when it came, was begun and had its first token."""
        ended = now()
        if model != MAIN:
            self.add(owner, "estimates", came, ended)
            return
        started = moments.get("started", ended)
        first = moments.get("first", ended)
        self.add(owner, "queue", came, started)
        self.add(owner, "prefill", started, first)
        self.add(owner, "decode", first, ended)

    @contextmanager
    def during(self, part: str) -> Iterator[None]:
        """Note how long the block takes, for the program that runs here."""
        began = now()
        try:
            yield
        finally:
            self.add(PROGRAM.get(), part, began, now())

    def shares(self, owner: str, began: float, ended: float) -> dict[str, float]:
        """Seconds of each part between two moments."""
        return shares(self._spans.get(owner, ()), began, ended)


def shares(spans: Spans, began: float, ended: float) -> dict[str, float]:
    """Seconds of each part between two moments: every moment belongs to one."""
    cuts = {min(max(at, began), ended) for _, *both in spans for at in both}
    moments = sorted({began, ended, *cuts})
    found = dict.fromkeys((*PARTS, BETWEEN), 0.0)
    for first, last in pairwise(moments):
        under_way = {part for part, since, until in spans if since <= first and last <= until}
        found[next((part for part in PARTS if part in under_way), BETWEEN)] += last - first
    return found
