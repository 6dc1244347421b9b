"""What episodes say: success with an interval, dollars, decision times, and paired comparisons."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction

from allocation_contest import Outcome

READY = 4  # nodes at most, for the times that have a limit


@dataclass(frozen=True)
class Score:
    """What a policy came to in some episodes."""

    episodes: int
    success: float
    low: float
    high: float
    usd_per_success: float
    usd: float
    samples: float
    overdrawn: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def score(outcomes: Sequence[Outcome]) -> Score:
    """Success with its 95 % interval, and what it cost."""
    count, passed = len(outcomes), sum(outcome.passed for outcome in outcomes)
    usd = sum(outcome.usd for outcome in outcomes)
    low, high = wilson(passed, count)
    return Score(
        count, passed / count, low, high, usd / passed if passed else math.inf, usd / count,
        sum(outcome.samples for outcome in outcomes) / count,
        sum(outcome.overdrawn > 0 for outcome in outcomes),
    )  # fmt: skip


def wilson(passed: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share."""
    share = passed / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    half /= 1 + z * z / count
    return max(middle - half, 0.0), min(middle + half, 1.0)


def quantiles(outcomes: Sequence[Outcome], ready: int | None = None) -> tuple[float, float]:
    """The median and the 99 % quantile of decisions, in ms; of up to `ready` ready nodes."""
    found = sorted(
        seconds
        for outcome in outcomes
        for count, seconds in outcome.decisions
        if ready is None or count <= ready
    )
    if not found:
        return 0.0, 0.0
    last = len(found) - 1
    return 1e3 * found[last // 2], 1e3 * found[math.ceil(0.99 * last)]


@dataclass(frozen=True)
class Comparison:
    """Ours beside another policy in the same episodes.

    Attributes:
        difference: Of the shares of success.
        error: Standard error of the difference, by pairs.
        better: Episodes that only ours passed.
        worse: Episodes that only the other passed.
        worse_p: How likely so many are, or more, if ours were no worse.
    """

    difference: float
    error: float
    better: int
    worse: int
    worse_p: float


def compare(ours: Sequence[Outcome], other: Sequence[Outcome]) -> Comparison:
    """The paired comparison; the episodes are in the same order."""
    count = len(ours)
    pairs = [(one.passed, two.passed) for one, two in zip(ours, other, strict=True)]
    better = sum(one and not two for one, two in pairs)
    worse = sum(two and not one for one, two in pairs)
    difference = (better - worse) / count
    variance = (better + worse) / count - difference * difference
    error = math.sqrt(max(variance, 0.0) / count)
    return Comparison(difference, error, better, worse, sign_test(worse, better + worse))


def sign_test(worse: int, count: int) -> float:
    """The probability of so many heads, or more, among so many tosses of a fair coin."""
    return float(Fraction(sum(math.comb(count, k) for k in range(worse, count + 1)), 2**count))


def by(
    outcomes: Sequence[Outcome], key: Callable[[Outcome], Hashable]
) -> dict[Hashable, list[Outcome]]:
    """Episodes, grouped."""
    groups: dict[Hashable, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(key(outcome), []).append(outcome)
    return groups


def by_group(
    ours: Sequence[Outcome], other: Sequence[Outcome], key: Callable[[Outcome], Hashable]
) -> dict[Hashable, Comparison]:
    """The comparison in every group."""
    one, two = by(ours, key), by(other, key)
    return {name: compare(one[name], two[name]) for name in one}


def significant(comparisons: Mapping[Hashable, Comparison], level: float = 0.05) -> list[Hashable]:
    """The groups in which ours is worse, by Holm's step-down test."""
    found = []
    ordered = sorted(comparisons.items(), key=lambda item: item[1].worse_p)
    for place, (name, comparison) in enumerate(ordered):
        if comparison.worse_p > level / (len(ordered) - place):
            break
        found.append(name)
    return found


def hindsight(found: Mapping[str, Sequence[Outcome]], key: Callable[[Outcome], Hashable]) -> float:
    """The success of the best of some policies, chosen in every group after the fact."""
    grouped = [by(outcomes, key) for outcomes in found.values()]
    best: dict[Hashable, int] = {}
    total = 0
    for group in {name for groups in grouped for name in groups}:
        its = [groups[group] for groups in grouped if group in groups]
        best[group] = max(sum(outcome.passed for outcome in outcomes) for outcomes in its)
        total += len(its[0])
    return sum(best.values()) / total
