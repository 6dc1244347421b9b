"""The cheapest model first, then the next: what needs no estimates but prices."""

from __future__ import annotations

import random

from agentflow.budgets.allocation.situation import (
    Deciding,
    Decision,
    Job,
    Profile,
    Situation,
    Start,
)


class CheapestFirst:
    """Tries the models of a job in order of the price of a sample, one sample at a time.

    A model that failed is not asked again before all others have.
    """

    def decide(self, situation: Situation, chance: random.Random) -> Deciding:  # noqa: ARG002  # of the protocol
        """Start one sample for every job that is ready and has none under way."""
        starts = [
            Start(job.id, self._next(job))
            for job in situation.jobs
            if job.ready and job.widths and not job.running
        ]
        return Decision(tuple(starts))
        yield 0.0

    def _next(self, job: Job) -> str:
        return min(job.models, key=lambda name: (job.failed.get(name, 0), _price(job.models[name])))


def _price(profile: Profile) -> float:
    """Mean USD of a sample."""
    samples = [*profile.won, *profile.lost]
    return sum(usd for _, usd in samples) / len(samples) if samples else 0.0
