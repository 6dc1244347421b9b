"""What becomes of samples that are under way together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import repeat
from operator import add

from agentflow.budgets.allocation.draws import Column
from agentflow.budgets.allocation.pools import Pool

BINS = 48  # of time, for what samples have cost by then


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
    """Some groups in each scenario.

    Attributes:
        first: Seconds until a sample passes, infinite if none does.
        paid: USD if the first one that passes is the end of all.
        end: Seconds until all have ended, where none passes.
        lost: USD where none passes.
        spent: USD by each bin of time, if none has passed by then.
        step: Seconds of a bin.
    """

    first: Column
    paid: Column
    end: Column
    lost: Column
    spent: Column
    step: float

    def beside(self, other: Batch) -> Batch:
        """Both at once, until the first sample of any passes."""
        first, paid = [], []
        mine, theirs, last, step = self.spent, other.spent, BINS - 1, self.step
        rows = zip(self.first, self.paid, other.first, other.paid, strict=True)
        for t, usd, other_t, other_usd in rows:
            if t <= other_t:
                first.append(t)
                bin_ = int(t / step) if t < math.inf else 0
                paid.append(usd + theirs[bin_ if bin_ < last else last])
            else:
                first.append(other_t)
                bin_ = int(other_t / step)
                paid.append(other_usd + mine[bin_ if bin_ < last else last])
        end = list(map(max, self.end, other.end))
        lost = list(map(add, self.lost, other.lost))
        return Batch(first, paid, end, lost, list(map(add, mine, theirs)), step)


def drawn(
    pool: Pool, count: int, chances: Column, shares: Column, ends: Column, step: float
) -> Batch:
    """A group by columns of uniform numbers.

    Args:
        pool: What one of its samples may be.
        count: How many there are.
        chances: That one passes.
        shares: By chance, the least share of samples of which one of the group would be.
        ends: By chance, how late the last one ends.
        step: Seconds of a bin of time.
    """
    chance = sum(chances) / len(chances)
    spent = [count * pool.spent((bin_ + 0.5) * step, chance) for bin_ in range(BINS)]
    won = pool.won_seconds
    size = len(won)
    usd = winning(pool, count, spent, step)
    indices = [int(size * x / p) if x < p else -1 for x, p in zip(shares, chances, strict=True)]
    first = [won[index] if index >= 0 else math.inf for index in indices]
    paid = [usd[index] if index >= 0 else 0.0 for index in indices]
    end, lost = losing(pool, count, ends)
    return Batch(first, paid, end, lost, spent, step)


def winning(pool: Pool, count: int, spent: Column, step: float) -> Column:
    """USD of so many samples, by which one of the pool is the first that passes."""
    if count == 1:
        return pool.won_usd
    others, last = (count - 1) / count, BINS - 1
    return [
        usd + others * spent[min(int(t / step), last)]
        for t, usd in zip(pool.won_seconds, pool.won_usd, strict=True)
    ]


def losing(pool: Pool, count: int, ends: Column) -> tuple[Column, Column]:
    """Seconds and USD of so many samples of which none passes."""
    size = len(pool.lost_seconds)
    if count == 1:
        usd = pool.lost_usd
    else:
        ends = list(map(pow, ends, repeat(1.0 / count)))
        means = zip(pool.lost_usd, pool.lost_mean, strict=True)
        usd = [last + (count - 1) * mean for last, mean in means]
    indices = [int(size * u) for u in ends]
    return [pool.lost_seconds[index] for index in indices], [usd[index] for index in indices]
