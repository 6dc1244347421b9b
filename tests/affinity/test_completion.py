"""The default policy, decision by decision."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from agentflow.caches.affinity.completion import STAY, EarliestCompletion
from agentflow.caches.affinity.dispatcher import Dispatcher
from agentflow.caches.affinity.jobs import Job, Pause, Send
from agentflow.caches.affinity.prompts import Prompt
from agentflow.caches.affinity.rates import Rates

BLOCK = 64


class Desk:
    """A dispatcher with the default policy over replicas that compute 1,000 tokens a second."""

    def __init__(
        self, names: str = "ab", *, capacity: float | None = None, decode: float = 0.01
    ) -> None:
        self.dispatcher = Dispatcher(EarliestCompletion(), block=BLOCK)
        self.now, self.decode, self.capacity = 0.0, decode, capacity
        self._numbers = count(1)
        for name in names:
            self.join(name)

    def join(self, name: str, **options: int) -> list[Send]:
        rates = Rates(prefill=1000.0, decode=self.decode)
        capacity = None if self.capacity is None else self.capacity * BLOCK
        return self.dispatcher.join(name, self.now, capacity=capacity, rates=rates, **options)

    def job(
        self, session: str, blocks: int, *, output: float = 100.0, program: float = 0.0,
        optional: bool = False, avoid: str = "",
    ) -> Job:  # fmt: skip
        prompt = Prompt(tuple((session, index) for index in range(blocks)), BLOCK * blocks)
        return Job(
            next(self._numbers), session, prompt, output, self.now, program,
            returns=not optional, optional=optional, avoid=frozenset(avoid),
        )  # fmt: skip

    def ask(self, session: str, blocks: int, **options: Any) -> Send | None:
        """What becomes of a job at once."""
        job = self.job(session, blocks, **options)
        sends = self.dispatcher.arrive(job, self.now)
        return next((send for send in sends if send.job is job), None)

    def turn(self, session: str, blocks: int, **options: float) -> str:
        """A whole turn of a session at the speed that was promised; where it was."""
        send = self.ask(session, blocks, **options)
        assert send is not None
        flight = self.dispatcher.fleet.replicas[send.replica].flights[send.job.number]
        self.now += flight.uncached / 1000.0
        self.dispatcher.began(send.job.number, self.now)
        self.now += 100 * self.decode
        self.dispatcher.finished(send.job.number, self.now, made=100)
        return send.replica

    def meet(self, name: str) -> None:
        """Requests delay each other at a replica, one by one."""
        rates = self.dispatcher.fleet.replicas[name].rates
        for ahead in range(0, 5000, 500):
            rates.began(500, ahead, (500 + ahead) / 1000.0)

    def fill(self, name: str, seconds: float) -> None:
        """Somebody else's prompt keeps a replica busy."""
        for other in self.dispatcher.fleet.replicas.values():
            self.dispatcher.usable(other.name, other.name == name, self.now)
        assert self.ask(f"filler at {name}", round(seconds * 1000 / BLOCK), output=1.0) is not None
        for other in self.dispatcher.fleet.replicas.values():
            self.dispatcher.usable(other.name, True, self.now)


def test_a_session_stays_where_its_prefix_is() -> None:
    desk = Desk("abcd")

    homes = {desk.turn("s", blocks) for blocks in range(100, 200, 10)}

    assert len(homes) == 1


@pytest.mark.parametrize(("factor", "stays"), [(0.9, True), (1.1, False)])
def test_home_is_left_when_it_is_so_many_times_slower(factor: float, stays: bool) -> None:
    desk = Desk()
    home = desk.turn("s", 100)
    elsewhere = 100 * BLOCK / 1000.0 + 1.0  # its prompt again, and a reply of a second
    desk.fill(home, factor * STAY * elsewhere - 1.0)

    send = desk.ask("s", 100)

    assert send is not None
    assert (send.replica == home, send.why) == ((True, "home") if stays else (False, "load"))


def test_a_session_whose_home_is_down_goes_on_elsewhere() -> None:
    desk = Desk()
    home = desk.turn("s", 100)
    desk.dispatcher.usable(home, False, desk.now)

    send = desk.ask("s", 110)

    assert send is not None
    assert (send.replica == home, send.why) == (False, "lost")


def test_a_replica_that_failed_a_job_is_not_its_home() -> None:
    desk = Desk()
    home = desk.turn("s", 100)

    job = desk.job("s", 110, avoid=home)
    (send,) = desk.dispatcher.arrive(job, desk.now)

    assert send.replica != home


