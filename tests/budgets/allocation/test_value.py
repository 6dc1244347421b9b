from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.budgets.allocation.situation import Job
from agentflow.budgets.allocation.value import Board

ROWS = 4
Columns = list[tuple[list[float], list[float]]]

COLUMN = st.lists(st.floats(0, 10), min_size=ROWS, max_size=ROWS)


@st.composite
def plans(draw: st.DrawFn) -> tuple[list[Job], Columns]:
    jobs = []
    for number in range(draw(st.integers(1, 7))):
        after = draw(st.sets(st.integers(0, number - 1))) if number else set()
        jobs.append(Job(number, tuple(after), {}))
    return jobs, [(draw(COLUMN), draw(COLUMN)) for _ in jobs]


def board(jobs: list[Job], columns: Columns, usd: float, seconds: float) -> Board:
    its = Board(jobs, usd, seconds, ROWS)
    for number, (took, cost) in enumerate(columns):
        its.put(number, took, cost)
    for _ in its.update():
        pass
    return its


def by_hand(jobs: list[Job], columns: Columns, usd: float, seconds: float) -> int:
    """Scenarios that end within the limits, one after the other."""
    wins = 0
    for row in range(ROWS):
        ends: list[float] = []
        for job, (took, _) in zip(jobs, columns, strict=True):
            ends.append(max((ends[other] for other in job.after), default=0.0) + took[row])
        paid = sum(cost[row] for _, cost in columns)
        wins += max(ends) <= seconds * (1 + 1e-9) and paid <= usd * (1 + 1e-9)
    return wins


@given(plans(), st.floats(1, 40), st.floats(1, 30))
def test_the_value_is_that_of_every_scenario_by_itself(
    plan: tuple[list[Job], Columns], usd: float, seconds: float
) -> None:
    assert board(*plan, usd, seconds).within() == by_hand(*plan, usd, seconds)


@given(plans(), st.floats(1, 40), st.floats(1, 30), COLUMN, COLUMN, st.data())
def test_the_room_of_a_job_tells_what_a_change_gives(
    plan: tuple[list[Job], Columns], usd: float, seconds: float,
    took: list[float], cost: list[float], data: st.DataObject,
) -> None:  # fmt: skip
    jobs, columns = plan
    number = data.draw(st.integers(0, len(jobs) - 1))
    wins, _ = board(jobs, columns, usd, seconds).room(number).weigh(took, cost)
    changed = [*columns[:number], (took, cost), *columns[number + 1 :]]
    assert wins == by_hand(jobs, changed, usd, seconds)


def test_no_more_is_paid_than_there_is() -> None:
    jobs = [Job(0, (), {}), Job(1, (), {})]
    its = board(jobs, [([1.0] * 4, [3.0] * 4), ([1.0] * 4, [1.0] * 4)], 5.0, 9.0)
    assert its.room(1).weigh([1.0] * 4, [1.0, 2.0, 3.0, 9.0])[1] == pytest.approx(1 + 2 + 2 + 2)


def test_jobs_that_are_not_there_are_not_waited_for() -> None:
    assert board([Job(5, (99,), {})], [([1.0] * 4, [1.0] * 4)], 1.0, 1.0).within() == 4
