"""A logistic model over hashed features, learned one example at a time."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from math import exp, sqrt

BITS = 17
_MASK = (1 << BITS) - 1


class Scorer:
    """Logistic regression by AdaGrad: each feature has its own, falling, step size."""

    def __init__(self, rate: float = 0.1, decay: float = 1e-6) -> None:
        self._rate = rate
        self._decay = decay
        self._weights = array("d", bytes(8 << BITS))
        self._squares = array("d", bytes(8 << BITS))

    def raw(self, features: Iterable[int]) -> float:
        weights = self._weights
        return sum([weights[feature & _MASK] for feature in features])

    def update(self, features: Iterable[int], gradient: float) -> None:
        weights, squares, rate = self._weights, self._squares, self._rate
        for feature in features:
            index = feature & _MASK
            step = gradient + self._decay * weights[index]
            squares[index] += step * step
            weights[index] -= rate * step / sqrt(squares[index] + 1e-2)


def logistic(x: float) -> float:
    """1 / (1 + e^-x), without overflow."""
    if x < 0:
        e = exp(max(x, -40.0))
        return e / (1 + e)
    return 1 / (1 + exp(-min(x, 40.0)))
