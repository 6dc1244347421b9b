"""What holds of a dispatcher whatever happens to its replicas, jobs and sessions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.caches.affinity.completion import EarliestCompletion
from agentflow.caches.affinity.dispatcher import Dispatcher
from agentflow.caches.affinity.jobs import Job, Pause, Send
from agentflow.caches.affinity.policies import LeastLoaded, Policy, Sticky
from agentflow.caches.affinity.prompts import Prompt

POLICIES: list[Callable[[], Policy]] = [EarliestCompletion, LeastLoaded, Sticky]
NAMES = ("a", "b", "c")
CAPACITIES = (None, 64 * 20, 64 * 60, 64 * 1000)

Event = tuple[str, int, int]

events = st.lists(
    st.tuples(
        st.sampled_from(
            ["arrive"] * 5
            + ["prewarm", "began", "began", "finish", "finish", "finish", "fail", "give up"]
            + ["time", "away", "end", "leave", "join", "health", "trial", "observe", "resize"]
        ),
        st.integers(0, 30),
        st.integers(0, 30),
    ),
    max_size=60,
)


class Story:
    """Events happen to a dispatcher; what it sends is written down and looked after."""

    def __init__(self, policy: Policy) -> None:
        self.dispatcher = Dispatcher(policy)
        self.fleet = self.dispatcher.fleet
        self.now = 0.0
        self.numbers = count(1)
        self.waiting: dict[int, Job] = {}
        self.sent: dict[int, Send] = {}
        self.placed: list[tuple[int, str, str]] = []
        self.heed(self.dispatcher.join("a", 0.0, capacity=64 * 60, slots=2))

    def happen(self, event: Event) -> None:
        kind, one, two = event
        self.now += 0.01
        getattr(self, kind.replace(" ", "_"))(one, two)
        self.check()

    def heed(self, sends: list[Send]) -> None:
        for send in sends:
            assert self.waiting.pop(send.job.number) is send.job, "sent twice, or never asked for"
            assert self.fleet.replicas[send.replica].usable
            self.sent[send.job.number] = send
            self.placed.append((send.job.number, send.replica, send.why))

    def take(self, job: Job) -> None:
        self.waiting[job.number] = job
        self.heed(self.dispatcher.arrive(job, self.now))

    # What happens

    def arrive(self, one: int, two: int, *, optional: bool = False) -> None:
        name, length = f"session {one % 7}", 1 + 2 * two
        shared = tuple(("shared", index) for index in range(min(length, 3)))
        own = tuple((name, index) for index in range(3, length))
        self.take(
            Job(
                next(self.numbers), name, Prompt(shared + own, 64 * length + 10),
                output=float(one), arrived=self.now, program=float(one % 3),
                tenant=f"tenant {one % 2}", deadline=self.now + two if two % 3 == 0 else None,
                remaining=float(one % 5), returns=two % 2 == 0, optional=optional,
            )
        )  # fmt: skip

    def prewarm(self, one: int, two: int) -> None:
        self.arrive(one, two, optional=True)

    def began(self, one: int, _two: int) -> None:
        if self.sent:
            self.heed(self.dispatcher.began(self.flight(one), self.now))

    def finish(self, one: int, two: int) -> None:
        if not self.sent:
            return
        number = self.flight(one)
        job = self.sent.pop(number).job
        prompt = (None, job.prompt.tokens, 0, 7)[two % 4]
        cached = (None, 0, job.prompt.tokens, 10**9, job.prompt.tokens // 2)[one % 5]
        self.heed(
            self.dispatcher.finished(number, self.now, prompt=prompt, cached=cached, made=two)
        )

    def fail(self, one: int, two: int) -> None:
        if not self.sent:
            return
        number = self.flight(one)
        send = self.sent.pop(number)
        self.heed(self.dispatcher.failed(number, self.now))
        if two % 3:
            self.take(replace(send.job, avoid=send.job.avoid | {send.replica}))

    def give_up(self, one: int, _two: int) -> None:
        known = [*self.waiting, *self.sent]
        if known:
            number = known[one % len(known)]
            self.waiting.pop(number, None)
            self.sent.pop(number, None)
            self.heed(self.dispatcher.withdrawn(number, self.now))

    def time(self, one: int, _two: int) -> None:
        self.now += 2.0 ** (one % 12)
        self.heed(self.dispatcher.tick(self.now))

    def away(self, one: int, two: int) -> None:
        pause = (None, Pause(0.1, 0.5), Pause(1.0, 30.0), Pause(0.0, 0.0))[two % 4]
        self.heed(self.dispatcher.away(f"session {one % 9}", pause, self.now))

    def end(self, one: int, _two: int) -> None:
        self.heed(self.dispatcher.ended(f"session {one % 9}", self.now))

    def leave(self, one: int, _two: int) -> None:
        if self.fleet.replicas:
            jobs = self.dispatcher.leave(self.replica(one), self.now)
            for job in jobs:
                del self.sent[job.number]
                self.take(job)

    def join(self, one: int, two: int) -> None:
        if NAMES[one % 3] not in self.fleet.replicas:
            slots = (None, 1, 3)[two % 3]
            capacity = CAPACITIES[two % 4]
            self.heed(
                self.dispatcher.join(NAMES[one % 3], self.now, slots=slots, capacity=capacity)
            )

    def health(self, one: int, two: int) -> None:
        if self.fleet.replicas:
            self.heed(self.dispatcher.usable(self.replica(one), two % 2 == 0, self.now))

    def trial(self, one: int, _two: int) -> None:
        if self.fleet.replicas:
            self.heed(self.dispatcher.usable(self.replica(one), True, self.now, trial=True))

    def observe(self, one: int, two: int) -> None:
        if self.fleet.replicas:
            capacity, slots = CAPACITIES[two % 4], (None, 1, 4)[one % 3]
            self.heed(
                self.dispatcher.observed(
                    self.replica(one), self.now, capacity=capacity, slots=slots
                )
            )

    def resize(self, one: int, _two: int) -> None:
        self.dispatcher.resize((40.0, 64.0, 90.0)[one % 3])

    def flight(self, which: int) -> int:
        return [*self.sent][which % len(self.sent)]

    def replica(self, which: int) -> str:
        return [*self.fleet.replicas][which % len(self.fleet.replicas)]

    # What holds

    def check(self) -> None:
        assert dict(self.dispatcher.waiting) == self.waiting
        flights: list[int] = []
        for name, replica in self.fleet.replicas.items():
            flights += replica.flights
            assert all(self.sent[number].replica == name for number in replica.flights)
            assert replica.beginning == sum(f.first is None for f in replica.flights.values())
            assert replica.homes == sum(s.home == name for s in self.fleet.sessions.values())
            assert replica.slots is None or replica.slots > 0
            for flight in replica.flights.values():
                owner = flight.job.number if flight.job.optional else flight.job.session
                assert owner in replica.pins
        assert sorted(flights) == sorted(self.sent)
        jobs = [*self.waiting.values(), *(send.job for send in self.sent.values())]
        for session in self.fleet.sessions.values():
            assert session.busy == sum(job.session == session.id for job in jobs)

    def finish_everything(self) -> None:
        """Replicas answer from now on; whoever waits has to come to an answer."""
        if not self.fleet.replicas:
            self.join(0, 0)
        for name in list(self.fleet.replicas):
            self.heed(self.dispatcher.usable(name, True, self.now))
        looks = 0
        while self.waiting or self.sent:
            looks += 1
            assert looks < 500, f"never sent: {self.waiting}"
            for number in list(self.sent):
                self.heed(self.dispatcher.began(number, self.now))
                self.now += 0.5
                del self.sent[number]
                self.heed(self.dispatcher.finished(number, self.now, made=3))
            if self.waiting:
                wake = self.dispatcher.wake_at
                assert wake is not None or self.sent, "nothing will ever look again"
                self.now = max(self.now + 10.0, wake or self.now)
                self.heed(self.dispatcher.tick(self.now))
            self.check()


@pytest.mark.parametrize("policy", POLICIES)
@given(happening=events)
def test_every_job_is_sent_once_and_in_the_end_nothing_waits(
    policy: Callable[[], Policy], happening: list[Event]
) -> None:
    story = Story(policy())
    for event in happening:
        story.happen(event)

    story.finish_everything()

    assert not story.dispatcher.waiting
    assert story.dispatcher.wake_at is None


@pytest.mark.parametrize("policy", POLICIES)
@given(happening=events)
def test_nothing_is_left_of_sessions_that_ended(
    policy: Callable[[], Policy], happening: list[Event]
) -> None:
    story = Story(policy())
    for event in happening:
        story.happen(event)
    story.finish_everything()

    for session in list(story.fleet.sessions):
        story.dispatcher.ended(session, story.now)

    assert not story.fleet.sessions
    for replica in story.fleet.replicas.values():
        assert not replica.pins.owners
        assert len(replica.pins) == 0
        assert replica.pins.growth == pytest.approx(0.0, abs=1e-6)
        assert (replica.homes, replica.beginning, replica.running) == (0, 0, 0)


@pytest.mark.parametrize("policy", POLICIES)
@given(happening=events)
def test_no_place_is_kept_for_ever(policy: Callable[[], Policy], happening: list[Event]) -> None:
    story = Story(policy())
    for event in happening:
        story.happen(event)
    story.finish_everything()

    story.now += 1e7
    story.arrive(1, 1)
    story.heed(story.dispatcher.away("nobody", None, story.now))
    story.finish_everything()

    held = [r.pins.owners for r in story.fleet.replicas.values()]
    assert sum(len(owners) for owners in held) <= 1
    assert len(story.fleet.expiring) <= 1


@pytest.mark.parametrize("policy", POLICIES)
@given(happening=events)
def test_the_same_events_have_the_same_sends(
    policy: Callable[[], Policy], happening: list[Event]
) -> None:
    first, second = Story(policy()), Story(policy())
    for event in happening:
        first.happen(event)
        second.happen(event)

    assert first.placed == second.placed


@pytest.mark.parametrize("policy", POLICIES)
@given(happening=events)
def test_routing_never_sends_where_there_is_no_slot_left_for_a_trial(
    policy: Callable[[], Policy], happening: list[Event]
) -> None:
    story = Story(policy())
    story.dispatcher.usable("a", True, 0.0, trial=True)
    for kind, one, two in happening:
        if kind in ("arrive", "prewarm", "began", "finish", "fail", "time", "away", "end"):
            story.happen((kind, one, two))
            assert len(story.fleet.replicas["a"].flights) <= 1
