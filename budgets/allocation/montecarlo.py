"""The allocator of a run: plans against pre-drawn scenarios, anew whenever something has ended."""

from __future__ import annotations

import math
import random

from agentflow.budgets.allocation.draws import Draws
from agentflow.budgets.allocation.options import New
from agentflow.budgets.allocation.search import Search
from agentflow.budgets.allocation.situation import Deciding, Decision, Job, Situation, Start
from agentflow.budgets.allocation.tables import Tables, Tail
from agentflow.budgets.allocation.value import Board

_WORTH = 20.0  # what finishing is worth, in budgets


class MonteCarlo:
    """Begins what makes it most probable that everything is done within both limits.

    Args:
        scenarios: How many futures each decision is tried on.
    """

    def __init__(self, scenarios: int = 256) -> None:
        self._scenarios = scenarios
        self._draws: Draws | None = None
        self._tables: dict[int, Tables] = {}
        self._tails: dict[int, Tail] = {}
        self._kept: dict[int, tuple[dict[str, int], list[New]]] = {}
        self._price: float | None = None

    def decide(self, situation: Situation, chance: random.Random) -> Deciding:
        """Choose by coordinate ascent over all jobs, on the same scenarios every time."""
        if self._draws is None:
            self._draws = Draws(self._scenarios, chance.getrandbits(64))
        jobs = situation.jobs
        if not jobs:
            return Decision(probability=1.0, usd=0.0)
        search = yield from self._searched(situation)
        self._tails = {
            job.id: choice.tail for job, choice in zip(jobs, search.choices, strict=True) if choice
        }
        if search.worth() < 0:
            hopeless = tuple(job.id for job in jobs)
            return Decision(probability=search.probability(), usd=0.0, hopeless=hopeless)
        starts = [
            Start(job.id, model, width)
            for job, choice in zip(jobs, search.choices, strict=True)
            if choice and job.ready
            for model, width in choice.new
        ]
        return Decision(tuple(starts), None, search.probability(), search.usd())

    def _searched(self, situation: Situation):
        jobs = situation.jobs
        hand = math.inf if situation.usd is None else situation.usd
        reserved = sum(sample.reserved for job in jobs for sample in job.running)
        seconds = math.inf if situation.seconds is None else situation.seconds
        if self._price is None:
            self._price = 1.0 / (_WORTH * (hand + reserved))
        tables = []
        for job in jobs:
            tables.append(self._table(job))
            yield 0.0
        board = Board(jobs, hand + reserved, seconds, self._scenarios)
        search = Search(jobs, tables, board, hand, self._price)
        kept = {job.id: self._kept[job.id][1] for job in jobs if self._unchanged(job)}
        yield from search.improve(self._tails, kept)
        self._kept = {
            job.id: (dict(job.failed), search.shortlists[number])
            for number, job in enumerate(jobs)
            if number in search.shortlists
        }
        return search

    def _unchanged(self, job: Job) -> bool:
        known = self._kept.get(job.id)
        return known is not None and known[0] == job.failed and bool(job.running)

    def _table(self, job: Job) -> Tables:
        known = self._tables.get(job.id)
        if known is None or not _same(known.job, job):
            known = self._tables[job.id] = Tables(job, self._draws)
        return known


def _same(one: Job, other: Job) -> bool:
    return (
        one.failed == other.failed
        and one.agreement == other.agreement
        and one.widths == other.widths
        and one.models.keys() == other.models.keys()
        and all(one.models[name] is other.models[name] for name in one.models)
    )
