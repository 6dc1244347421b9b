"""The chance that all candidates and all decisions of a run share."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

Column = list[float]
"""A number for each scenario."""


class Draws:
    """Named columns of random numbers, the same whenever they are asked for.

    Args:
        scenarios: How many numbers a column has.
        seed: Columns of equal seeds are equal.
    """

    def __init__(self, scenarios: int, seed: int | str) -> None:
        self.scenarios = scenarios
        self._seed = seed
        self._columns: dict[tuple[object, ...], Column] = {}

    def uniform(self, *name: object) -> Column:
        """Numbers from 0 to 1, spread evenly over the scenarios, in random order."""
        if name not in self._columns:
            self._columns[name] = self._spread(self.scenarios, name)
        return self._columns[name]

    def sequence(self, length: int, *name: object) -> Column:
        """So many numbers from 0 to 1, spread evenly, in random order."""
        key = (length, "sequence", *name)
        if key not in self._columns:
            self._columns[key] = self._spread(length, key)
        return self._columns[key]

    def exponential(self, *name: object) -> Column:
        """The uniform column of that name as exponential numbers of mean 1."""
        key = ("exponential", *name)
        if key not in self._columns:
            self._columns[key] = [-math.log1p(-u) for u in self.uniform(*name)]
        return self._columns[key]

    def least(self, count: int, *name: object) -> Column:
        """The least of so many uniform numbers; the more, the less, in every scenario."""
        key = ("least", count, *name)
        if key not in self._columns:
            exponential = self.exponential(*name)
            self._columns[key] = [-math.expm1(-number / count) for number in exponential]
        return self._columns[key]

    def _spread(self, length: int, name: object) -> Column:
        chance = random.Random(f"{self._seed} {name}")
        strata = chance.sample(range(length), length)
        draw, width = chance.random, 1.0 / length
        return [(stratum + draw()) * width for stratum in strata]


def pick(weights: Sequence[float], column: Column) -> list[int]:
    """Indices that occur as often as their weights say, by a column of uniform numbers."""
    sums = list(accumulate(weights))
    total, last = sums[-1], len(weights) - 1
    return [min(bisect_right(sums, u * total), last) for u in column]
