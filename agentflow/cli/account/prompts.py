"""What prompts cost the servers that computed them: cached or not, and where they were sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agentflow import events
from agentflow.cli.output import LEAST_SECONDS, counted, duration, listed

if TYPE_CHECKING:
    from agentflow.executor.affinity.replica import ReplicaReport


@dataclass(slots=True)
class Served:
    """Model calls, counted by what their servers said of them.

    Attributes:
        calls: How many there were.
        told: Of these, those whose server said how much of the prompt it had cached.
        reported: Tokens of the prompts of those.
        cached: Of these tokens, the cached ones.
    """

    calls: int = 0
    told: int = 0
    reported: int = 0
    cached: int = 0

    def count(self, reply: events.ModelReplied) -> None:
        """One more call ended."""
        self.calls += 1
        if reply.cached_tokens is not None:
            self.told += 1
            self.reported += reply.prompt_tokens
            self.cached += max(0, min(reply.cached_tokens, reply.prompt_tokens))

    @property
    def share(self) -> float | None:
        """Share of prompt tokens that was cached; None if nobody said."""
        return self.cached / self.reported if self.reported else None

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        share = None if self.share is None else round(self.share, 4)
        return {"calls": self.calls, "cached_tokens": self.cached, "cached_share": share}


@dataclass(slots=True)
class Prompts:
    """What a run and the runs it started asked of models.

    Attributes:
        all: All calls.
        pte: Prefill token equivalents.
        replicas: Those of pools, by replica.
        moved: Sessions that left the replica where they were, by reason.
        seconds_held: How long requests waited in pools.
        warmed: Prompts that were computed ahead.
        broken: Prompts that did not begin as the one before did.
        compacted: Sessions that grew too long, each time one did.
    """

    all: Served = field(default_factory=Served)
    pte: float = 0.0
    replicas: dict[str, Served] = field(default_factory=dict)
    moved: Counter[str] = field(default_factory=Counter)
    seconds_held: float = 0.0
    warmed: int = 0
    broken: list[events.PrefixBroken] = field(default_factory=list)
    compacted: list[events.ContextCompacted] = field(default_factory=list)

    def take(self, event: events.Event) -> None:
        """Count one more event."""
        if isinstance(event, events.PrefixBroken):
            self.broken.append(event)
        elif isinstance(event, events.ContextCompacted):
            self.compacted.append(event)
        elif isinstance(event, events.ModelReplied):
            self.pte += event.pte
            if event.warmed:
                self.warmed += 1
                return
            self.all.count(event)
            self.seconds_held += event.held
            if event.replica:
                self.replicas.setdefault(event.replica, Served()).count(event)
            if event.moved:
                self.moved[event.moved] += 1

    def as_dict(self, reports: Sequence[ReplicaReport] = ()) -> dict[str, Any]:
        """All of it as plain data.

        Args:
            reports: How the replicas of the pool fare, also those that answered nothing.
        """
        fare = {each.name: each for each in reports}
        return {
            "pte": round(self.pte, 3),
            "cached_unknown": self.all.calls - self.all.told,
            "replicas": {
                name: _replica(self.replicas.get(name, Served()), fare.get(name))
                for name in sorted({*self.replicas, *fare})
            },
            "moved": dict(self.moved),
            "seconds_held": round(self.seconds_held, 6),
            "warmed": self.warmed,
            "broken": [
                {"session": e.session, "byte": e.byte, "before": e.before, "after": e.after}
                for e in self.broken
            ],
            "compacted": [
                {"session": e.session, "epoch": e.epoch, "before": e.before, "after": e.after}
                for e in self.compacted
            ],
        }


def cached(prompts: Prompts) -> str:
    """What share of prompts was cached, as it stands behind their tokens; empty if none was told."""
    served = prompts.all
    if not served.told:
        return ""
    untold = served.calls - served.told
    rest = f"; of {counted(untold, 'call')} it is not known" if untold else ""
    return f" ({served.share or 0.0:.0%} of prompts cached{rest})"


def told(prompts: Prompts) -> Iterator[str]:
    """Where prompts were sent, and which lost what was cached of them."""
    if prompts.replicas:
        yield "; ".join([*_replicas(prompts), f"{prompts.pte:,.0f} prefill token equivalents"])
    if prompts.broken:
        yield _broken(prompts.broken)
    if prompts.compacted:
        yield _compacted(prompts.compacted)


def shortened(event: events.ContextCompacted) -> str:
    """What became of a session that was too long."""
    outputs = f"{counted(event.outputs, 'output')} by reference" if event.outputs else ""
    said = f"{counted(event.summarised, 'message')} in a summary" if event.summarised else ""
    how = listed(list(filter(None, (outputs, said))))
    return f"{event.before:,} to {event.after:,} tokens, {how}"


def _compacted(compacted: list[events.ContextCompacted]) -> str:
    if len(compacted) == 1:
        return f"the conversation grew too long: {shortened(compacted[0])}"
    return f"conversations grew too long {len(compacted):,} times; last: {shortened(compacted[-1])}"


def _replica(served: Served, fares: ReplicaReport | None) -> dict[str, Any]:
    """A replica as plain data; how it fares is not known of pools other than the engine's own."""
    condition = None if fares is None else fares.condition
    error = None if fares is None else fares.error or None
    return {**served.as_dict(), "condition": condition, "error": error}


def _replicas(prompts: Prompts) -> Iterator[str]:
    said = f"{counted(len(prompts.replicas), 'replica')}: "
    for name, served in sorted(prompts.replicas.items()):
        share = "" if served.share is None else f", {served.share:.0%} of prompt tokens cached"
        yield f"{said}{name} {counted(served.calls, 'call')}{share}"
        said = ""
    if prompts.moved:
        reasons = [f"{why} {count:,}" for why, count in prompts.moved.most_common()]
        yield f"{prompts.moved.total():,} moved ({listed(reasons)})"
    if prompts.seconds_held >= LEAST_SECONDS:
        yield f"held {duration(prompts.seconds_held)}"
    if prompts.warmed:
        yield f"{counted(prompts.warmed, 'prompt')} computed ahead"


def _broken(broken: list[events.PrefixBroken]) -> str:
    first = broken[0]
    where = f"at byte {first.byte:,} of session {first.session}"
    became = f"{first.before!r} became {first.after!r}"
    if len(broken) == 1:
        return f"a prompt did not begin as the one before it did, {where}: {became}"
    many = f"{len(broken):,} prompts did not begin as the one before them did"
    return f"{many}; the first {where}: {became}"
