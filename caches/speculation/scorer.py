"""A logistic model over hashed features, learned one example at a time."""

from __future__ import annotations

import base64
import sys
import zlib
from array import array
from collections.abc import Iterable, Sequence
from math import exp, isfinite, sqrt
from typing import Any

SIZE = 1 << 17
"""Weights of a scorer; features that fall on the same one share it."""

RATE = 0.1
"""Step size of the first update of a weight."""

FEW = 24
"""Features of an example beyond which its steps are shorter, or one example would be believed."""

_MASK = SIZE - 1
_SMOOTH = 0.01
"""Added to the squared gradients, so that the first steps stay small."""


class Scorer:
    """Logistic regression by AdaGrad: the step size of each weight falls as it is used.

    Source: Duchi, Hazan and Singer 2011, "Adaptive subgradient methods".
    """

    def __init__(self) -> None:
        self._weights = array("f", bytes(4 * SIZE))
        self._squares = array("f", bytes(4 * SIZE))

    def score(self, features: Iterable[int]) -> float:
        """The sum of the weights of some features: a logit."""
        weights = self._weights
        return sum([weights[feature & _MASK] for feature in features])

    def update(self, features: Sequence[int], error: float) -> None:
        """Move the weights of an example by its error: predicted minus observed."""
        weights, squares = self._weights, self._squares
        square = error * error
        step = RATE * error * FEW / max(FEW, len(features))
        for feature in features:
            index = feature & _MASK
            squares[index] += square
            weights[index] -= step / sqrt(squares[index] + _SMOOTH)

    def dump(self) -> list[str]:
        """The weights and what they have seen, as JSON."""
        return [_packed(self._weights), _packed(self._squares)]

    @classmethod
    def load(cls, dumped: Any) -> Scorer:
        """The scorer that `dump` gave.

        Raises:
            TypeError, ValueError: It did not give this.
        """
        scorer = cls()
        weights, squares = dumped
        scorer._weights, scorer._squares = _unpacked(weights), _unpacked(squares)
        if min(scorer._squares) < 0:
            raise ValueError("a sum of squares is negative")
        return scorer


def logistic(x: float) -> float:
    """1 / (1 + e^-x), without overflow."""
    return 1 / (1 + exp(-max(-40.0, min(x, 40.0))))


def _packed(numbers: array[float]) -> str:
    return base64.b64encode(zlib.compress(_little(numbers).tobytes(), 6)).decode("ascii")


def _unpacked(text: str) -> array[float]:
    compressed = base64.b64decode(text, validate=True)
    size = 4 * SIZE
    try:
        data = zlib.decompressobj().decompress(compressed, size)
    except zlib.error as error:
        raise ValueError(f"the weights cannot be read: {error}") from None
    if len(data) != size:
        raise ValueError(f"there are {len(data) // 4} weights instead of {SIZE}")
    numbers = _little(array("f", data))
    if not all(map(isfinite, numbers)):
        raise ValueError("a weight is not finite")
    return numbers


def _little(numbers: array[float]) -> array[float]:
    """The same numbers with little-endian bytes, or the other way round."""
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers
