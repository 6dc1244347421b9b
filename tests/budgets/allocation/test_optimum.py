"""Against the exact optimum, where all samples take one second and cost whole cents."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import combinations

import pytest

from agentflow.budgets.allocation.montecarlo import MonteCarlo
from agentflow.budgets.allocation.situation import Job, Profile, Situation

Groups = tuple[tuple[str, int], ...]

CENTS = {"small": 1, "middle": 2, "large": 4}
PASSES = {"small": 0.35, "middle": 0.6, "large": 0.9}
WIDTHS = (1, 4)


def profile(name: str) -> Profile:
    record = (1.0, CENTS[name] / 100)
    return Profile(PASSES[name], [record], [record])


MODELS = {name: profile(name) for name in CENTS}


def cost(groups: Groups) -> int:
    return sum(CENTS[name] * count for name, count in groups)


def failure(groups: Groups) -> float:
    product = 1.0
    for name, count in groups:
        product *= (1.0 - PASSES[name]) ** count
    return product


def options() -> Iterator[Groups]:
    """One model with a width, or two models with a width each."""
    single = [(name, width) for name in CENTS for width in WIDTHS]
    yield from ((one,) for one in single)
    yield from ((a, b) for a, b in combinations(single, 2) if a[0] != b[0])


@cache
def optimum(jobs: int, cents: int, seconds: int) -> float:
    """The highest probability to get a chain of so many jobs done."""
    if not jobs:
        return 1.0
    if not seconds:
        return 0.0
    return max(
        (_after(optimum, groups, jobs, cents, seconds) for groups in options() if cost(groups) <= cents),
        default=0.0,
    )  # fmt: skip


def _after(value: object, groups: Groups, jobs: int, cents: int, seconds: int) -> float:
    missed, left = failure(groups), cents - cost(groups)
    passed = value(jobs - 1, left, seconds - 1)  # type: ignore[operator]  # a cached function
    again = value(jobs, left, seconds - 1)  # type: ignore[operator]  # a cached function
    return float((1.0 - missed) * passed + missed * again)


@cache
def reached(jobs: int, cents: int, seconds: int) -> float:
    """The probability that the allocator gets them done, asked anew in every state."""
    if not jobs:
        return 1.0
    if not seconds:
        return 0.0
    groups = begun(jobs, cents, seconds)
    if not groups or cost(groups) > cents:
        return 0.0
    return _after(reached, groups, jobs, cents, seconds)


def begun(jobs: int, cents: int, seconds: int) -> Groups:
    chain = tuple(
        Job(number, (number - 1,) if number else (), MODELS, WIDTHS, ready=not number)
        for number in range(jobs)
    )
    # Half a cent and half a second more: sums of columns are no integers.
    situation = Situation(chain, (cents + 0.5) / 100, seconds + 0.5)
    deciding = MonteCarlo().decide(situation, random.Random(0))
    while True:
        try:
            next(deciding)
        except StopIteration as end:
            return tuple((start.model, start.samples) for start in end.value.starts)


LIMITS = [(jobs, cents, seconds) for jobs in (1, 2) for cents in (4, 7, 12) for seconds in (2, 4)]


def gaps(limits: Iterable[tuple[int, int, int]]) -> Mapping[tuple[int, int, int], float]:
    return {limit: optimum(*limit) - reached(*limit) for limit in limits}


def test_the_allocator_is_near_the_optimum() -> None:
    found = gaps(LIMITS)
    assert sum(found.values()) / len(found) < 0.02, found
    assert max(found.values()) < 0.15, found


@pytest.mark.parametrize("seconds", [1, 2, 3])
def test_the_optimum_uses_money_where_time_is_short(seconds: int) -> None:
    assert optimum(1, 16, seconds) >= 1 - failure((("large", 4),)) - 1e-9
