"""The chance that all candidates and all decisions of a run share."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

Column = list[float]
"""A number for each scenario."""


class Draws:
    """Named columns of uniform numbers, the same whenever they are asked for.

    Args:
        scenarios: How many numbers a column has.
        seed: Columns of equal seeds are equal.
    """

    def __init__(self, scenarios: int, seed: int) -> None:
        self.scenarios = scenarios
        self.seed = seed
        self._columns: dict[tuple[object, ...], Column] = {}

    def uniform(self, *name: object) -> Column:
        """Numbers between 0 and 1, spread evenly over the scenarios, in random order."""
        column = self._columns.get(name)
        if column is None:
            chance = random.Random(f"{self.seed} {name}")
            strata = chance.sample(range(self.scenarios), self.scenarios)
            draw, width = chance.random, 1.0 / self.scenarios
            column = self._columns[name] = [(stratum + draw()) * width for stratum in strata]
        return column



def pick(weights: Sequence[float], column: Column) -> list[int]:
    """Indices that occur as often as their weights say, by a column of uniform numbers."""
    sums = list(accumulate(weights))
    total, last = sums[-1], len(weights) - 1
    return [min(bisect_right(sums, u * total), last) for u in column]
