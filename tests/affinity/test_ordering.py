"""The order of what waits."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from agentflow.caches.affinity.fleet import Fleet, Session
from agentflow.caches.affinity.jobs import Job
from agentflow.caches.affinity.ordering import rank, urgent
from agentflow.caches.affinity.prompts import Prompt

NOW = 100.0


def job(
    number: int,
    *,
    session: str = "",
    program: float = 0.0,
    deadline: float | None = None,
    remaining: float = 0.0,
    optional: bool = False,
) -> Job:
    return Job(
        number, session or f"session {number}", Prompt((), 10), 10.0, NOW, program,
        deadline=deadline, remaining=remaining, optional=optional,
    )  # fmt: skip


def order(*jobs: Job, fleet: Fleet | None = None, ahead: dict[int, int] | None = None) -> list[int]:
    known, quanta = fleet or Fleet(64), ahead or {}
    ranked = sorted(jobs, key=lambda job: rank(job, quanta.get(job.number, 0), known, NOW))
    return [job.number for job in ranked]


def test_older_programs_go_first_and_then_older_requests() -> None:
    jobs = job(1, program=5.0), job(3, program=2.0), job(2, program=2.0)

    assert order(*jobs) == [2, 3, 1]


def test_a_session_keeps_the_age_of_its_program_whatever_its_request_says() -> None:
    fleet = Fleet(64)
    fleet.sessions["old"] = Session("old", program=1.0)

    assert order(job(1, program=2.0), job(2, session="old", program=9.0), fleet=fleet) == [2, 1]


def test_tenants_that_are_ahead_wait_even_with_older_programs() -> None:
    assert order(job(1, program=0.0), job(2, program=9.0), ahead={1: 1}) == [2, 1]


def test_urgent_programs_go_first_among_equal_tenants() -> None:
    urgent_one = job(3, program=9.0, deadline=NOW + 10, remaining=8.0)

    assert order(job(1), urgent_one) == [3, 1]
    assert order(job(1), urgent_one, ahead={3: 1}) == [1, 3]


def test_of_one_program_the_longest_way_to_go_is_first() -> None:
    assert order(job(1, remaining=1.0), job(2, remaining=5.0)) == [2, 1]


def test_of_programs_as_old_what_is_further_along_goes_on() -> None:
    fleet = Fleet(64)
    fleet.sessions["fresh"] = Session("fresh", program=0.0)
    fleet.sessions["served"] = Session("served", program=0.0, service=5000.0)

    assert order(job(1, session="fresh"), job(2, session="served"), fleet=fleet) == [2, 1]


def test_what_is_optional_comes_last() -> None:
    jobs = job(1, optional=True, deadline=NOW + 10, remaining=9.0), job(2, program=50.0)

    assert order(*jobs, ahead={2: 9}) == [2, 1]


def test_urgency_begins_at_half_of_the_time_left_and_ends_when_it_is_hopeless() -> None:
    def needs(remaining: float, deadline: float | None = NOW + 10.0) -> bool:
        return urgent(job(1, deadline=deadline, remaining=remaining), NOW)

    assert [needs(r) for r in (4.9, 5.0, 10.0, 15.0, 15.1)] == [False, True, True, True, False]
    assert not needs(9.0, deadline=None)
    assert not needs(9.0, deadline=NOW)
    assert not needs(9.0, deadline=NOW - 1)


jobs = st.builds(
    job,
    number=st.integers(),
    session=st.sampled_from(["x", "y", "z"]),
    program=st.floats(-5, 5),
    deadline=st.one_of(st.none(), st.floats(NOW - 5, NOW + 5)),
    remaining=st.floats(0, 5),
    optional=st.booleans(),
)


@given(st.lists(jobs, max_size=12, unique_by=lambda job: job.number), st.randoms())
def test_the_order_is_total_and_does_not_depend_on_how_they_stand(
    waiting: list[Job], chance: random.Random
) -> None:
    shuffled = waiting.copy()
    chance.shuffle(shuffled)

    assert order(*shuffled) == order(*waiting)
