"""What becomes of samples that are under way together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import repeat
from operator import add

from agentflow.budgets.allocation.draws import Column
from agentflow.budgets.allocation.pools import BINS, Pool


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

    @classmethod
    def empty(cls, rows: int) -> Batch:
        """No samples at all: that ends at once, and nothing has passed."""
        zeros = [0.0] * rows
        return cls([math.inf] * rows, zeros, zeros, zeros, [0.0] * (BINS + 1), 1.0)

    def beside(self, other: Batch) -> Batch:
        """Both at once, until the first sample of any passes."""
        first, paid = [], []
        mine, theirs, step = self.spent, other.spent, self.step
        rows = zip(self.first, self.paid, other.first, other.paid, strict=True)
        for t, usd, other_t, other_usd in rows:
            if t <= other_t:
                first.append(t)
                paid.append(usd + theirs[int(t / step)] if t < math.inf else 0.0)
            else:
                first.append(other_t)
                paid.append(other_usd + mine[int(other_t / step)])
        end = list(map(max, self.end, other.end))
        lost = list(map(add, self.lost, other.lost))
        return Batch(first, paid, end, lost, list(map(add, mine, theirs)), step)

    def then(self, seconds: Column, usd: Column) -> tuple[Column, Column]:
        """Seconds and USD until a sample passes, if these follow where none of the groups does."""
        took = zip(self.first, self.end, seconds, strict=True)
        cost = zip(self.first, self.paid, self.lost, usd, strict=True)
        return (
            [t if t < math.inf else end + more for t, end, more in took],
            [paid if t < math.inf else lost + more for t, paid, lost, more in cost],
        )


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
    one = pool.curve(step, sum(chances) / len(chances))
    won, usd = pool.won_seconds, winning(pool, count, one, step)
    size = len(won)
    indices = [int(size * x / p) if x < p else -1 for x, p in zip(shares, chances, strict=True)]
    first = [won[index] if index >= 0 else math.inf for index in indices]
    paid = [usd[index] for index in indices]
    return Batch(first, paid, *losing(pool, count, ends), [count * usd for usd in one], step)


def winning(pool: Pool, count: int, spent: Column, step: float) -> Column:
    """USD of so many samples, by which one of the pool is the first that passes.

    Args:
        pool: What one of them may be.
        count: How many there are.
        spent: The curve of what one of them costs that does not pass before.
        step: Seconds of a bin of time.
    """
    if count == 1:
        return pool.won_usd
    others = count - 1
    return [
        usd + others * spent[int(t / step)]
        for t, usd in zip(pool.won_seconds, pool.won_usd, strict=True)
    ]


def losing(pool: Pool, count: int, ends: Column) -> tuple[Column, Column]:
    """Seconds and USD of so many samples of which none passes."""
    size, usd = len(pool.lost_seconds), pool.lost_usd
    if count > 1:
        ends = list(map(pow, ends, repeat(1.0 / count)))
        means = zip(usd, pool.lost_mean, strict=True)
        usd = [last + (count - 1) * mean for last, mean in means]
    indices = [int(size * u) for u in ends]
    return [pool.lost_seconds[index] for index in indices], [usd[index] for index in indices]
