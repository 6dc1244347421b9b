"""Least squares that forget: what was observed as a sum of parts, none of which is negative."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

MEMORY = 0.97
"""Weight that an observation keeps when the next one comes: some thirty count."""

GUESS = 0.1
"""Weight of each row of a first guess, which it keeps."""

MOST = 1e12
"""Beyond this an observation is none."""

_TINY = 1e-12
"""Share of a part's own square below which what the others leave of it is rounding."""

Row: TypeAlias = "tuple[float, ...]"
"""How much there was of each part, and what it came to."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What explains the observations best.

    Attributes:
        parts: What a unit of each part adds.
        squares: What the others do not explain of the last part, squared and added up: the more,
            the better is known what it adds. The guess is counted in.
        left: What is not explained of the observations, squared and added up.
        count: How many observations count.
    """

    parts: Row
    squares: float
    left: float
    count: float


class LeastSquares:
    """Learns what a unit of each part adds.

    Weights decay exponentially; until enough was seen, and where all that was seen lately is much
    alike, it leans on a first guess.

    Args:
        guess: Rows that count as observed for ever, though not for much.
    """

    __slots__ = ("_count", "_guess", "_moments")

    def __init__(self, guess: Iterable[Row]) -> None:
        products = [[GUESS * product for product in _products(row)] for row in guess]
        self._guess = self._moments = [sum(column) for column in zip(*products, strict=True)]
        self._count = 0.0

    def observe(self, *row: float) -> None:
        """One more row; what cannot be is passed over."""
        if not all(0.0 <= value <= MOST for value in row):
            return
        self._count = MEMORY * self._count + 1.0
        sums = zip(self._moments, self._guess, _products(row), strict=True)
        self._moments = [guess + MEMORY * (kept - guess) + new for kept, guess, new in sums]

    def fit(self) -> Fit:
        """What explains best what was seen; a part that would be negative is left out."""
        size = math.isqrt(len(self._moments))
        kept = list(range(size - 1))
        while True:
            rows = _eliminated(self._moments, [*kept, size - 1])
            parts = _solved(rows)
            if all(part >= 0.0 for part in parts):
                break
            kept.pop(min(range(len(kept)), key=lambda i: parts[i] * math.sqrt(rows[i][i])))
        found = dict(zip(kept, parts, strict=True))
        last = rows[-2][-2] if size - 2 in found else 0.0
        return Fit(
            tuple(found.get(part, 0.0) for part in range(size - 1)),
            last,
            max(0.0, rows[-1][-1]),
            self._count,
        )


def _products(row: Sequence[float]) -> list[float]:
    """What least squares add up: each with each."""
    return [x * y for x in row for y in row]


def _eliminated(moments: Sequence[float], kept: Sequence[int]) -> list[list[float]]:
    """Gaussian elimination of the columns that are kept, but for the last."""
    size = math.isqrt(len(moments))
    rows = [[moments[i * size + j] for j in kept] for i in kept]
    for index in range(len(rows) - 1):
        row = rows[index]
        if row[index] <= _TINY * moments[kept[index] * (size + 1)]:
            row[index] = 0.0
            continue
        for below in range(index + 1, len(rows)):
            factor = row[below] / row[index]
            rows[below] = [x - factor * y for x, y in zip(rows[below], row, strict=True)]
    return rows


def _solved(rows: Sequence[Sequence[float]]) -> list[float]:
    """What a unit of each part adds; nothing where that cannot be told from the others."""
    parts = [0.0] * (len(rows) - 1)
    for index in reversed(range(len(parts))):
        row = rows[index]
        rest = row[-1] - sum(row[j] * parts[j] for j in range(index + 1, len(parts)))
        parts[index] = rest / row[index] if row[index] else 0.0
    return parts
