"""How hard a job is, given what has failed at it: a chance to pass for each model and scenario."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

from agentflow.budgets.allocation.draws import Column, Draws, pick
from agentflow.budgets.allocation.situation import Job, Profile

_NORMAL = NormalDist()
_LEVELS = [_NORMAL.inv_cdf((level + 0.5) / 32) for level in range(32)]  # equally probable
_DOUBTS = ((0.0, 1.0),)
_THREE_DOUBTS = ((-math.sqrt(3), 1 / 6), (0.0, 2 / 3), (math.sqrt(3), 1 / 6))  # of a normal one
_LEAST = 1e-9  # a probability of 0 or 1 has no place on the scale of the normal distribution

Chances = list[list[float]]
"""By level of difficulty, then by doubt: the probability to pass."""


def chances(job: Job, draws: Draws) -> Mapping[str, Column]:
    """By model: the probability that a sample passes, in each scenario."""
    tables = {name: _table(profile, job.agreement) for name, profile in job.models.items()}
    weights = [1.0] * len(_LEVELS)
    for name, table in tables.items():
        failed = job.failed.get(name, 0)
        doubts = _doubts(job.models[name])
        for level, row in enumerate(table):
            weights[level] *= math.fsum(
                weight * (1.0 - p) ** failed for p, (_, weight) in zip(row, doubts, strict=True)
            )
    levels = pick(weights, draws.uniform(job.id, "difficulty"))
    return {name: _column(job, name, tables[name], levels, draws) for name in tables}


def _doubts(profile: Profile) -> Sequence[tuple[float, float]]:
    return _THREE_DOUBTS if profile.doubt > 0 else _DOUBTS


def _table(profile: Profile, agreement: float) -> Chances:
    """Probabilities whose mean over levels and doubts is the profile's."""
    p = min(max(profile.probability, _LEAST), 1.0 - _LEAST)
    shared = min(max(agreement, 0.0), 0.99)
    level = _NORMAL.inv_cdf(p)
    spread = min(profile.doubt / max(_NORMAL.pdf(level), 1e-3), 1.5)
    level *= math.sqrt(1.0 + spread * spread)
    common, own = math.sqrt(shared), math.sqrt(1.0 - shared)
    return [
        [
            min(max(_NORMAL.cdf((level + spread * d + common * z) / own), 1e-12), 1.0 - 1e-12)
            for d, _ in _doubts(profile)
        ]
        for z in _LEVELS
    ]


def _column(job: Job, name: str, table: Chances, levels: Sequence[int], draws: Draws) -> Column:
    doubts = _doubts(job.models[name])
    if len(doubts) == 1:
        return [table[level][0] for level in levels]
    failed = job.failed.get(name, 0)
    column = draws.uniform(job.id, "doubt", name)
    drawn = []
    for level, u in zip(levels, column, strict=True):
        row = table[level]
        weights = [w * (1.0 - p) ** failed for p, (_, w) in zip(row, doubts, strict=True)]
        u *= weights[0] + weights[1] + weights[2]
        drawn.append(row[0 if u < weights[0] else 1 if u < weights[0] + weights[1] else 2])
    return drawn
