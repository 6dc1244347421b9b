"""What it is worth that everything is done, beside what it costs."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from statistics import median

from agentflow.budgets.allocation.options import kind, tails
from agentflow.budgets.allocation.tables import Tables

_THRIFT = 0.2  # the part of the probability that is given for the whole budget
_WORTH = 20.0  # what it is worth at most that everything is done, in budgets
_DEARER = 10.0  # by so many times a pass may be dearer from here than it was at the beginning
_SLACK = 20.0  # a larger budget than so many times the least cost counts as that
_PLENTY = 200.0  # times the least cost: what there is without a limit
_SOME = 64  # scenarios for the least cost


class Stakes:
    """How probability and money are weighed in one run.

    Args:
        usd: The limit of the run, or None.
        least: USD that the run takes in half of all cases: so far, and in the cheapest way on.

    Attributes:
        price: What a USD is worth, as a part of the probability.
        plenty: USD that take the place of a limit where there is none.
    """

    def __init__(self, usd: float | None, least: float) -> None:
        self._limited = usd is not None
        self.plenty = _PLENTY * least or 1.0
        self._budget = min(self.plenty if usd is None else usd, _SLACK * least) or 1.0
        self.price = _THRIFT / self._budget
        self._worth: float | None = None

    def lost(self, probability: float, usd: float) -> bool:
        """Whether going on is not worth what it is expected to cost."""
        if self._worth is None:
            again = _DEARER * usd / probability if probability else math.inf
            self._worth = min(max(again, self._budget), _WORTH * self._budget)
        return not probability or (self._limited and probability * self._worth < usd)


def least_cost(tables: Sequence[Tables]) -> Generator[float, None, float]:
    """USD that the cheapest way through all jobs takes in half of all cases."""
    least: dict[object, float] = {}
    total = 0.0
    for table in tables:
        if not table.job.widths:
            continue
        if (key := kind(table.job)) not in least:
            least[key] = math.inf
            for tail in tails(table.job):
                least[key] = min(least[key], median(table.tail(tail, _SOME)[1]))
                yield 0.0
        total += least[key]
    return total
