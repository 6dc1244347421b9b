"""Samples of models, and what was thought of the chances, counted from the events of a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from agentflow import events

OUTCOMES = ("passed", "refused", "failed", "cancelled")
"""How a sample can end, in the order they are told."""

DEFAULT = "the model"
"""How the default model is called where no other name is known."""


@dataclass(slots=True)
class Record:
    """The samples of one model.

    Attributes:
        outcomes: How many ended how.
        usd: What they cost.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    usd: Decimal = Decimal(0)

    def as_dict(self) -> dict[str, Any]:
        """The record as plain data."""
        counts = {outcome: self.outcomes[outcome] for outcome in OUTCOMES}
        return {"samples": self.outcomes.total(), **counts, "usd": f"{self.usd:f}"}


@dataclass(slots=True)
class Samples:
    """What was tried in a run and the runs it started, and what came of it.

    Attributes:
        open: Samples under way, by run and number.
        models: Those that ended, by model.
        calls: The calls that were tried, by run, node and element.
        nodes: The same by run and node alone.
        passed: Those calls that have an answer, and the model it is from.
        why: For what reason how many samples were cancelled.
        saved: USD that were set aside for cancelled samples and came back.
        lost: Seconds and USD of samples that were cancelled.
        decisions: How often it was decided what to begin.
        deciding: Seconds that took.
        at_start: The probability of success when the first run that decides began, or None.
        at_end: The same as it was thought last.
    """

    open: dict[tuple[str, int], events.SampleStarted] = field(default_factory=dict)
    models: dict[str, Record] = field(default_factory=dict)
    calls: set[tuple[str, int, int | None]] = field(default_factory=set)
    nodes: set[tuple[str, int | None]] = field(default_factory=set)
    passed: dict[tuple[str, int, int | None], str] = field(default_factory=dict)
    why: Counter[str] = field(default_factory=Counter)
    saved: Decimal = Decimal(0)
    lost: tuple[float, Decimal] = (0.0, Decimal(0))
    decisions: int = 0
    deciding: float = 0.0
    at_start: float | None = None
    at_end: float | None = None
    _first: str = ""

    def take(self, event: events.Event) -> None:
        """Count one more event."""
        match event:
            case events.Allocated():
                self._decided(event)
            case events.SampleStarted():
                self.open[event.run, event.number] = event
                self.calls.add((event.run, event.node, event.element))
                self.nodes.add((event.run, event.node))
            case events.SampleEnded():
                self._ended(event)
            case _ if isinstance(event, events.TERMINAL):
                for run, number in list(self.open):
                    if run == event.run:
                        del self.open[run, number]

    def under_way(self, run: str, node: int) -> Counter[str]:
        """How many samples of which model are under way for a call."""
        here = (s for s in self.open.values() if (s.run, s.node) == (run, node))
        return Counter(sample.model or DEFAULT for sample in here)

    def outcomes(self) -> Counter[str]:
        """How many samples ended how."""
        return sum((record.outcomes for record in self.models.values()), Counter())

    def _decided(self, event: events.Allocated) -> None:
        self._first = self._first or event.run
        self.decisions += 1
        self.deciding += event.seconds
        if event.probability is not None and event.run == self._first:
            self.at_end = event.probability
            self.at_start = event.probability if self.at_start is None else self.at_start

    def _ended(self, event: events.SampleEnded) -> None:
        self.open.pop((event.run, event.number), None)
        record = self.models.setdefault(event.model, Record())
        record.outcomes[event.outcome] += 1
        record.usd += Decimal(event.usd)
        place = event.run, event.node, event.element
        if event.outcome == "passed":
            self.passed.setdefault(place, event.model)
        elif event.outcome == "cancelled":
            self.why["another passed" if place in self.passed else event.why] += 1
            self.lost = self.lost[0] + event.seconds, self.lost[1] + Decimal(event.usd)
        self.saved += Decimal(event.saved)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        outcomes = self.outcomes()
        return {
            "probability": {"start": self.at_start, "end": self.at_end},
            "decisions": self.decisions,
            "seconds_deciding": round(self.deciding, 6),
            "samples": outcomes.total(),
            **{outcome: outcomes[outcome] for outcome in OUTCOMES},
            "cancelled_because": dict(self.why),
            "usd_saved": f"{self.saved:f}",
            "models": {name: record.as_dict() for name, record in self.models.items()},
        }
