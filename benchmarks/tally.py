"""What a policy saved and cost over many sessions."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

from replay import Replay

from agentflow import events

Outcome: TypeAlias = tuple[str, bool, str]
"""A call, whether it failed, and what it gave."""

AT_ONCE = 1e-6
"""Seconds; a call that waits no longer was answered without waiting."""


@dataclass(slots=True)
class Tally:
    """Sums over sessions.

    Attributes:
        calls: Committed calls.
        reads: Those that read.
        at_once: Reads answered without waiting.
        wait: Seconds that calls were waited for, each from when it could begin.
        read_wait: Those of reads.
        elapsed: Seconds in which the agent waited; calls made at once are waited for together.
        started: Calls started before they were asked for.
        used: Those that were asked for later in their session.
        wasted: Those that were not.
        seconds_wasted: Tool time of the wasted ones.
        usd_wasted: Price of the wasted ones.
        outcomes: How every committed call ended, in the order of the programs.
    """

    calls: int = 0
    reads: int = 0
    at_once: int = 0
    wait: float = 0.0
    read_wait: float = 0.0
    elapsed: float = 0.0
    started: int = 0
    used: int = 0
    wasted: int = 0
    seconds_wasted: float = 0.0
    usd_wasted: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)

    def note(self, replay: Replay) -> None:
        """Add a session."""
        self.elapsed += replay.waited
        for answer in replay.answers:
            self.calls += 1
            self.wait += answer.wait
            self.outcomes.append((answer.call.key, answer.failed, answer.text))
            if answer.call.kind == "read":
                self.reads += 1
                self.read_wait += answer.wait
                self.at_once += answer.wait <= AT_ONCE

    def hear(self, event: events.Event) -> None:
        """Add something that happened in a run."""
        match event:
            case events.SpeculationStarted():
                self.started += 1
            case events.SpeculationUsed():
                self.used += 1
            case events.SpeculationWasted():
                self.wasted += 1
                self.seconds_wasted += event.seconds
                self.usd_wasted += float(event.usd)

    def add(self, other: Tally) -> None:
        """Add what was counted elsewhere."""
        for part in fields(self):
            setattr(self, part.name, getattr(self, part.name) + getattr(other, part.name))


@dataclass(frozen=True, slots=True)
class Figures:
    """What is printed of a policy, beside the same sessions without a cache."""

    it: Tally
    base: Tally
    oracle: Tally

    @property
    def at_once(self) -> float:
        """Share of reads answered without waiting."""
        return self.it.at_once / max(1, self.it.reads)

    @property
    def removed(self) -> float:
        """Share of the waiting for reads that is gone."""
        return removed(self.it, self.base)

    @property
    def of_oracle(self) -> float:
        """That share, over the oracle's."""
        return self.removed / (removed(self.oracle, self.base) or 1.0)

    @property
    def faster(self) -> float:
        """How many times less all calls were waited for."""
        return self.base.wait / (self.it.wait or 1.0)

    @property
    def waste(self) -> float:
        """Wasted calls for each useful one."""
        return self.it.wasted / max(1, self.it.used)

    @property
    def differences(self) -> int:
        """Committed calls that ended differently than without a cache."""
        ours, plain = self.it.outcomes, self.base.outcomes
        return sum(a != b for a, b in zip(ours, plain, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """The figures, and the sums they come from."""
        sums = {part.name: getattr(self.it, part.name) for part in fields(Tally)}
        del sums["outcomes"]
        figures = {
            "share_at_once": self.at_once,
            "removed": self.removed,
            "of_oracle": self.of_oracle,
            "faster": self.faster,
            "waste": self.waste,
            "differences": self.differences,
        }
        return {name: round(value, 4) for name, value in (sums | figures).items()}


def removed(it: Tally, base: Tally) -> float:
    """Share of the waiting for reads that is gone."""
    return 1.0 - it.read_wait / (base.read_wait or 1.0)


def ceiling(base: Tally) -> float:
    """How many times less all calls are waited for if no read is waited for."""
    return 1.0 / (1.0 - min(0.999, base.read_wait / (base.wait or 1.0)))


def ceiling_by_calls(base: Tally) -> float:
    """The most that all waiting can fall if every call takes equally long."""
    return 1.0 / (1.0 - min(0.999, base.reads / max(1, base.calls)))
