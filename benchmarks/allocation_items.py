"""Items of a kind: hopeless, or easy or hard for all models alike; and how outcomes correlate."""

from __future__ import annotations

import math
from statistics import NormalDist

NORMAL = NormalDist()
HOPELESS, HOPELESS_P = 0.085, 0.004  # share of items that no model can do, and a sample's chance


def given(
    mean: float, shared: float, hopeless: bool, latent: float, share: float = HOPELESS
) -> float:
    """The probability of an item, where `mean` is that over all items."""
    if hopeless:
        return HOPELESS_P
    others = (mean - share * HOPELESS_P) / (1 - share)
    level = NORMAL.inv_cdf(min(max(others, 0.01), 0.99))
    return NORMAL.cdf((level + math.sqrt(shared) * latent) / math.sqrt(1 - shared))


QUANTILES = [NORMAL.inv_cdf((i + 0.5) / 200) for i in range(200)]


def items(mean: float, shared: float, share: float = HOPELESS) -> list[tuple[float, float]]:
    """(weight, probability) of the items of a kind; `share` of them are hopeless."""
    weight = (1 - share) / len(QUANTILES)
    usual = [(weight, given(mean, shared, False, z, share)) for z in QUANTILES]
    return [(share, HOPELESS_P), *usual]


def correlation(one: float, other: float, shared: float, share: float = HOPELESS) -> float:
    """The correlation of the outcomes of two samples of one item, by the models' means."""
    pairs = zip(items(one, shared, share), items(other, shared, share), strict=True)
    both = [(weight, a, b) for (weight, a), (_, b) in pairs]
    p, q = sum(w * a for w, a, _ in both), sum(w * b for w, _, b in both)
    joint = sum(w * a * b for w, a, b in both)
    return (joint - p * q) / math.sqrt(p * (1 - p) * q * (1 - q))


def fitted(mean: float, wanted: float) -> float:
    """The shared part of a normal model without hopeless items whose outcomes correlate so much."""
    low, high = 0.0, 0.99
    while high - low > 1e-3:
        middle = (low + high) / 2
        if correlation(mean, mean, middle, 0.0) < wanted:
            low = middle
        else:
            high = middle
    return low
