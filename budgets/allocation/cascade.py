"""Cascades: one model after the other, decided without estimates of success."""

from __future__ import annotations

import random

from agentflow.budgets.allocation.situation import (
    Deciding,
    Decision,
    Job,
    Situation,
    Start,
)


class CheapestFirst:
    """Tries the models of a job in order of the price of a sample, one sample at a time.

    A model is asked again when all the others have failed as often.
    """

    def decide(self, situation: Situation, chance: random.Random) -> Deciding:
        """Start one sample for every job that is ready and has none under way."""
        yield 0.0
        return Decision(tuple(Start(job.id, self._next(job)) for job in _idle(situation)))

    def _next(self, job: Job) -> str:
        return min(job.models, key=lambda name: (job.failed.get(name, 0), job.models[name].usd))


class InTurn:
    """Asks the models of a job once each, in the order listed: for a run without limits."""

    def decide(self, situation: Situation, chance: random.Random) -> Deciding:
        """Start the least samples there may be, of the first model that has not failed."""
        yield 0.0
        starts, hopeless = [], []
        for job in _idle(situation):
            model = next((name for name in job.models if name not in job.failed), None)
            if model is None:
                hopeless.append(job.id)
            else:
                starts.append(Start(job.id, model, min(job.widths)))
        return Decision(tuple(starts), hopeless=tuple(hopeless))


def _idle(situation: Situation) -> list[Job]:
    """The jobs that could run and do not."""
    return [job for job in situation.jobs if job.ready and job.widths and not job.running]
