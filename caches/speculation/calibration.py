"""Turns logits into probabilities that mean what they say."""

from __future__ import annotations

from typing import Any

from agentflow.caches.speculation.scorer import logistic

BINS = 33
"""Logits from -8 to 8 are told apart in steps of a half."""

PRIOR = 20.0
"""Examples that a bin needs until what was seen counts as much as the logit itself."""

_WIDTH = 0.5
_MIDDLE = BINS // 2


class Calibration:
    """How often what was predicted came true, by logit; learned on predictions made beforehand."""

    def __init__(self) -> None:
        self._seen = [0.0] * BINS
        self._true = [0.0] * BINS
        self._curve: list[float] | None = None

    def learn(self, logit: float, outcome: bool, weight: float = 1.0) -> None:
        """Note what came of a prediction."""
        index = round(_place(logit))
        self._seen[index] += weight
        self._true[index] += weight * outcome
        self._curve = None

    def probability(self, logit: float) -> float:
        """The calibrated probability; never falls as the logit rises."""
        if self._curve is None:
            self._curve = self._fitted()
        place = _place(logit)
        left = min(int(place), BINS - 2)
        share = place - left
        return self._curve[left] + (self._curve[left + 1] - self._curve[left]) * share

    def dump(self) -> list[list[float]]:
        """What was seen and what came true, as JSON."""
        return [self._seen[:], self._true[:]]

    @classmethod
    def load(cls, dumped: Any) -> Calibration:
        """The calibration that `dump` gave.

        Raises:
            TypeError, ValueError: It did not give this.
        """
        calibration = cls()
        seen, true = ([float(number) for number in numbers] for numbers in dumped)
        if len(seen) != BINS or len(true) != BINS:
            raise ValueError(f"a calibration has {BINS} bins")
        if not all(0 <= t <= s < float("inf") for s, t in zip(seen, true, strict=True)):
            raise ValueError("more came true than was seen")
        calibration._seen, calibration._true = seen, true
        return calibration

    def _fitted(self) -> list[float]:
        """The share that came true by bin, smoothed towards the logit and made to rise."""
        blocks: list[tuple[float, float, int]] = []
        for index in range(BINS):
            prior = logistic((index - _MIDDLE) * _WIDTH)
            weight = self._seen[index] + PRIOR
            block = ((self._true[index] + PRIOR * prior) / weight, weight, 1)
            while blocks and blocks[-1][0] > block[0]:
                block = _pooled(blocks.pop(), block)
            blocks.append(block)
        return [value for value, _, count in blocks for _ in range(count)]


def _pooled(
    one: tuple[float, float, int], other: tuple[float, float, int]
) -> tuple[float, float, int]:
    weight = one[1] + other[1]
    return ((one[0] * one[1] + other[0] * other[1]) / weight, weight, one[2] + other[2])


def _place(logit: float) -> float:
    return max(0.0, min(logit / _WIDTH + _MIDDLE, BINS - 1.0))
