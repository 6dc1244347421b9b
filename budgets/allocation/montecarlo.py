"""The allocator of a run: plans against pre-drawn scenarios, anew whenever something has ended."""

from __future__ import annotations

import random
from collections.abc import Generator
from statistics import median

from agentflow.budgets.allocation.draws import Draws
from agentflow.budgets.allocation.options import New, tails
from agentflow.budgets.allocation.search import Search
from agentflow.budgets.allocation.situation import Deciding, Decision, Job, Situation, Start
from agentflow.budgets.allocation.tables import Tables, Tail
from agentflow.budgets.allocation.value import Board

_THRIFT = 0.2  # the part of the probability that is given for the whole budget
_WORTH = 20.0  # what it is worth that everything is done, in budgets
_SLACK = 10.0  # a larger budget than so many times the least expected cost counts as that
_NO_LIMIT = 1e300  # what never passes takes infinitely long, which is more
_SOME = 64  # scenarios for the least expected cost


class MonteCarlo:
    """Begins what makes it most probable that everything is done within both limits.

    What is as probable, within a small part of what everything is worth, is decided by its cost.
    When no way to go on is worth what it is expected to cost, everything left is given up.

    Args:
        scenarios: How many futures each decision is tried on.
    """

    def __init__(self, scenarios: int = 256) -> None:
        self._scenarios = scenarios
        self._draws: Draws | None = None
        self._tables: dict[int, Tables] = {}
        self._tails: dict[int, Tail] = {}
        self._kept: dict[int, tuple[dict[str, int], list[New]]] = {}
        self._scale = 0.0

    def decide(self, situation: Situation, chance: random.Random) -> Deciding:
        """Choose for every job who tries it; the same scenarios serve all decisions of a run."""
        if not situation.jobs:
            return Decision(probability=1.0, usd=0.0)
        if self._draws is None:
            self._draws = Draws(self._scenarios, chance.getrandbits(64))
        search = yield from self._searched(situation, self._draws)
        self._remember(search)
        starts, probability, usd = _starts(search), search.probability(), search.usd()
        if (yield from self._given_up(search, probability, usd)):
            hopeless = tuple(job.id for job in situation.jobs)
            return Decision(probability=probability, usd=0.0, hopeless=hopeless)
        return Decision(starts, None, probability, usd)

    def _given_up(
        self, search: Search, probability: float, usd: float
    ) -> Generator[float, None, bool]:
        """Whether to go on is not worth its cost, or is free but cannot succeed."""
        if probability == usd == 0.0:
            return not (yield from search.possible())
        return probability * _WORTH * self._scale < usd

    def _searched(self, situation: Situation, draws: Draws) -> Generator[float, None, Search]:
        tables = []
        for job in situation.jobs:
            tables.append(self._table(job, draws))
            yield 0.0
        hand = _NO_LIMIT if situation.usd is None else max(situation.usd, 0.0)
        seconds = _NO_LIMIT if situation.seconds is None else situation.seconds
        reserved = sum(sample.reserved for job in situation.jobs for sample in job.running)
        if not self._scale:
            self._scale = yield from _budget(tables, hand + reserved)
        board = Board(situation.jobs, hand + reserved, seconds, self._scenarios)
        search = Search(situation.jobs, tables, board, hand, _THRIFT / self._scale)
        kept = {job.id: self._kept[job.id][1] for job in situation.jobs if self._unchanged(job)}
        yield from search.improve(self._tails, kept)
        return search

    def _table(self, job: Job, draws: Draws) -> Tables:
        known = self._tables.get(job.id)
        if known is None or not known.hold(job):
            known = self._tables[job.id] = Tables(job, draws)
        return known

    def _unchanged(self, job: Job) -> bool:
        """Whether samples of a job run on as they did at the last decision."""
        known = self._kept.get(job.id)
        return known is not None and known[0] == job.failed and bool(job.running)

    def _remember(self, search: Search) -> None:
        self._tails = {search.jobs[n].id: choice.tail for n, choice in search.choices.items()}
        self._kept = {
            job.id: (dict(job.failed), search.shortlists[number])
            for number, job in enumerate(search.jobs)
            if number in search.shortlists
        }


def _starts(search: Search) -> tuple[Start, ...]:
    return tuple(
        Start(job.id, model, count)
        for job, choice in ((search.jobs[n], search.choices[n]) for n in sorted(search.choices))
        if job.ready
        for model, count in choice.new
    )


def _budget(tables: list[Tables], usd: float) -> Generator[float, None, float]:
    """The budget, or what counts as such, in USD."""
    least = 0.0
    for table in tables:
        its = tails(table.job) if table.job.widths else []
        costs = [median(table.tail(tail, _SOME)[1]) for tail in its]
        least += min(costs, default=0.0)
        yield 0.0
    return min(usd, _SLACK * least) or 1.0
