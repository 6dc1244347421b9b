"""How hard a job is, given what has failed at it: a chance to pass for each model and scenario."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from statistics import NormalDist

from agentflow.budgets.allocation.draws import Column, Draws, pick
from agentflow.budgets.allocation.situation import Job, Profile

_NORMAL = NormalDist()
_LEVELS = [_NORMAL.inv_cdf((level + 0.5) / 32) for level in range(32)]  # equally probable
_LITTLE = 0.2  # agreement that independent jobs seem to have, too
_HARD = 0.22  # of the agreement beyond that, the part of jobs that nobody can do
_EASIER = 0.5  # of the agreement beyond that, what is left to the others
_OWN = 0.2  # of what samples of a job have in common, the part that only those of one model have
_POINTS = ((-math.sqrt(3), 1 / 6), (0.0, 2 / 3), (math.sqrt(3), 1 / 6))  # for a normal number
_HARDLY = 1e-4  # the chance of a sample at a job that nobody can do
_NEVER = 1e-12  # the least chance that is counted with
_LEAST = 1e-9  # a probability of 0 or 1 has no place on the scale of the normal distribution

Chances = list[list[float]]
"""By level of difficulty, then by what is the model's own: the probability to pass."""


def chances(job: Job, draws: Draws) -> Mapping[str, Column]:
    """By model: the probability that a sample passes, in each scenario."""
    hard = _hard(job)
    tables = {name: _table(profile, job.agreement, hard) for name, profile in job.models.items()}
    weights = [(1.0 - hard) / len(_LEVELS)] * len(_LEVELS) + [hard]
    for name, table in tables.items():
        if failed := job.failed.get(name, 0):
            likely = (sum(_weights(row, failed)) for row in table)
            weights = [weight * part for weight, part in zip(weights, likely, strict=True)]
    levels = pick(weights, draws.uniform("difficulty"))
    return {
        name: _drawn(table, job.failed.get(name, 0), levels, draws.uniform("own", name))
        for name, table in tables.items()
    }


def _hard(job: Job) -> float:
    """The probability that nobody can do a job, before any has tried."""
    best = max((profile.probability for profile in job.models.values()), default=1.0)
    return max(min(_HARD * (job.agreement - _LITTLE), (1.0 - best) / 2.0), 0.0)


def _table(profile: Profile, agreement: float, hard: float) -> Chances:
    """Probabilities whose mean over levels and points is the profile's."""
    p = min(max(profile.probability / (1.0 - hard), _LEAST), 1.0 - _LEAST)
    beyond = max(min(agreement, 1.0) - _LITTLE, 0.0)
    shared = max(min(agreement, _LITTLE), 0.0) + _EASIER * beyond
    level = _NORMAL.inv_cdf(p)
    doubt = min(profile.doubt / max(_NORMAL.pdf(level), 1e-3), 1.5)
    level *= math.sqrt(1.0 + doubt * doubt)
    spread = math.hypot(doubt, math.sqrt(_OWN * shared))
    common, rest = math.sqrt((1.0 - _OWN) * shared), math.sqrt(1.0 - shared)
    points = [spread * point for point, _ in _POINTS] if spread else [0.0]
    rows = [[(level + common * z + point) / rest for point in points] for z in _LEVELS]
    chances = [[min(max(_NORMAL.cdf(x), _NEVER), 1.0 - _NEVER) for x in row] for row in rows]
    return [*chances, [_HARDLY for _ in points]]


def _weights(row: Sequence[float], failed: int) -> list[float]:
    """How likely each point is, if so many samples have failed."""
    if len(row) == 1:
        return [(1.0 - row[0]) ** failed]
    return [weight * (1.0 - p) ** failed for p, (_, weight) in zip(row, _POINTS, strict=True)]


def _drawn(table: Chances, failed: int, levels: Sequence[int], column: Column) -> Column:
    if len(table[0]) == 1:
        return [table[level][0] for level in levels]
    sums, last = [list(accumulate(_weights(row, failed))) for row in table], len(_POINTS) - 1
    return [
        table[level][min(bisect_right(sums[level], u * sums[level][-1]), last)]
        for level, u in zip(levels, column, strict=True)
    ]
