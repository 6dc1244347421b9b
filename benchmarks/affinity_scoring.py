"""What one run of a policy comes to, and what several runs come to together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from statistics import fmean, median
from typing import TypeVar

from affinity_agents import Life, Played, Setting

T = TypeVar("T")


@dataclass(frozen=True)
class Figures:
    """One run in figures; times in seconds.

    Attributes:
        mean: Of the sessions' times, start to last reply.
        p50: Half of them took less.
        p99: All but a hundredth took less.
        makespan: When the last one ended.
        cached: Share of prompt tokens that servers had.
        ceiling: The same, if nothing was ever evicted and all were at one place.
        again: Share of the servers' busy time that went into computing what was computed before.
        held: Seconds that a request waited in the pool, in the mean.
        first: Seconds from a request to its first token, in the mean.
        moved: Share of requests that went elsewhere than the one before in their session.
    """

    mean: float
    p50: float
    p99: float
    makespan: float
    cached: float
    ceiling: float
    again: float
    held: float
    first: float
    moved: float

    @property
    def bound(self) -> float:
        """How much more work the servers could do at most if nothing was computed twice."""
        return 1.0 / (1.0 - self.again)


def figures(setting: Setting, agents: Iterable[Life], played: Played) -> Figures:
    """A run in figures."""
    took, served = sorted(played.took.values()), played.served
    prompts = sum(its.ask.prompt.tokens for its in served)
    cached, known = sum(its.cached for its in served), reusable(agents)
    return Figures(
        mean=fmean(took),
        p50=quantile(took, 0.5),
        p99=quantile(took, 0.99),
        makespan=played.makespan,
        cached=cached / prompts,
        ceiling=known / prompts,
        again=max(0.0, (known - cached) / setting.prefill / played.busy),
        held=fmean(its.sent - its.arrived for its in served),
        first=fmean(its.first - its.arrived for its in served),
        moved=fmean(its.why not in ("new", "home") for its in served),
    )


def reusable(agents: Iterable[Life]) -> int:
    """Prompt tokens that were computed before, by anybody."""
    tokens, seen = 0, False
    for life in agents:
        before = life.shared // life.block if seen else 0
        seen = True
        for turn in life.turns:
            tokens += min(before, (turn.prompt - 1) // life.block) * life.block
            before = (turn.prompt + turn.output - 1) // life.block
    return tokens


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that this share does not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def together(runs: Sequence[Figures]) -> Figures:
    """The median of each figure over several runs."""
    return Figures(*(median(getattr(run, f.name) for run in runs) for f in fields(Figures)))
