"""What a run did not have to do or wait for, counted from its events."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from agentflow import events

REASONS = {
    "memory": "from memory",
    "disk": "from disk",
    "shared": "shared with an equal call",
    "speculated": "started early",
    "journal": "from the journal",
}
"""Why a call was not made, by the source that an event names."""


@dataclass(slots=True)
class Savings:
    """Calls that were reused, and calls that were started before they were asked for.

    Attributes:
        made: Calls that were made, elements of maps one by one.
        reused: How many were not, by reason.
        seconds: What the reused ones took when they were made.
        started: Guesses that were started.
        used: Those that came true.
        wasted: Those that did not.
        overtaken: Calls that were predicted, but asked for before there was room.
        seconds_early: What of the used guesses was over when they were asked for.
        seconds_wasted: Work of the wasted ones.
        usd_wasted: Their price.
    """

    made: int = 0
    reused: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    started: int = 0
    used: int = 0
    wasted: int = 0
    overtaken: int = 0
    seconds_early: float = 0.0
    seconds_wasted: float = 0.0
    usd_wasted: Decimal = Decimal(0)
    _begun: set[tuple[str, int, int | None]] = field(default_factory=set)

    def take(self, event: events.Event) -> None:
        """Count one more event."""
        match event:
            case events.NodeStarted(attempt=1):
                self.made += 1
                self._begun.add(_place(event))
            case events.NodeReused():
                self.made -= self.has_begun(event)
                self.reused[event.source] += 1
                self.seconds += event.saved
            case events.NodeFinished() | events.NodeFailed() | events.NodeCancelled():
                self._begun.discard(_place(event))
            case events.SpeculationEvent():
                self._guessed(event)

    def has_begun(self, event: events.NodeEvent) -> bool:
        """Whether a call was started and has not ended, going by the events so far."""
        return _place(event) in self._begun

    def _guessed(self, event: events.SpeculationEvent) -> None:
        match event:
            case events.SpeculationStarted():
                self.started += 1
            case events.SpeculationUsed():
                self.used += 1
                self.seconds_early += event.saved
            case events.SpeculationWasted():
                self.wasted += 1
                self.seconds_wasted += event.seconds
                self.usd_wasted += Decimal(event.usd)
            case events.SpeculationOvertaken():
                self.overtaken += 1

    def as_dict(self) -> dict[str, Any]:
        """Both kinds as plain data."""
        reused = self.reused.total()
        total = self.made + reused
        return {
            "reuse": {
                "calls": total,
                "reused": reused,
                "share": round(reused / total, 4) if total else 0.0,
                "by": dict(self.reused),
                "seconds_saved": round(self.seconds, 6),
            },
            "speculation": {
                "started": self.started,
                "used": self.used,
                "wasted": self.wasted,
                "overtaken": self.overtaken,
                "seconds_saved": round(self.seconds_early, 6),
                "seconds_wasted": round(self.seconds_wasted, 6),
                "usd_wasted": str(self.usd_wasted),
            },
        }


def _place(event: events.NodeEvent) -> tuple[str, int, int | None]:
    return event.run, event.node, event.element
