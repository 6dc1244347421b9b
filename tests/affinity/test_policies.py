"""The two simplest policies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentflow.caches.affinity.dispatcher import Dispatcher
from agentflow.caches.affinity.jobs import Job, Send
from agentflow.caches.affinity.policies import LeastLoaded, Policy, Sticky
from agentflow.caches.affinity.prompts import Prompt

SESSIONS = [f"session {number}" for number in range(400)]


def dispatcher(policy: Policy, names: str) -> Dispatcher:
    made = Dispatcher(policy)
    for name in names:
        made.join(name, 0.0)
    return made


def job(number: int, session: str = "s") -> Job:
    return Job(number, session, Prompt((session,), 64), 10.0, 0.0)


def places(names: str) -> dict[str, str]:
    """Where each session goes by its name."""
    made = dispatcher(Sticky(), names)
    sends = [made.arrive(job(number, name), 0.0)[0] for number, name in enumerate(SESSIONS)]
    return {send.job.session: send.replica for send in sends}


def test_least_loaded_fills_evenly() -> None:
    made = dispatcher(LeastLoaded(), "abc")

    sends = [made.arrive(job(number, f"s{number}"), 0.0)[0].replica for number in range(9)]

    assert sends == list("abc") * 3


def test_sticky_is_the_same_after_a_restart_and_in_any_order_of_joining() -> None:
    assert places("abcd") == places("abcd") == places("dbca")


def test_sticky_uses_all_replicas_about_evenly() -> None:
    where = list(places("abcd").values())

    assert all(70 < where.count(name) < 130 for name in "abcd")


def test_when_a_replica_leaves_only_its_own_sessions_move() -> None:
    before, after = places("abcd"), places("abd")

    assert {name for name in SESSIONS if before[name] != after[name]} == {
        name for name in SESSIONS if before[name] == "c"
    }


def test_when_a_replica_joins_sessions_move_only_to_it() -> None:
    before, after = places("abc"), places("abcd")

    assert {after[name] for name in SESSIONS if before[name] != after[name]} == {"d"}


@pytest.mark.parametrize("policy", [LeastLoaded, Sticky])
def test_it_says_why_a_session_went_where_it_went(policy: type[Policy]) -> None:
    made = dispatcher(policy(), "ab")

    def ask(number: int) -> Send:
        (send,) = made.arrive(job(number), 0.0)
        made.finished(number, 0.0)
        return send

    first, second = ask(1), ask(2)
    made.usable(first.replica, False, 0.0)
    third = ask(3)

    assert [first.why, second.why, third.why] == ["new", "home", "lost"]
    assert first.replica == second.replica != third.replica


@pytest.mark.parametrize("policy", [LeastLoaded, Sticky])
def test_a_replica_that_failed_a_job_is_its_last_choice(policy: type[Policy]) -> None:
    made = dispatcher(policy(), "ab")
    (first,) = made.arrive(job(1), 0.0)
    made.failed(1, 0.0)

    (second,) = made.arrive(replace(first.job, avoid=frozenset({first.replica})), 0.0)
    made.failed(1, 0.0)
    made.leave(second.replica, 0.0)
    (third,) = made.arrive(replace(first.job, avoid=frozenset("ab")), 0.0)

    assert second.replica != first.replica == third.replica


def test_least_loaded_says_that_a_session_left_home_for_the_load() -> None:
    made = dispatcher(LeastLoaded(), "ab")
    made.arrive(job(1), 0.0)

    assert made.arrive(job(2), 0.0) == [Send(made.fleet.replicas["b"].flights[2].job, "b", "load")]


@pytest.mark.parametrize("policy", [LeastLoaded, Sticky])
def test_without_a_replica_jobs_wait_for_one(policy: type[Policy]) -> None:
    made = Dispatcher(policy())

    assert made.arrive(job(1), 0.0) == []
    assert [send.replica for send in made.join("late", 5.0)] == ["late"]
