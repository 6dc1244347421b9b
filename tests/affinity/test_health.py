"""A breaker leaves alone what fails, and tries it again with one request."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.caches.affinity.fleet import Flight, Replica
from agentflow.caches.affinity.health import (
    FEWEST,
    LONGEST_BACKOFF,
    MOST_DOUBLINGS,
    SHORTEST_SILENCE,
    SILENCE,
    SLOW_SILENCE,
    SLOWER,
    Breaker,
    Doubt,
    longest_silence,
)
from agentflow.caches.affinity.jobs import Job
from agentflow.caches.affinity.prompts import Prompt
from agentflow.caches.affinity.rates import Rates
from agentflow.caches.affinity.residency import Residency


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(random.Random(1))


def fail(breaker: Breaker, now: float, times: int = 1) -> None:
    for _ in range(times):
        breaker.failed(now, now, "it broke")


def state(breaker: Breaker) -> str:
    return breaker.state


def test_two_failures_in_a_row_are_borne_and_three_are_not(breaker: Breaker) -> None:
    fail(breaker, 1.0, 2)
    assert breaker.allows(1.0)

    fail(breaker, 1.0)

    assert (breaker.state, breaker.allows(1.0), breaker.why) == ("open", False, "it broke")


def test_a_success_between_failures_begins_the_count_again(breaker: Breaker) -> None:
    for _ in range(3):
        fail(breaker, 1.0, 2)
        breaker.succeeded(1.0)

    assert breaker.state == "closed"


def test_every_other_request_failing_is_too_many_in_the_long_run(breaker: Breaker) -> None:
    for number in range(FEWEST):
        assert breaker.state == "closed"
        if number % 2:
            fail(breaker, 1.0)
        else:
            breaker.succeeded(1.0)

    assert breaker.state == "open"


def test_what_is_not_there_is_left_alone_at_once(breaker: Breaker) -> None:
    breaker.failed(1.0, 1.0, "refused", gone=True)

    assert breaker.state == "open"


def test_one_failure_of_a_trial_opens_again_and_one_success_closes(breaker: Breaker) -> None:
    fail(breaker, 0.0, 3)
    breaker.probed(True, 2.0)
    assert (state(breaker), breaker.allows(2.0)) == ("half-open", True)
    fail(breaker, 2.0)
    assert state(breaker) == "open"
    breaker.probed(True, 5.0)

    breaker.succeeded(5.0)

    assert state(breaker) == "closed"
    fail(breaker, 6.0, 2)
    assert state(breaker) == "closed"


def test_the_time_it_is_left_alone_doubles_up_to_a_limit_and_is_spread(breaker: Breaker) -> None:
    fail(breaker, 0.0, 3)
    waits = []
    now = 0.0
    for _ in range(9):
        waits.append(breaker.until - now)
        now = breaker.until
        breaker.probed(False, now)

    full = [min(LONGEST_BACKOFF, 2.0**trip) for trip in range(9)]
    assert all(limit / 2 <= wait <= limit for wait, limit in zip(waits, full, strict=True))
    assert len({wait / limit for wait, limit in zip(waits, full, strict=True)}) == 9


def test_after_it_was_closed_the_first_backoff_is_short_again(breaker: Breaker) -> None:
    fail(breaker, 0.0, 3)
    for now in (1.0, 5.0, 20.0):
        breaker.probed(False, now)
    breaker.probed(True, 60.0)
    breaker.succeeded(60.0)

    fail(breaker, 61.0, 3)

    assert breaker.until <= 62.0


def test_what_was_sent_before_the_trouble_says_nothing_of_the_trial(breaker: Breaker) -> None:
    fail(breaker, 1.0, 3)
    breaker.probed(True, 4.0)

    breaker.failed(0.5, 5.0, "broken off")
    breaker.succeeded(0.9)

    assert breaker.state == "half-open"


def test_failures_of_what_is_known_to_be_down_do_not_prolong_it(breaker: Breaker) -> None:
    fail(breaker, 1.0, 3)
    until = breaker.until

    fail(breaker, 1.5, 5)

    assert breaker.until == until


def test_a_rest_is_no_failure_and_ends_by_itself(breaker: Breaker) -> None:
    breaker.rest(10.0, "busy")
    breaker.rest(5.0, "busy")  # an earlier end does not shorten it

    assert (breaker.state, breaker.allows(9.9), breaker.allows(10.0)) == ("closed", False, True)
    assert (breaker.due(9.0), breaker.due(10.0)) == (10.0, None)


def test_an_open_one_is_due_when_its_time_is_over_and_its_rest_too(breaker: Breaker) -> None:
    fail(breaker, 0.0, 3)
    assert breaker.due(0.0) == breaker.until

    breaker.rest(50.0, "busy")

    assert breaker.due(0.0) == 50.0


@given(st.lists(st.tuples(st.sampled_from("sfgpPr"), st.floats(0.0, 5.0)), max_size=60))
def test_whatever_happens_it_is_tried_again_in_bounded_time(steps: list[tuple[str, float]]) -> None:
    breaker = Breaker(random.Random(2))
    now = 0.0
    for kind, passed in steps:
        now += passed
        if kind == "s":
            breaker.succeeded(now)
        elif kind in "fg":
            breaker.failed(now - passed, now, "why", gone=kind == "g")
        elif kind in "pP":
            breaker.probed(kind == "P", now)
        else:
            breaker.rest(now + passed, "busy")
        due = breaker.due(now)
        assert breaker.allows(now) or (due is not None and due <= now + LONGEST_BACKOFF)


def replica_with(*uncached: float, begun: int = 0) -> Replica:
    replica = Replica("a", Residency(None), Rates())
    for number, tokens in enumerate(uncached):
        job = Job(number, "s", Prompt((), 0), 10.0, 0.0)
        first = 1.0 if number < begun else None
        replica.flights[number] = Flight(job, 0.0, 0, 0, tokens, tokens, first=first)
    return replica


def test_a_silence_may_last_some_times_what_all_unbegun_prompts_take() -> None:
    rates = Rates(prefill=1_000.0)

    assert longest_silence(replica_with(10.0), rates) == SHORTEST_SILENCE
    long = longest_silence(replica_with(3_000.0, 4_000.0), rates)
    assert long == pytest.approx(SILENCE * 7.0, rel=0.05)
    assert longest_silence(replica_with(3_000.0, 4_000.0, begun=2), rates) == SHORTEST_SILENCE


def test_each_silence_that_meant_nothing_doubles_what_is_long() -> None:
    doubt = Doubt()
    assert (doubt.long(5.0), doubt.too_long(5.0)) == (5.0, SLOW_SILENCE)

    for _ in range(2):
        doubt.begin(10.0)
        doubt.spoke()
        doubt.spoke()  # nobody doubts any more

    assert (doubt.long(5.0), doubt.too_long(5.0)) == (20.0, SLOWER * 20.0)


def test_a_silence_that_nobody_waited_for_in_the_end_says_nothing() -> None:
    doubt = Doubt()
    doubt.begin(10.0)

    doubt.end()
    doubt.spoke()

    assert doubt.long(5.0) == 5.0


def test_patience_has_an_end() -> None:
    doubt = Doubt()
    for _ in range(2_000):
        doubt.begin(10.0)
        doubt.spoke()

    assert doubt.long(5.0) == 5.0 * 2**MOST_DOUBLINGS
