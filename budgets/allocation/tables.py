"""Time and cost of a job in each scenario, by who tries it and how often at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

from agentflow.budgets.allocation.batches import Batch, Group, drawn, losing, winning
from agentflow.budgets.allocation.draws import Column, Draws
from agentflow.budgets.allocation.latent import chances
from agentflow.budgets.allocation.pools import BINS, Pool
from agentflow.budgets.allocation.situation import Job

_FAILURES = 48  # batches that are drawn, in a ring, of which scenarios take parts
_MOST = 4096  # samples of a job; what takes more never passes

Tail = tuple[str, int]
"""A model and a width: batches of so many samples, until one passes."""

NOBODY: Tail = ("", 0)
"""Nothing that ever passes."""

Columns = tuple[Column, Column]
"""Seconds and USD."""


class Tables:
    """What may become of one job, given what has failed at it so far.

    All columns are drawn for the first `rows` scenarios.

    Args:
        job: The job as it is now.
        draws: The chance of this job.
        pools: By model, what one sample may be.
    """

    def __init__(self, job: Job, draws: Draws, pools: Mapping[str, Pool]) -> None:
        self.job = job
        self.chances = chances(job, draws)
        self._draws = draws
        self._pools = pools
        self._tails: dict[tuple[Tail, int], Columns] = {}
        self._batches: dict[tuple[Group, int], Batch] = {}
        self.bounds = {
            model: profile.bound or self._pools[model].dearest
            for model, profile in job.models.items()
        }
        longest = [pool.longest for pool in self._pools.values()]
        self._step = max(longest, default=1.0) / BINS or 1.0

    def hold(self, job: Job) -> bool:
        """Whether they are still true of a job."""
        mine = self.job
        return (
            mine.failed == job.failed
            and mine.agreement == job.agreement
            and mine.room == job.room
            and mine.models.keys() == job.models.keys()
            and all(mine.models[name] is job.models[name] for name in mine.models)
        )

    def alone(self, groups: Sequence[Group]) -> Columns:
        """The only sample of a job about which nothing is decided: it passes."""
        if not self._pools:
            zeros = [0.0] * self._draws.scenarios
            return zeros, zeros
        pool = self._pool(groups[0] if groups else Group(next(iter(self._pools)), 1))
        size = len(pool.won_seconds)
        indices = [int(size * u) for u in self._draws.uniform("within")]
        return [pool.won_seconds[i] for i in indices], [pool.won_usd[i] for i in indices]

    def tail(self, tail: Tail, rows: int) -> Columns:
        """Batches of one kind, one after the other, until a sample passes."""
        if tail == NOBODY:
            return [math.inf] * rows, [0.0] * rows
        key = (tail, rows)
        if key not in self._tails:
            self._tails[key] = self._until_passed(*tail, rows)
        return self._tails[key]

    def batch(self, group: Group, order: int, rows: int) -> Batch:
        """A group alone; `order` tells groups under way from each other."""
        pool = self._pool(group)
        if pool is not self._pools[group.model]:
            return self._drawn(pool, group, order, rows)
        key = (Group(group.model, group.count), rows)
        if key not in self._batches:
            self._batches[key] = self._drawn(pool, group, order, rows)
        return self._batches[key]

    def _drawn(self, pool: Pool, group: Group, order: int, rows: int) -> Batch:
        stream = (group.model, "new") if group.age <= 0 else (order, "under way")
        return drawn(
            pool,
            group.count,
            pool.chances(self.chances[group.model][:rows]),
            self._draws.least(group.count, *stream)[:rows],
            self._draws.uniform(*stream, "end")[:rows],
            self._step,
        )

    def _until_passed(self, model: str, width: int, rows: int) -> Columns:
        lost_seconds, lost_usd = self._failures(model, width)
        seconds, usd = self._last(model, width, rows)
        p = self.chances[model][:rows]
        needed = self._draws.exponential("until")[:rows]
        failures = [
            int(need / (-width * math.log1p(-q))) for need, q in zip(needed, p, strict=True)
        ]
        room = (_MOST if self.job.room is None else self.job.room) // width
        for scenario, count in enumerate(failures):
            if not count:
                continue
            offset = scenario % _FAILURES
            repeats, rest = divmod(min(count, room), _FAILURES)
            longer = lost_seconds[offset + rest] - lost_seconds[offset]
            dearer = lost_usd[offset + rest] - lost_usd[offset]
            seconds[scenario] += longer + repeats * lost_seconds[_FAILURES]
            usd[scenario] += dearer + repeats * lost_usd[_FAILURES]
            if count >= room:
                seconds[scenario] = math.inf
        return seconds, usd

    def _last(self, model: str, width: int, rows: int) -> Columns:
        """The batch in which a sample passes."""
        pool, p = self._pools[model], self.chances[model][:rows]
        column = self._draws.uniform("within")[:rows]
        size, usd = len(pool.won_seconds), pool.won_usd
        if width == 1:
            indices = [int(size * u) for u in column]
        else:
            usd = winning(pool, width, pool.curve(self._step, sum(p) / len(p)), self._step)
            some = [math.expm1(width * math.log1p(-q)) for q in p]  # minus that any passes
            last = size - 1
            indices = [
                min(int(-size * math.expm1(math.log1p(u * s) / width) / q), last)
                for u, s, q in zip(column, some, p, strict=True)
            ]
        return [pool.won_seconds[index] for index in indices], [usd[index] for index in indices]

    def _failures(self, model: str, width: int) -> Columns:
        """Sums over batches of which no sample passes, twice around the ring."""
        ends = self._draws.sequence(_FAILURES, model)
        seconds, usd = losing(self._pools[model], width, ends)
        return [0.0, *accumulate(seconds * 2)], [0.0, *accumulate(usd * 2)]

    def _pool(self, group: Group) -> Pool:
        pool = self._pools[group.model]
        if group.age > 0:
            return Pool(self.job.models[group.model], group.age)
        if group.most < pool.dearest:
            return Pool(self.job.models[group.model], most=group.most)
        return pool