def test_what_runs_is_never_moved() -> None:
    desk = Desk("a")
    sent = [desk.ask(name, 100) for name in "xyz"]
    running = set(desk.dispatcher.fleet.replicas["a"].flights)

    desk.join("b")
    for _ in range(100):
        desk.now += 0.1
        desk.dispatcher.tick(desk.now)

    assert sent[0] is not None
    assert running <= set(desk.dispatcher.fleet.replicas["a"].flights)


def test_new_sessions_spread_over_equal_replicas() -> None:
    desk = Desk("abcd")

    homes = [desk.turn(f"s{number}", 50) for number in range(8)]

    assert sorted(homes) == sorted("abcd" * 2)


def test_a_faster_replica_is_given_a_new_session() -> None:
    desk = Desk("")
    desk.dispatcher.join("slow", 0.0, rates=Rates(prefill=500.0, decode=0.05))
    desk.dispatcher.join("fast", 0.0, rates=Rates(prefill=5000.0, decode=0.01))

    assert desk.turn("s", 100) == "fast"


def test_the_rest_of_the_prompts_waits_in_the_pool_not_at_the_server() -> None:
    desk = Desk("a")
    desk.meet("a")

    sent = [desk.ask(f"s{number}", 100) is not None for number in range(10)]

    assert sent == [True, True] + [False] * 8


def test_nothing_waits_for_prompts_that_may_not_be_in_each_others_way() -> None:
    desk = Desk("a")

    sent = [desk.ask(f"s{number}", 100) is not None for number in range(10)]

    assert sent == [True] * 10


def test_a_new_session_goes_to_an_idle_replica_however_many_wait_for_another() -> None:
    desk = Desk("a")
    for number in range(64):
        desk.turn(f"s{number}", 100)
    desk.join("b")
    for number in range(64):
        desk.ask(f"s{number}", 110)

    send = desk.ask("new", 100, program=1e6)

    assert send is not None
    assert send.replica == "b"


def test_sessions_beyond_the_capacity_wait_whole_and_the_older_program_goes_on() -> None:
    desk = Desk("a", capacity=250)
    desk.turn("old", 100, program=1.0)
    desk.dispatcher.away("old", Pause(0.1, 0.5), desk.now)

    young = desk.ask("young", 200, program=2.0)
    old = desk.ask("old", 110, program=1.0)

    assert young is None
    assert old is not None
    assert old.why == "home"


def test_a_session_that_is_away_for_too_long_makes_room() -> None:
    desk = Desk("a", capacity=250)
    desk.turn("old", 100, program=1.0)
    desk.dispatcher.away("old", Pause(600.0, 3600.0), desk.now)

    assert desk.ask("young", 200, program=2.0) is not None


def test_an_older_program_takes_the_place_of_a_younger_one_that_is_away() -> None:
    desk = Desk("a", capacity=250)
    desk.turn("young", 200, program=2.0)
    desk.dispatcher.away("young", Pause(0.1, 0.5), desk.now)

    assert desk.ask("old", 200, program=1.0) is not None
    assert "young" not in desk.dispatcher.fleet.replicas["a"].pins


def test_a_job_larger_than_any_replica_is_sent_alone() -> None:
    desk = Desk(capacity=100)
    desk.turn("small", 50)

    send = desk.ask("huge", 300)

    assert send is not None
    assert send.replica == "b"


def test_places_of_sessions_are_not_given_up_where_a_job_does_not_go() -> None:
    desk = Desk(capacity=600)
    homes = {desk.turn(name, 400, program=5.0) for name in "xy"}
    for name in "xy":
        desk.dispatcher.away(name, Pause(0.5, 2.0), desk.now)

    send = desk.ask("old", 400, program=0.0)

    assert send is not None
    assert homes == {"a", "b"}
    (other,) = homes - {send.replica}
    assert len(desk.dispatcher.fleet.replicas[other].pins.owners) == 1


def test_what_is_optional_goes_home_and_only_where_nothing_runs() -> None:
    desk = Desk()
    home = desk.turn("s", 100)

    idle = desk.ask("s", 105, optional=True, output=1.0)
    busy = desk.ask("s", 106, optional=True, output=1.0)

    assert idle is not None
    assert idle.replica == home
    assert busy is None


def test_what_is_optional_takes_nobodys_place() -> None:
    desk = Desk("a", capacity=250)
    desk.turn("young", 200, program=2.0)
    desk.dispatcher.away("young", Pause(0.1, 0.5), desk.now)

    assert desk.ask("old", 100, program=1.0, optional=True) is None
    assert "young" in desk.dispatcher.fleet.replicas["a"].pins


def test_of_slots_there_are_never_more_in_use_than_the_replica_has() -> None:
    desk = Desk("")
    desk.join("a", slots=1)

    assert desk.ask("x", 1) is not None
    assert desk.ask("y", 1) is None
    assert [send.job.session for send in desk.dispatcher.finished(1, 1.0)] == ["y"]
