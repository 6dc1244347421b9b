"""The book-keeping of a dispatcher, event by event."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from agentflow.caches.affinity import dispatcher as module
from agentflow.caches.affinity.completion import EarliestCompletion
from agentflow.caches.affinity.dispatcher import Dispatcher
from agentflow.caches.affinity.fleet import Replica
from agentflow.caches.affinity.jobs import Job, Pause, Send
from agentflow.caches.affinity.policies import LeastLoaded, Sticky
from agentflow.caches.affinity.prompts import Prompt

BLOCK = 64
_numbers = count(1)


def job(session: str = "s", blocks: int = 10, **options: Any) -> Job:
    prompt = Prompt(tuple((session, index) for index in range(blocks)), BLOCK * blocks)
    return Job(next(_numbers), session, prompt, 50.0, 0.0, **options)


def dispatcher(names: str = "a", *, capacity: float | None = None) -> Dispatcher:
    made = Dispatcher(LeastLoaded(), block=BLOCK)
    for name in names:
        made.join(name, 0.0, capacity=capacity)
    return made


def send(made: Dispatcher, wanted: Job, now: float = 0.0) -> Replica:
    """Where a job goes that is sent at once."""
    (sent,) = made.arrive(wanted, now)
    return made.fleet.replicas[sent.replica]


def test_a_replica_that_leaves_gives_back_what_it_had() -> None:
    made = dispatcher("ab")
    first, second, third = job("x"), job("y"), job("z")
    for one in (first, second, third):
        send(made, one)

    assert made.leave("a", 1.0) == [first, third]
    assert [made.arrive(one, 1.0)[0].replica for one in (first, third)] == ["b", "b"]


def test_a_replica_that_joins_again_has_its_sessions_but_not_what_it_held() -> None:
    made = dispatcher()
    send(made, one := job(returns=True))
    made.finished(one.number, 1.0, made=10)
    made.leave("a", 2.0)
    made.join("a", 3.0)

    replica = send(made, job())

    assert replica.homes == 1
    assert next(iter(replica.flights.values())).uncached == 10 * BLOCK
    made.ended("s", 4.0)


def test_what_a_session_said_before_is_cached_with_its_reply() -> None:
    made = dispatcher()
    send(made, one := job(blocks=10))
    made.finished(one.number, 1.0, made=100)

    replica = send(made, job(blocks=20))

    assert next(iter(replica.flights.values())).uncached == 20 * BLOCK - (10 * BLOCK + 100)


def test_requests_of_one_session_at_two_replicas_hold_places_at_both_until_they_end() -> None:
    made = dispatcher("ab", capacity=100_000)
    jobs = [job(returns=True) for _ in range(3)]
    at = [send(made, one) for one in jobs]
    assert [replica.name for replica in at] == ["a", "b", "a"]
    held = [list(replica.pins.owners) for replica in made.fleet.replicas.values()]
    assert held == [["s"], ["s"]]

    for index in (0, 2, 1):
        made.finished(jobs[index].number, 1.0, made=5)

    held = [list(replica.pins.owners) for replica in made.fleet.replicas.values()]
    assert sum(map(len, held)) <= 1
    made.ended("s", 2.0)
    assert not made.fleet.sessions


@pytest.mark.parametrize("end", ["finished", "failed", "withdrawn", "leave"])
def test_a_session_that_ended_while_it_was_answered_is_forgotten_after(end: str) -> None:
    made = dispatcher()
    replica = send(made, one := job(returns=True))

    made.ended("s", 0.5)
    assert "s" in made.fleet.sessions
    if end == "leave":
        made.leave("a", 1.0)
    else:
        getattr(made, end)(one.number, 1.0)

    assert not made.fleet.sessions
    assert end == "leave" or (replica.homes, len(replica.pins.owners)) == (0, 0)


def test_a_session_that_ended_while_it_waited_is_forgotten_when_it_is_withdrawn() -> None:
    made = dispatcher("")
    made.arrive(one := job(), 0.0)
    made.ended("s", 1.0)

    made.withdrawn(one.number, 2.0)

    assert not made.fleet.sessions
    assert made.wake_at is None


def test_what_is_not_known_may_be_away_or_end() -> None:
    made = dispatcher()

    assert made.away("nobody", Pause(1.0, 2.0), 0.0) == []
    assert made.ended("nobody", 0.0) == []
    assert not made.fleet.sessions


def test_what_is_optional_leaves_its_session_as_it_was() -> None:
    made = dispatcher(capacity=100_000)
    replica = send(made, one := job(blocks=500, returns=True))
    made.began(one.number, 16.0)
    made.finished(one.number, 17.0, made=50)
    made.away("s", Pause(1.0, 2.0), 17.0)
    session = made.fleet.sessions["s"]
    before = (session.output, session.tokens, session.pause, session.since, session.home)
    held = replica.pins.held("s")

    send(made, warm := job(blocks=505, optional=True), 17.1)
    made.finished(warm.number, 17.2, made=1)

    after = (session.output, session.tokens, session.pause, session.since, session.home)
    assert after == before
    assert list(replica.pins.owners) == ["s"]
    assert replica.pins.held("s") == held


def test_a_session_that_was_withdrawn_while_it_waited_does_not_keep_its_place_for_ever() -> None:
    made = dispatcher(capacity=100_000)
    replica = send(made, one := job(blocks=500, returns=True))
    made.began(one.number, 16.0)
    made.finished(one.number, 17.0, made=50)
    assert "s" in replica.pins
    made.usable("a", False, 17.0)
    made.arrive(again := job(), 18.0)
    made.tick(5000.0)
    made.withdrawn(again.number, 5001.0)

    made.away("nobody", None, 9000.0)
    made.usable("a", True, 9000.0)
    send(made, other := job("other"), 9000.0)
    made.finished(other.number, 9001.0)
    made.away("other", None, 9002.0)

    assert "s" not in replica.pins


@pytest.mark.parametrize("cached", [10**9, -5, 641])
def test_more_cached_tokens_than_there_are_count_as_all(cached: int) -> None:
    made = dispatcher()
    send(made, one := job(tenant="t"))

    made.finished(one.number, 1.0, prompt=640, cached=cached, made=5)

    assert made.fleet.shares.served["t"] >= 10.0
    assert made.fleet.sessions["s"].service >= 5.0


def test_missing_counts_are_not_zero() -> None:
    made = dispatcher(capacity=100_000)
    replica = send(made, one := job())
    made.finished(one.number, 1.0, made=5)
    send(made, two := job())
    made.finished(two.number, 2.0, made=5)  # nothing said of the cache

    assert replica.residency.depth(two.prompt) == 10
    send(made, three := job())
    made.finished(three.number, 3.0, prompt=10 * BLOCK, cached=0, made=5)
    assert made.fleet.sessions["s"].service > 10 * BLOCK


def test_a_restart_is_seen_by_what_is_cached_no_more() -> None:
    made = dispatcher(capacity=100 * BLOCK)
    for name in ("x", "y"):
        send(made, one := job(name))
        made.finished(one.number, 1.0, prompt=10 * BLOCK, cached=0, made=5)

    replica = send(made, one := job("y"))
    made.finished(one.number, 2.0, prompt=10 * BLOCK, cached=0, made=5)

    assert replica.residency.depth(job("x").prompt) == 0
    assert replica.residency.depth(one.prompt) == 10


def test_the_size_of_blocks_may_be_learnt_late() -> None:
    made = dispatcher(capacity=100 * BLOCK)

    made.resize(BLOCK / 2)

    assert made.fleet.capacity == pytest.approx(100 * BLOCK)
    assert made.fleet.replicas["a"].residency.capacity == 200


def test_time_alone_sends_what_waits_for_it() -> None:
    made = Dispatcher(EarliestCompletion(), block=BLOCK)
    made.join("a", 0.0, capacity=600 * BLOCK)
    (sent,) = made.arrive(one := job("old", 500, program=0.0, returns=True), 0.0)
    made.began(one.number, 16.0)
    made.finished(one.number, 17.0, made=50)
    made.away(sent.job.session, Pause(1.0, 2.0), 17.0)
    assert made.arrive(job("young", 500, program=1.0), 17.1) == []

    sends: list[Send] = []
    while not sends:
        assert made.wake_at is not None
        assert made.wake_at < 17.0 + 300.0
        sends = made.tick(made.wake_at)

    assert [sent.job.session for sent in sends] == ["young"]
    assert made.wake_at is None


def test_more_sessions_may_be_busy_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORGET", 5)
    made = dispatcher("")

    for number in range(8):
        made.arrive(job(f"s{number}"), 0.0)

    assert len(made.fleet.sessions) == 8
    made.join("a", 1.0)
    for number in list(made.fleet.replicas["a"].flights):
        made.finished(number, 2.0)
    send(made, job("one more"))
    assert len(made.fleet.sessions) == 5


def test_a_session_of_many_turns_leaves_no_trail() -> None:
    made, now = dispatcher(capacity=1e6), 0.0
    for turn in range(1000):
        send(made, one := job(blocks=500 + turn // 10, returns=True), now)
        made.began(one.number, now + 0.3)
        made.finished(one.number, now + 1.0, made=50)
        made.away("s", Pause(1.0, 20.0), now + 1.0)
        now += 1.1

    assert len(made.fleet.expiring) < 500


@pytest.mark.parametrize("policy", [EarliestCompletion, LeastLoaded, Sticky])
def test_however_many_sessions_there_were_their_traces_are_bounded(
    policy: type[LeastLoaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FORGET", 300)
    made = Dispatcher(policy(), block=BLOCK)
    for name in "ab":
        made.join(name, 0.0, capacity=1e5)
    for number in range(5000):
        now, session = 0.05 * number, f"s{number}"
        (sent,) = made.arrive(job(session, 2, returns=True), now)
        made.began(sent.job.number, now + 0.01)
        made.finished(sent.job.number, now + 0.02, prompt=128, cached=0, made=20)
        made.away(session, Pause(0.5, 2.0), now + 0.02)
        if number % 2:
            made.ended(session, now + 0.03)

    fleet = made.fleet
    assert 290 <= len(fleet.sessions) <= 300
    assert len(fleet.expiring) < 1000
    for replica in fleet.replicas.values():
        assert len(replica.residency) <= 1e5 / BLOCK
        assert replica.homes <= 300
        assert len(replica.pins.owners) <= 300
