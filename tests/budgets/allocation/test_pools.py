from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.budgets.allocation.pools import Pool
from agentflow.budgets.allocation.situation import Profile

RECORDS = st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.001, 10)), min_size=1, max_size=12)


def by_hand(won: Sequence[tuple[float, float]], lost: Sequence[tuple[float, float]], p: float,
            seconds: float) -> float:  # fmt: skip
    """Mean USD by then of a sample that has not passed, summed record by record."""
    whole = spending = 0.0
    for records, chance in ((won, p), (lost, 1 - p)):
        for took, usd in records:
            if records is won and took <= seconds:
                continue
            weight = chance / len(records)
            whole += weight
            spending += weight * usd * min(1.0, seconds / took)
    return spending / whole


@given(won=RECORDS, lost=RECORDS, p=st.floats(0.05, 0.95), seconds=st.floats(0, 120))
def test_what_a_sample_has_cost_is_the_mean_over_its_records(
    won: list[tuple[float, float]], lost: list[tuple[float, float]], p: float, seconds: float
) -> None:
    pool = Pool(Profile(p, won, lost))
    assert pool.spent(seconds, p) == pytest.approx(by_hand(won, lost, p, seconds), rel=1e-6)


def test_without_refunds_a_sample_costs_all_from_its_beginning() -> None:
    pool = Pool(Profile(0.5, [(2.0, 4.0)], [(2.0, 6.0)], refunds=False))
    assert pool.spent(0.5, 0.5) == pytest.approx(5.0)


def test_the_input_is_spent_when_a_sample_begins() -> None:
    pool = Pool(Profile(0.5, [(2.0, 4.0)], [(2.0, 4.0)], start=3.0))
    assert pool.spent(0.0, 0.5) == pytest.approx(3.0)
    assert pool.spent(1.0, 0.5) == pytest.approx(3.5)


def test_a_sample_under_way_lasts_longer_than_it_has() -> None:
    pool = Pool(Profile(0.5, [(1.0, 1.0), (5.0, 1.0)], [(8.0, 1.0)]), age=2.0)
    assert pool.won_seconds == [3.0]
    assert pool.lost_seconds == [6.0]
    assert pool.chances([0.5]) == pytest.approx([1 / 3])  # half of those that pass have ended


def test_a_sample_older_than_all_records_may_still_pass() -> None:
    pool = Pool(Profile(0.5, [(1.0, 1.0)], [(2.0, 3.0)]), age=4.0)
    assert pool.won_seconds == [1.0]
    assert pool.won_usd == [3.0]
    assert pool.chances([0.5]) == [0.5]


def test_a_sample_that_takes_more_than_it_may_is_cut() -> None:
    pool = Pool(Profile(0.6, [(1.0, 1.0), (4.0, 4.0)], [(6.0, 6.0), (1.0, 0.5)]), most=2.0)
    assert pool.won_usd == [1.0]
    assert pool.chances([0.6]) == pytest.approx([0.3])
    assert sorted(zip(pool.lost_seconds, pool.lost_usd, strict=True)) == [
        (1.0, 0.5), (2.0, 2.0), (2.0, 2.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "profile",
    [
        Profile(0.5, [], []),
        Profile(0.5, [], [(1.0, 1.0)]),
        Profile(1.0, [(1.0, 1.0)], []),
        Profile(0.5, [(0.0, 0.0)], [(0.0, 0.0)]),
    ],
)
def test_any_profile_can_be_drawn_from(profile: Profile) -> None:
    pool = Pool(profile)
    assert pool.won_seconds and pool.lost_seconds
    assert all(math.isfinite(usd) for usd in pool.curve(0.1, 0.5))
