"""The policies that ours is compared with: one model and width for all, shares, and simple ones."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from allocation_cases import Case

from agentflow.budgets.allocation.situation import (
    Deciding,
    Decision,
    Job,
    Profile,
    Situation,
    Start,
)

RETRIES = (1, 2, 4, 8, 16, 32, 64)


def idle(situation: Situation) -> Iterator[Job]:
    """The jobs that are ready and have nothing under way."""
    return (job for job in situation.jobs if job.ready and job.widths and not job.running)


@dataclass(frozen=True)
class Retry:
    """`width` samples of one model for every node that is ready, again and again."""

    model: str
    width: int

    def decide(self, situation: Situation, chance: random.Random) -> Deciding:  # of the protocol
        yield 0.0
        return Decision(tuple(Start(job.id, self.model, self.width) for job in idle(situation)))


@dataclass(frozen=True)
class Uniform:
    """Every node once, with as many samples of one model as its share of the money buys."""

    model: str
    share: float

    def decide(self, situation: Situation, chance: random.Random) -> Deciding:  # of the protocol
        yield 0.0
        starts = [
            Start(job.id, self.model, max(1, int(self.share / mean_usd(job.models[self.model]))))
            for job in idle(situation)
            if not job.failed
        ]
        return Decision(tuple(starts))


def mean_usd(profile: Profile) -> float:
    """USD of a sample, on average."""
    samples = [*profile.won, *profile.lost]
    return max(sum(usd for _, usd in samples) / len(samples), 1e-12)


def retries(case: Case) -> Mapping[str, Retry]:
    """All of them, by name."""
    return {
        f"{width} x {model}": Retry(model, width) for model in case.pools[0] for width in RETRIES
    }


def uniforms(case: Case, usd: float) -> Mapping[str, Uniform]:
    """One for each model, by its name."""
    return {model: Uniform(model, usd / len(case.after)) for model in case.pools[0]}
