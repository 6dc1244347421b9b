"""What tenants get of a fleet that all of them want more of than there is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from affinity_agents import Setting, lives, play, serving
from affinity_rivals import POLICIES
from affinity_simulator import Served

from agentflow.caches.affinity.shares import WRITTEN

SETTING = Setting(agents=240, replicas=1, memory=1 / 15, window=10.0, tenants=(1, 3, 8))
"""One replica with room for 16 of 240 agents; they belong to three tenants, as 1 to 3 to 8."""

QUANTA = 4.0
"""The bound that `agentflow.caches.affinity.shares` states, in what the fleet's KV holds: one of
these is the step in which it compares, one is what runs, and a tenant can be behind by as much as
it is ahead later."""

SEEDS = 5
"""Runs of ours; those of others are printed to compare with."""


@dataclass(frozen=True)
class Fairness:
    """A policy with tenants of unequal appetite.

    Attributes:
        shares: Of what was computed until the first tenant had nothing left to send, by tenant.
        ahead: Tokens that a tenant got beyond another, at most, while both had requests held back
            in the pool; 0 if none ever had.
        bound: What that may be.
        mean: Seconds that a session of each tenant took, on average.
    """

    shares: dict[str, float]
    ahead: float
    bound: float
    mean: dict[str, float]


def fairness(name: str, setting: Setting = SETTING, seed: int = 0) -> Fairness:
    """One policy."""
    agents = lives(setting, seed)
    played = play(setting, POLICIES[name], seed)
    tenants = sorted({life.tenant for life in agents})
    took: dict[str, list[float]] = defaultdict(list)
    for life in agents:
        took[life.tenant].append(played.took[life.index])
    return Fairness(
        _shares(played.served, tenants),
        max(_ahead(played.served, *pair) for pair in combinations(tenants, 2)),
        QUANTA * serving(setting, agents).capacity * setting.replicas,
        {tenant: sum(its) / len(its) for tenant, its in took.items()},
    )


def least_fair(runs: Iterable[Fairness]) -> Fairness:
    """The run in which a tenant was furthest ahead, measured by the bound."""
    return max(runs, key=lambda its: its.ahead / its.bound)


def service(its: Served) -> float:
    """Tokens that were computed for a request."""
    return its.ask.prompt.tokens - its.cached + WRITTEN * its.ask.output


def _shares(served: Sequence[Served], tenants: Sequence[str]) -> dict[str, float]:
    until = min(max(its.sent for its in served if its.ask.tenant == t) for t in tenants)
    got = dict.fromkeys(tenants, 0.0)
    for its in served:
        if its.finished <= until:
            got[its.ask.tenant] += service(its)
    return {tenant: tokens / sum(got.values()) for tenant, tokens in got.items()}


def _ahead(served: Sequence[Served], one: str, other: str) -> float:
    """By how much one was served more than the other, in any time in which both waited."""
    worst = gap = low = high = 0.0
    waiting = {one: 0, other: 0}
    for _, tenant, change, tokens in sorted(_events(served, (one, other))):
        if min(waiting.values()) > 0 and change == 0:
            gap += tokens if tenant == one else -tokens
            low, high = min(low, gap), max(high, gap)
            worst = max(worst, gap - low, high - gap)
        waiting[tenant] += change
        if not min(waiting.values()):
            gap = low = high = 0.0
    return worst


def _events(
    served: Sequence[Served], tenants: Sequence[str]
) -> Iterator[tuple[float, str, int, float]]:
    """When requests came, were sent, and were answered."""
    for its in served:
        if its.ask.tenant in tenants:
            yield its.arrived, its.ask.tenant, 1, 0.0
            yield its.sent, its.ask.tenant, -1, 0.0
            yield its.finished, its.ask.tenant, 0, service(its)
