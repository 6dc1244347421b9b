"""Time in a ledger: it counts once, from the beginning, and a child has no longer than its parent."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.budgets import Amount, Budget, Ledger
from agentflow.errors import BudgetExceeded


class Clock:
    """Shows the time it is set to."""

    def __init__(self, time: float = 100.0) -> None:
        self.time = time

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_time_counts_from_the_beginning(clock: Clock) -> None:
    ledger = Ledger(Budget(deadline="30s"))
    assert (ledger.deadline, ledger.elapsed, ledger.left.seconds) == (None, 0, 30)

    ledger.begin(clock)
    clock.time += 12

    assert (ledger.deadline, ledger.elapsed, ledger.left.seconds) == (130, 12, 18)
    clock.time += 100
    assert ledger.left.seconds == 0


def test_time_begins_once(clock: Clock) -> None:
    ledger = Ledger(Budget(deadline=30))
    ledger.begin(clock)
    clock.time += 10
    ledger.begin(clock)

    assert ledger.deadline == 130


def test_time_begins_above_with_the_first_child_that_begins(clock: Clock) -> None:
    parent = Ledger(Budget(deadline=30))
    first, second = parent.child(), parent.child()
    first.begin(clock)
    clock.time += 20
    second.begin(clock)

    assert parent.deadline == first.deadline == second.deadline == 130
    assert (first.elapsed, second.elapsed, second.left.seconds) == (20, 0, 10)


def test_a_child_has_no_longer_than_its_parent(clock: Clock) -> None:
    parent = Ledger(Budget(deadline=30, least_chance=0.5))
    longer = parent.child(Budget(deadline=60, least_chance=0.1))
    shorter = parent.child(Budget(deadline=10, least_chance=0.2))
    none = shorter.child()
    for ledger in (longer, shorter, none):
        ledger.begin(clock)

    assert [ledger.deadline for ledger in (longer, shorter, none)] == [130, 110, 110]
    assert [ledger.left.seconds for ledger in (longer, shorter, none)] == [30, 10, 10]
    # Whose deadline it is says what may still be started before it.
    assert [ledger.least_chance for ledger in (longer, shorter, none)] == [0.5, 0.2, 0.2]


def test_what_cannot_finish_in_time_is_refused_and_sets_nothing_aside(clock: Clock) -> None:
    parent = Ledger(Budget(deadline=30, when_spent="cancel"))
    ledger = parent.child(Budget(usd=1, deadline=60))
    ledger.begin(clock)
    clock.time += 20

    ledger.reserve("0.10", seconds=10)
    with pytest.raises(BudgetExceeded) as refused:
        ledger.reserve("0.10", seconds=10.5)

    assert str(refused.value) == (
        "10.5 s do not fit: 10 of 30 s are left; allow more with Budget(deadline=...)"
    )
    assert (refused.value.asked, refused.value.left, refused.value.unit) == (10.5, 10, "seconds")
    assert refused.value.when_spent == "cancel"  # the parent's, whose limit it was
    assert parent.reserved == Amount(Decimal("0.10"))


def test_without_a_deadline_there_is_always_time(clock: Clock) -> None:
    ledger = Ledger(Budget(usd=1))
    ledger.begin(clock)

    ledger.reserve(seconds=1e9)

    assert (ledger.deadline, ledger.left.seconds) == (None, None)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_an_amount_of_time_that_is_none_is_an_error(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds cannot be"):
        Ledger().reserve(seconds=seconds)


LIMITS = st.none() | st.integers(0, 50)


@given(limits=st.lists(LIMITS, min_size=1, max_size=5), starts=st.lists(st.integers(0, 20)))
def test_however_a_line_of_ledgers_begins_none_outlives_those_above(
    limits: list[int | None], starts: list[int]
) -> None:
    clock, line = Clock(0), [Ledger(Budget(deadline=limits[0]))]
    for limit in limits[1:]:
        line.append(line[-1].child(Budget(deadline=limit)))
    for start in starts:
        clock.time += 1
        line[start % len(line)].begin(clock)
    line[-1].begin(clock)

    for above, below in pairwise(line):
        if above.deadline is not None:
            assert below.deadline is not None and below.deadline <= above.deadline
    left = line[-1].left.seconds
    for ledger in line:
        own = ledger.left.seconds
        assert own is None or (left is not None and left <= own)
