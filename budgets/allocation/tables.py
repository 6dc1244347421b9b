"""Time and cost of a job in each scenario, by who tries it and how often at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from agentflow.budgets.allocation.batches import BINS, Batch, Group, drawn, losing, winning
from agentflow.budgets.allocation.draws import Column, Draws
from agentflow.budgets.allocation.latent import chances
from agentflow.budgets.allocation.pools import Pool
from agentflow.budgets.allocation.situation import Job

_FAILURES = 64  # batches in a row that are drawn; more of them repeat
_OFFSETS = 32

Tail = tuple[str, int]
"""A model and a width: batches of so many samples, until one passes."""

Columns = tuple[Column, Column]
"""Seconds and USD."""


class Tables:
    """What may become of one job, given what has failed at it so far."""

    def __init__(self, job: Job, draws: Draws) -> None:
        self.job = job
        self._draws = draws
        self._chances = chances(job, draws)
        self._pools: dict[Group, Pool] = {}
        self._tails: dict[Tail, Columns] = {}
        self._batches: dict[tuple[Group, int], Batch] = {}
        longest = [self._pool(Group(model, 1)).longest for model in job.models]
        self._step = max(longest, default=1.0) / BINS or 1.0

    def alone(self, groups: Sequence[Group]) -> Columns:
        """The only sample of a job about which nothing is decided: it passes."""
        model = groups[0].model if groups else next(iter(self.job.models), None)
        if model is None:
            zeros = [0.0] * self._draws.scenarios
            return zeros, zeros
        pool = self._pool(groups[0] if groups else Group(model, 1))
        size = len(pool.won_seconds)
        indices = [int(size * u) for u in self._draws.uniform(self.job.id, "within")]
        return [pool.won_seconds[i] for i in indices], [pool.won_usd[i] for i in indices]

    def tail(self, tail: Tail) -> Columns:
        """Batches of one kind, one after the other, until a sample passes."""
        if tail not in self._tails:
            self._tails[tail] = self._until_passed(*tail)
        return self._tails[tail]

    def batch(self, group: Group, order: int = 0) -> Batch:
        """A group alone; `order` tells groups under way from each other."""
        if (group, order) not in self._batches:
            pool = self._pool(group)
            stream = ("new", group.model) if group.age <= 0 else ("under way", order)
            self._batches[group, order] = drawn(
                pool,
                group.count,
                pool.chances(self._chances[group.model]),
                self._draws.least(group.count, self.job.id, *stream),
                self._draws.uniform(self.job.id, *stream, "end"),
                self._step,
            )
        return self._batches[group, order]

    def _until_passed(self, model: str, width: int) -> Columns:
        lost_seconds, lost_usd = self._failures(model, width)
        won_seconds, won_usd = self._last(model, width)
        p = self._chances[model]
        needed = self._draws.exponential(self.job.id, "until")
        failures = [
            int(need / (-width * math.log1p(-q))) for need, q in zip(needed, p, strict=True)
        ]
        for scenario, count in enumerate(failures):
            if count:
                offset = scenario % _OFFSETS
                repeats, rest = divmod(count, _FAILURES)
                won_seconds[scenario] += (
                    lost_seconds[offset + rest] - lost_seconds[offset]
                ) + repeats * lost_seconds[_FAILURES]
                won_usd[scenario] += (
                    lost_usd[offset + rest] - lost_usd[offset]
                ) + repeats * lost_usd[_FAILURES]
        return won_seconds, won_usd

    def _last(self, model: str, width: int) -> Columns:
        """The batch in which a sample passes."""
        pool, p = self._pool(Group(model, width)), self._chances[model]
        column = self._draws.uniform(self.job.id, "within")
        size = len(pool.won_seconds)
        usd = pool.won_usd
        if width == 1:
            indices = [int(size * u) for u in column]
        else:
            chance = sum(p) / len(p)
            spent = [width * pool.spent((b + 0.5) * self._step, chance) for b in range(BINS)]
            usd = winning(pool, width, spent, self._step)
            some = [math.expm1(width * math.log1p(-q)) for q in p]  # minus that any passes
            indices = [
                int(-size * math.expm1(math.log1p(u * s) / width) / q)
                for u, s, q in zip(column, some, p, strict=True)
            ]
        last = size - 1
        indices = [index if index < last else last for index in indices]
        return [pool.won_seconds[index] for index in indices], [usd[index] for index in indices]

    def _failures(self, model: str, width: int) -> Columns:
        """Sums over batches in a row of which no sample passes."""
        ends = self._draws.sequence(_FAILURES + _OFFSETS, self.job.id, model)
        seconds, usd = losing(self._pool(Group(model, width)), width, ends)
        return [0.0, *accumulate(seconds)], [0.0, *accumulate(usd)]

    def _pool(self, group: Group) -> Pool:
        if group.age > 0:
            return Pool(self.job.models[group.model], group.age)
        whole = Group(group.model, 1)
        if whole not in self._pools:
            self._pools[whole] = Pool(self.job.models[group.model])
        pool = self._pools[whole]
        if group.most < pool.dearest:
            return Pool(self.job.models[group.model], most=group.most)
        return pool
