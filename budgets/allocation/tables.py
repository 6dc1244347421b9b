"""Time and cost of a job in each scenario, by who tries it and how often at once."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from agentflow.budgets.allocation.draws import Column, Draws
from agentflow.budgets.allocation.latent import chances
from agentflow.budgets.allocation.pools import Pool, spent
from agentflow.budgets.allocation.situation import Job

_FAILURES = 64  # batches in a row that are drawn; more of them repeat
_OFFSETS = 32

Tail = tuple[str, int]
"""A model and a width: batches of so many samples, until one passes."""


@dataclass(frozen=True, slots=True)
class Group:
    """Samples of one model that began together.

    Attributes:
        model: Who makes them.
        count: How many.
        age: Seconds since they began.
        most: USD that each of them may take.
    """

    model: str
    count: int
    age: float = 0.0
    most: float = math.inf


@dataclass(frozen=True, slots=True)
class Batch:
    """What becomes of some groups: when the first sample passes, or all have ended, and the cost."""

    seconds: Column
    usd: Column
    passed: list[bool]


class Tables:
    """What may become of one job, given what has failed at it so far.

    Nothing that is under way counts here but what `batch` is asked about.
    """

    def __init__(self, job: Job, draws: Draws) -> None:
        self.job = job
        self._draws = draws
        self.chances = chances(job, draws)
        self._pools: dict[tuple[str, float, float], Pool] = {}
        self._tails: dict[Tail, tuple[Column, Column]] = {}

    def tail(self, tail: Tail) -> tuple[Column, Column]:
        """Seconds and USD of batches of one kind, one after the other, until a sample passes."""
        if tail not in self._tails:
            self._tails[tail] = self._until_passed(*tail)
        return self._tails[tail]

    def alone(self, groups: Sequence[Group]) -> tuple[Column, Column]:
        """Seconds and USD of the job's only sample, which passes."""
        model = groups[0].model if groups else next(iter(self.job.models), None)
        if model is None:
            zeros = [0.0] * self._draws.scenarios
            return zeros, zeros
        pool = self._pool(groups[0] if groups else Group(model, 1))
        size = len(pool.won_seconds)
        indices = [int(size * u) for u in self._draws.uniform(self.job.id, "within")]
        return [pool.won_seconds[i] for i in indices], [pool.won_usd[i] for i in indices]

    def _until_passed(self, model: str, width: int) -> tuple[Column, Column]:
        pool = self._pool(Group(model, width))
        lost_seconds, lost_usd = self._failures(pool, model, width)
        passing = self._within(model, width)
        needed = self._exponential("until")
        seconds, usd = [], []
        for scenario, (need, p) in enumerate(zip(needed, self.chances[model], strict=True)):
            failures = int(need / (width * -math.log1p(-p)))
            t, cost = passing[scenario]
            if failures:
                offset = scenario % _OFFSETS
                repeats, failures = divmod(failures, _FAILURES)
                t += lost_seconds[offset + failures] - lost_seconds[offset]
                cost += lost_usd[offset + failures] - lost_usd[offset]
                if repeats:
                    t += repeats * lost_seconds[_FAILURES]
                    cost += repeats * lost_usd[_FAILURES]
            seconds.append(t)
            usd.append(cost)
        return seconds, usd

    def _within(self, model: str, width: int) -> list[tuple[float, float]]:
        """Seconds and USD of the batch in which a sample passes."""
        pool = self._pool(Group(model, width))
        seconds, usd, size = pool.won_seconds, pool.won_usd, len(pool.won_seconds)
        column = self._draws.uniform(self.job.id, "within")
        if width == 1:
            return [(seconds[int(size * u)], usd[int(size * u)]) for u in column]
        beside, last, others, drawn = pool.beside, size - 1, width - 1, []
        for u, p in zip(column, self.chances[model], strict=True):
            some = math.expm1(width * math.log1p(-p))  # minus the chance that any passes
            share = -math.expm1(math.log1p(u * some) / width) / p
            index = min(int(size * share), last)
            drawn.append((seconds[index], usd[index] + others * spent(beside[index], p)))
        return drawn

    def _failures(self, pool: Pool, model: str, width: int) -> tuple[Column, Column]:
        """Sums over batches in a row of which no sample passes."""
        count = _FAILURES + _OFFSETS
        column = Draws(count, self._draws.seed).uniform(self.job.id, "failed", model)
        ends = [_lost(pool, u, width) for u in column]
        seconds, usd = zip(*ends, strict=True)
        return [0.0, *accumulate(seconds)], [0.0, *accumulate(usd)]

    def batch(self, groups: Sequence[Group]) -> Batch:
        """What becomes of these groups alone."""
        drawn = [self._group(group, order) for order, group in enumerate(groups)]
        if len(drawn) == 1:
            return drawn[0].alone()
        return _together(drawn)

    def _group(self, group: Group, order: int) -> _Drawn:
        pool = self._pool(group)
        stream = ("new", group.model) if group.age <= 0 else ("under way", order)
        p = [pool.chance(p) for p in self.chances[group.model]]
        needs = self._exponential(*stream)
        size = len(pool.won_seconds)
        shares = [-math.expm1(-need / group.count) for need in needs]
        passing = [int(size * x / q) if x < q else size for x, q in zip(shares, p, strict=True)]
        ending = self._draws.uniform(self.job.id, *stream, "failed")
        return _Drawn(pool, group.count, p, passing, ending)

    def _pool(self, group: Group) -> Pool:
        key = (group.model, group.age, group.most)
        if key not in self._pools:
            self._pools[key] = Pool(self.job.models[group.model], group.age, group.most)
        return self._pools[key]

    def _exponential(self, *name: object) -> Column:
        return [-math.log1p(-u) for u in self._draws.uniform(self.job.id, *name)]


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A group in each scenario.

    Attributes:
        pool: What a sample of it may be.
        count: How many samples it has.
        chances: That one of them passes.
        passing: Index of the first that passes among those of the pool, or their number.
        ending: By chance, how late the last one ends if none passes.
    """

    pool: Pool
    count: int
    chances: Column
    passing: list[int]
    ending: Column

    def alone(self) -> Batch:
        seconds, usd, passed = [], [], []
        pool, others = self.pool, self.count - 1
        size, won, cost = len(pool.won_seconds), pool.won_seconds, pool.won_usd
        for index, p, u in zip(self.passing, self.chances, self.ending, strict=True):
            if index < size:
                seconds.append(won[index])
                beside = others * spent(pool.beside[index], p) if others else 0.0
                usd.append(cost[index] + beside)
                passed.append(True)
            else:
                end, lost = _lost(pool, u, self.count)
                seconds.append(end)
                usd.append(lost)
                passed.append(False)
        return Batch(seconds, usd, passed)

    def first(self, scenario: int) -> float:
        index = self.passing[scenario]
        seconds = self.pool.won_seconds
        return seconds[index] if index < len(seconds) else math.inf

    def cost(self, scenario: int, seconds: float, winner: bool) -> float:
        """USD by then, when the first of all has passed."""
        others = self.count - winner
        usd = self.pool.won_usd[self.passing[scenario]] if winner else 0.0
        if others:
            usd += others * spent(self.pool.parts(seconds), self.chances[scenario])
        return usd


def _lost(pool: Pool, u: float, count: int) -> tuple[float, float]:
    """Seconds and USD of so many samples of which none passes."""
    size = len(pool.lost_seconds)
    index = min(int(size * (u if count == 1 else u ** (1.0 / count))), size - 1)
    return pool.lost_seconds[index], pool.lost_usd[index] + (count - 1) * pool.lost_mean[index]


def _together(groups: Sequence[_Drawn]) -> Batch:
    seconds, usd, passed = [], [], []
    for scenario in range(len(groups[0].passing)):
        firsts = [group.first(scenario) for group in groups]
        first = min(firsts)
        if first < math.inf:
            winner = firsts.index(first)
            seconds.append(first)
            usd.append(
                sum(group.cost(scenario, first, n == winner) for n, group in enumerate(groups))
            )
            passed.append(True)
        else:
            ends = [_lost(group.pool, group.ending[scenario], group.count) for group in groups]
            seconds.append(max(end for end, _ in ends))
            usd.append(sum(lost for _, lost in ends))
            passed.append(False)
    return Batch(seconds, usd, passed)
