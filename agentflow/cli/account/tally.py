"""What happened in a run, counted from its events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from agentflow import events
from agentflow.cli.account.parts import Parts
from agentflow.cli.account.prompts import Prompts
from agentflow.cli.account.samples import Samples
from agentflow.cli.account.savings import Savings
from agentflow.cli.account.spans import ENDS, number_of, tool_of
from agentflow.cli.account.timeline import Timeline, record_of
from agentflow.cli.output import gist

ENDED: Mapping[type[events.Event], str] = {
    kind: ENDS[events.event_name(kind)]
    for kind in (
        events.NodeFinished,
        events.NodeFailed,
        events.NodeSkipped,
        events.NodeCancelled,
    )
}
"""How a call ended, by the event that says so."""


@dataclass(slots=True)
class Call:
    """A call of a run, or a map of calls.

    Attributes:
        run: Id of its run.
        node: Its plan id.
        tool: What it calls.
        line: It in the notation.
        status: ``waiting``, ``running``, ``asked``, or how it ended.
        began: When it was first started or reused, on the loop's clock; None if it never was.
        ended: When it ended, or None.
        attempts: How often it was started (of a map: the most for one element).
        elements: Elements that were started or reused, if it is a map.
        settled: Elements that have ended.
        reused: How often it, or an element, was not made again, by reason.
        hedged: How often it, or an element, had a second attempt beside a slow first one.
        hidden: Seconds of its work that were over before it was certain; None if it began then.
        told: What it reported last.
        asked: Since when somebody is asked before it is made, and has not answered; or None.
        waited: Seconds for which it only waited for an answer.
        error: Why it failed.
    """

    run: str
    node: int
    tool: str
    line: str = ""
    status: str = "waiting"
    began: float | None = None
    ended: float | None = None
    attempts: int = 0
    elements: int = 0
    settled: int = 0
    reused: Counter[str] = field(default_factory=Counter)
    hedged: int = 0
    hidden: float | None = None
    told: str = ""
    asked: float | None = None
    waited: float = 0.0
    error: str = ""

    @property
    def name(self) -> str:
        """The call as it is named to people."""
        return f"${self.number} {self.tool}"

    @property
    def number(self) -> int:
        """The id of its line; a model's own where it wrote the plan."""
        return number_of(self.line, self.node)

    @property
    def seconds(self) -> float:
        """How long it took, waiting between attempts included, and for answers not."""
        if self.began is None or self.ended is None:
            return 0.0
        return max(0.0, self.ended - self.began - self.waited)

    def as_dict(self) -> dict[str, Any]:
        """The call as plain data."""
        data: dict[str, Any] = {
            "run": self.run,
            "id": self.number,
            "tool": self.tool,
            "status": self.status,
            "seconds": round(self.seconds, 6),
            "attempts": self.attempts,
        }
        if self.elements:
            data["elements"] = self.elements
        if self.reused:
            data["reused"] = dict(self.reused)
        if self.hedged:
            data["hedged"] = self.hedged
        if self.hidden is not None:
            data["seconds_hidden"] = round(self.hidden, 6)
        if self.error:
            data["error"] = self.error
        return data


