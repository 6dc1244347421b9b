from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.budgets.allocation.draws import Draws, pick


def test_a_column_is_the_same_whenever_it_is_asked_for() -> None:
    one, other = Draws(64, 1), Draws(64, 1)
    other.uniform("something else")
    assert one.uniform("a", 3) == other.uniform("a", 3)
    assert one.uniform("a", 3) != one.uniform("a", 4)
    assert one.uniform("a", 3) != Draws(64, 2).uniform("a", 3)


def test_a_column_is_spread_evenly() -> None:
    assert sorted(int(u * 64) for u in Draws(64, 1).uniform("a")) == list(range(64))
    assert sorted(int(u * 10) for u in Draws(64, 1).sequence(10, "a")) == list(range(10))


@given(st.integers(1, 63))
def test_one_more_number_never_makes_the_least_larger(count: int) -> None:
    draws = Draws(32, 5)
    assert all(
        more < fewer
        for fewer, more in zip(draws.least(count, "a"), draws.least(count + 1, "a"), strict=True)
    )


def test_the_least_of_some_numbers_has_the_right_mean() -> None:
    least = Draws(2000, 5).least(4, "a")
    assert sum(least) / 2000 == pytest.approx(1 / 5, rel=0.02)


def test_what_is_picked_occurs_as_often_as_it_weighs() -> None:
    picked = Counter(pick([1.0, 0.0, 3.0], Draws(400, 1).uniform("a")))
    assert picked == {0: 100, 2: 300}
