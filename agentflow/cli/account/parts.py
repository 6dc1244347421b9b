"""Calls that began while a model still wrote them, counted from the events of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agentflow import events
from agentflow.cli.output import gist


@dataclass(slots=True)
class Part:
    """A call that has begun and is not certain yet.

    Attributes:
        tool: What it calls.
        began: When its warm-up, or the tool itself, began, on the loop's clock.
        arguments: What the tool began with; None while only its warm-up runs.
    """

    tool: str
    began: float
    arguments: dict[str, Any] | None = None

    @property
    def line(self) -> str:
        """It in the notation, as far as it is known."""
        if self.arguments is None:
            return f"{self.tool}(…) warms up"
        given = "".join(f"{name}={gist(value)}, " for name, value in self.arguments.items())
        return f"{self.tool}({given}…)"


@dataclass(slots=True)
class Parts:
    """What partial execution brought a run and the runs it started.

    Attributes:
        open: Parts whose call is not certain yet, by run and number.
        committed: Calls that were made by what had begun before.
        retracted: What had begun in vain.
        seconds_hidden: Work that was done while the model still wrote.
        seconds_wasted: How long that had been under way, waiting for arguments included.
        stopped: Replies that were stopped at what could not be called or read.
        tokens: How many these had by then.
        spared: How many more they were allowed.
    """

    open: dict[tuple[str, int], Part] = field(default_factory=dict)
    committed: int = 0
    retracted: int = 0
    seconds_hidden: float = 0.0
    seconds_wasted: float = 0.0
    stopped: int = 0
    tokens: int = 0
    spared: int = 0

    @property
    def began(self) -> int:
        """How many calls began before they were certain."""
        return self.committed + self.retracted + len(self.open)

    def take(self, event: events.Event) -> None:
        """Count one more event."""
        match event:
            case events.ReplyStopped():
                self.stopped += 1
                self.tokens += event.tokens
                self.spared += event.spared
            case events.PartialEvent():
                self._part(event)
            case _ if isinstance(event, events.TERMINAL):
                for run, number in list(self.open):
                    if run == event.run:
                        self._retract((run, number), event.at)

    def _part(self, event: events.PartialEvent) -> None:
        place = event.run, event.number
        match event:
            case events.PartialWarmed():
                self.open[place] = Part(event.tool, event.at)
            case events.PartialStarted():
                part = self.open.setdefault(place, Part(event.tool, event.at))
                part.arguments = event.arguments
            case events.PartialCommitted() if place in self.open:
                del self.open[place]
                self.committed += 1
                self.seconds_hidden += event.hidden
            case events.PartialRetracted() if place in self.open:  # else there was no room for it
                self._retract(place, event.at)

    def _retract(self, place: tuple[str, int], at: float) -> None:
        self.retracted += 1
        self.seconds_wasted += at - self.open.pop(place).began

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "began": self.began,
            "committed": self.committed,
            "retracted": self.retracted,
            "seconds_hidden": round(self.seconds_hidden, 6),
            "seconds_wasted": round(self.seconds_wasted, 6),
            "replies_stopped": self.stopped,
            "tokens_spared": self.spared,
        }
