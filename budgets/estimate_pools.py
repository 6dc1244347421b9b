"""How long samples take and how much they write: what was seen, and what is likely besides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from agentflow.budgets.estimate_records import Record, Row

POOL = 128
"""Samples that stand for what may be."""

LENGTH = 300.0
"""Tokens that a model writes, when nothing is known."""

PACE = 1 / 60
"""Seconds that it takes for each."""

OVERHEAD = 30
"""Tokens it could write before the first arrives."""

PROMPT = 500
"""Tokens of an input, when nothing is known."""

ASSUMED = 2.0
"""Samples that what is assumed weighs as much as."""

_SPREAD_LENGTH, _SPREAD_PACE = 0.8, 0.35
_LIKELY = 16


@dataclass(frozen=True, slots=True)
class Size:
    """How long a sample takes, and how much it writes."""

    seconds: float
    tokens: int
    weight: float = 1.0


Weigh = Callable[[Row], float]
"""How much what was seen still counts."""


def typical_length(rows: Iterable[Row], weigh: Weigh, assumed: float = LENGTH) -> float:
    """Tokens of samples: a geometric mean."""
    return _typical(((row.completion_tokens, weigh(row)) for row in rows), assumed)


def typical_pace(rows: Iterable[Row], weigh: Weigh, assumed: float = PACE) -> float:
    """Seconds of samples for each token: a geometric mean."""
    paces = ((row.seconds / (row.completion_tokens + OVERHEAD), weigh(row)) for row in rows)
    return _typical(paces, assumed)


def mean_prompt(rows: Sequence[Row], weigh: Weigh) -> int | None:
    """Tokens of the input of samples; None without any."""
    weights = [weigh(row) for row in rows]
    if not (total := sum(weights)):
        return None
    return round(sum(w * row.prompt_tokens for w, row in zip(weights, rows, strict=True)) / total)


def likely_sizes(length: float, pace: float) -> list[Size]:
    """Sizes around a typical one: lengths and paces are lognormal, and independent."""
    normal = NormalDist()
    normals = [normal.inv_cdf((place + 0.5) / _LIKELY) for place in range(_LIKELY)]
    sizes = []
    for place, z in enumerate(normals):
        tokens = round(length * math.exp(_SPREAD_LENGTH * z))
        noise = math.exp(_SPREAD_PACE * normals[place * 7 % _LIKELY])
        sizes.append(Size((tokens + OVERHEAD) * pace * noise, tokens, ASSUMED / _LIKELY))
    return sizes


def pools(
    record: Record, assumed: Sequence[Size], weigh: Weigh, max_tokens: int | None
) -> tuple[list[Size], list[Size]]:
    """What samples that pass, and samples that do not, may be like.

    A sample that was cancelled says that it would have taken longer; whoever looks only at those
    that ended sees the fastest of several (the estimator is that of Kaplan and Meier).
    """
    won, lost, cut = (
        [Size(row.seconds, row.completion_tokens, weigh(row)) for row in rows]
        for rows in (record.won, record.lost, record.cut)
    )
    longest = max(size.seconds for size in [*won, *lost, *cut, *assumed])
    # Of what is cancelled last nobody knows how much longer it would have taken.
    open_end = [size for size in cut if size.seconds == longest]
    before = [size for size in cut if size.seconds < longest]
    shares = _shares([*won, *lost, *open_end, *_faded(assumed, [*won, *lost, *cut])], before)
    found = ([*sizes, *open_end, *_faded(assumed, sizes)] for sizes in (won, lost))
    passing, failing = (_pool(sizes, shares, max_tokens) for sizes in found)
    return passing, failing


def _typical(values: Iterable[tuple[float, float]], assumed: float) -> float:
    total, weights = ASSUMED * math.log(assumed), ASSUMED
    for value, weight in values:
        if value > 0:
            total += weight * math.log(value)
            weights += weight
    return math.exp(total / weights)


def _faded(assumed: Sequence[Size], seen: Sequence[Size]) -> list[Size]:
    """What is assumed, which soon weighs little beside what was seen: no tail is made up."""
    factor = ASSUMED / (ASSUMED + sum(size.weight for size in seen))
    return [Size(size.seconds, size.tokens, factor * size.weight) for size in assumed]


def _shares(ended: Sequence[Size], cut: Sequence[Size]) -> dict[float, float]:
    """By seconds, how much a sample that ended then stands for, those cancelled before included."""
    order = sorted(
        [*((size.seconds, 0, size) for size in ended), *((size.seconds, 1, size) for size in cut)],
        key=lambda entry: entry[:2],
    )
    at_risk, surviving = sum(size.weight for _, _, size in order), 1.0
    shares: dict[float, float] = {}
    for seconds, cancelled, size in order:
        if not cancelled:
            shares.setdefault(seconds, surviving / max(at_risk, 1e-12))
            surviving = max(0.0, surviving - shares[seconds] * size.weight)
        at_risk -= size.weight
    return shares


def _pool(sizes: list[Size], shares: dict[float, float], max_tokens: int | None) -> list[Size]:
    """So many sizes that stand for all of them, evenly spread over their weights."""
    sizes = sorted(sizes, key=lambda size: (size.seconds, size.tokens))
    weights = [size.weight * shares[size.seconds] for size in sizes]
    step = sum(weights) / POOL
    found, passed, place = [], 0.0, 0
    for number in range(POOL):
        while place < len(sizes) - 1 and passed + weights[place] <= (number + 0.5) * step:
            passed += weights[place]
            place += 1
        found.append(_within(sizes[place], max_tokens))
    return found


def _within(size: Size, max_tokens: int | None) -> Size:
    """A size that is cut off at so many tokens."""
    if max_tokens is None or size.tokens <= max_tokens:
        return size
    share = (max_tokens + OVERHEAD) / (size.tokens + OVERHEAD)
    return Size(size.seconds * share, max_tokens)