@dataclass(slots=True)
class Tally:
    """Counts the events of a run and of the runs it starts.

    Attributes:
        calls: Every call, by run and plan id, in the order of the plans.
        depths: How deep each run lies in the one that was started.
        models: The model calls that ended.
        savings: What need not be done, or was done early.
        parts: What was done while a model still wrote.
        samples: What several models tried.
        prompts: What prompts cost, and where they were sent.
        timeline: When everything began and ended.
        began: When the first run began, on the loop's clock.
        ended: When the last event came.
    """

    calls: dict[tuple[str, int], Call] = field(default_factory=dict)
    depths: dict[str, int] = field(default_factory=dict)
    models: list[events.ModelReplied] = field(default_factory=list)
    savings: Savings = field(default_factory=Savings)
    parts: Parts = field(default_factory=Parts)
    samples: Samples = field(default_factory=Samples)
    prompts: Prompts = field(default_factory=Prompts)
    timeline: Timeline = field(default_factory=Timeline)
    began: float = 0.0
    ended: float = 0.0

    def take(self, event: events.Event) -> None:
        """Count one more event."""
        self.ended = event.at
        self.savings.take(event)
        self.parts.take(event)
        self.samples.take(event)
        self.prompts.take(event)
        if (record := record_of(event)) is not None:
            self.timeline.take(record)
        if isinstance(event, events.TERMINAL):
            self._over(event)
        if (reaction := _REACTIONS.get(type(event))) is not None:
            reaction(self, event)

    def of(self, event: events.NodeEvent | events.PartialCommitted) -> Call:
        """The call of an event."""
        key = (event.run, event.node)
        if (call := self.calls.get(key)) is None:
            call = self.calls[key] = Call(event.run, event.node, event.tool)
        return call

    def running(self) -> Iterator[Call]:
        """The calls that are running."""
        return (call for call in self.calls.values() if call.status == "running")

    def count(self, *statuses: str) -> int:
        """How many calls have one of these statuses."""
        return sum(call.status in statuses for call in self.calls.values())

    @property
    def seconds(self) -> float:
        """From the first event to the last."""
        return self.ended - self.began

    def usage(self) -> dict[str, Any]:
        """Model calls, tokens and USD, as plain data."""
        return {
            "model_calls": sum(not reply.warmed for reply in self.models),
            "prompt_tokens": sum(reply.prompt_tokens for reply in self.models),
            "completion_tokens": sum(reply.completion_tokens for reply in self.models),
            "cached_tokens": sum(reply.cached_tokens or 0 for reply in self.models),
            "usd": str(sum((Decimal(reply.usd) for reply in self.models), Decimal(0))),
            "estimated": any(reply.estimated for reply in self.models),
        }

    def _began(self, event: events.RunStarted) -> None:
        if not self.depths:
            self.began = event.at
        above = -1 if event.parent is None else self.depths.get(event.parent, -1)
        self.depths[event.run] = above + 1

    def _over(self, event: events.Event) -> None:
        """A run has ended: what was not told to have ended is cancelled."""
        for call in self.calls.values():
            if call.run == event.run and call.ended is None:
                call.status, call.ended = "cancelled", event.at

    def _planned(self, event: events.PlanExtended) -> None:
        for node, line in zip(event.nodes, event.lines, strict=True):
            self.calls[event.run, node] = Call(event.run, node, tool_of(line), line)

    def _started(self, event: events.NodeStarted) -> None:
        call = self.of(event)
        if call.began is None:
            call.began = event.at
        call.status = "running"
        call.attempts = max(call.attempts, event.attempt)
        if event.element is not None and event.attempt == 1:
            call.elements += 1

    def _reused(self, event: events.NodeReused) -> None:
        call = self.of(event)
        if call.began is None:
            call.began = event.at
        if event.element is not None and not self.savings.has_begun(event):
            call.elements += 1
        call.reused[event.source] += 1

    def _hedged(self, event: events.NodeHedged) -> None:
        self.of(event).hedged += 1

    def _adopted(self, event: events.PartialCommitted) -> None:
        self.of(event).hidden = event.hidden

    def _asked(self, event: events.QuestionAsked) -> None:
        self.of(event).asked = event.at

    def _answered(self, event: events.QuestionAnswered) -> None:
        _heard(self.of(event), event.at)

    def _emitted(self, event: events.NodeEmitted) -> None:
        self.of(event).told = gist(event.data)

    def _settled(self, event: events.NodeEvent) -> None:
        call = self.of(event)
        if event.element is not None:
            call.settled += 1
            return
        call.status, call.ended = ENDED[type(event)], event.at
        if call.asked is not None:
            call.status = "asked" if isinstance(event, events.NodeCancelled) else call.status
            _heard(call, event.at)
        if isinstance(event, events.NodeFailed):
            call.error = f"{type(event.error).__name__}: {event.error}"
        elif isinstance(event, events.NodeSkipped):
            call.error = event.reason


def _heard(call: Call, at: float) -> None:
    """Nobody is asked about a call any more."""
    if call.asked is not None and not call.elements:  # those of a map wait side by side
        call.waited += at - call.asked
    call.asked = None


_REACTIONS: Mapping[type[events.Event], Callable[[Tally, Any], None]] = {
    events.RunStarted: Tally._began,
    events.PlanExtended: Tally._planned,
    events.NodeStarted: Tally._started,
    events.NodeReused: Tally._reused,
    events.NodeHedged: Tally._hedged,
    events.QuestionAsked: Tally._asked,
    events.QuestionAnswered: Tally._answered,
    events.NodeEmitted: Tally._emitted,
    events.PartialCommitted: Tally._adopted,
    events.ModelReplied: lambda tally, event: tally.models.append(event),
    **dict.fromkeys(ENDED, Tally._settled),
}
