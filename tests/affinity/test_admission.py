"""How long a session's place is kept, and who has room."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.caches.affinity.admission import fits, make_room, room
from agentflow.caches.affinity.dispatcher import Dispatcher
from agentflow.caches.affinity.fleet import Fleet, Flight, Replica, Session
from agentflow.caches.affinity.jobs import Job, Pause
from agentflow.caches.affinity.policies import LeastLoaded
from agentflow.caches.affinity.prompts import Prompt
from agentflow.caches.affinity.rates import Rates
from agentflow.caches.affinity.residency import Residency

BLOCK = 64
NOW = 0.0
Z95 = 1.6448536269514722


def integrated(pause: Pause, elapsed: float) -> float:
    """The mean rest of a log-normal pause, by summing up how often it lasts longer."""
    mu, sigma = math.log(pause.p50), math.log(pause.p95 / pause.p50) / Z95

    def lasts(seconds: float) -> float:
        return 0.5 * math.erfc((math.log(seconds) - mu) / sigma / math.sqrt(2.0))

    ratio, total, at = 1.0005, 0.0, max(elapsed, pause.p50 * 1e-6)
    while lasts(at) > 1e-15:
        total += lasts(at * math.sqrt(ratio)) * at * (ratio - 1.0)
        at *= ratio
    return total / (lasts(elapsed) if elapsed > 0 else 1.0)


@pytest.mark.parametrize("pause", [Pause(0.18, 2.4), Pause(0.85, 4.5), Pause(10.0, 20.0)])
@pytest.mark.parametrize("part", [0.0, 0.1, 1.0, 3.0])
def test_the_rest_of_a_pause_is_the_mean_of_what_can_follow(pause: Pause, part: float) -> None:
    elapsed = part * pause.p50

    assert pause.remaining(elapsed) == pytest.approx(integrated(pause, elapsed), rel=1e-3)


def test_a_steady_pause_passes() -> None:
    pause = Pause(10.0, 10.0)

    assert pause.remaining(4.0) == pytest.approx(6.0, rel=0.01)


def test_the_longer_a_wide_pause_lasts_the_longer_it_will() -> None:
    pause = Pause(0.2, 20.0)

    rests = [pause.remaining(elapsed) for elapsed in (2.0, 20.0, 200.0, 2000.0)]

    assert rests == sorted(rests)


extremes = st.one_of(
    st.floats(min_value=0.0), st.just(0.0), st.just(math.inf), st.floats(1e-3, 1e3)
)


@given(extremes, extremes, st.floats(-1.0, 1e12))
def test_the_rest_of_any_pause_is_a_number_and_not_negative(
    p50: float, p95: float, elapsed: float
) -> None:
    assert Pause(p50, p95).remaining(elapsed) >= 0.0


def talk(name: str, blocks: int) -> Prompt:
    return Prompt(tuple((name, index) for index in range(blocks)), BLOCK * blocks)


def job(session: str, blocks: int, program: float = 0.0, output: float = 0.0) -> Job:
    return Job(1, session, talk(session, blocks), output, 0.0, program)


def living(
    *sessions: tuple[str, int, float], capacity: float | None = 100
) -> tuple[Fleet, Replica]:
    """A replica of so many blocks where sessions (name, blocks, program) live idly."""
    fleet, replica = Fleet(BLOCK), Replica("a", Residency(capacity), Rates(prefill=1000.0))
    fleet.growth = 0.0
    fleet.replicas["a"] = replica
    for name, blocks, program in sessions:
        fleet.sessions[name] = Session(name, program, home="a", tokens=BLOCK * blocks)
        replica.pins.hold(name, talk(name, blocks), 0.0)
    return fleet, replica


def kept(blocks: int, pause: Pause, others: int = 0) -> float:
    """Until when a place is kept for a session that is away from second 50 on."""
    made = Dispatcher(LeastLoaded(), block=BLOCK)
    made.join("a", 0.0, rates=Rates(prefill=1000.0))
    for number in range(others):
        made.arrive(replace(job(f"other {number}", 1), number=2 + number), 0.0)
    made.arrive(replace(job("s", blocks), returns=True), 0.0)
    made.finished(1, 50.0)
    made.away("s", pause, 50.0)
    return made.fleet.sessions["s"].keep_until


def test_a_place_is_kept_while_the_pause_is_shorter_than_computing_again() -> None:
    assert kept(150, Pause(0.5, 2.0)) > 52.0  # ten seconds to compute
    assert kept(2, Pause(0.5, 2.0)) == 50.0
    assert kept(150, Pause(100.0, 200.0)) == 50.0


def test_a_place_is_kept_longer_where_more_would_wait_for_it() -> None:
    alone, crowded = kept(16, Pause(0.5, 2.0)), kept(16, Pause(0.5, 2.0), others=20)

    assert alone < crowded


def test_a_pause_that_lasts_far_beyond_what_was_expected_costs_the_place() -> None:
    pause = Pause(0.5, 2.0)

    assert kept(150, pause) < 50.0 + 100 * pause.p95


def test_room_is_what_is_not_pinned_and_not_being_written() -> None:
    _, replica = living(("x", 30, 0.0), ("y", 20, 0.0))
    replica.pins.hold("y", talk("y", 20), 100.0)

    assert room(replica, BLOCK) == 50 * BLOCK - 100.0


def test_where_the_capacity_is_not_known_everything_fits() -> None:
    fleet, replica = living(("x", 10_000, 0.0), capacity=None)

    assert fits(job("y", 10_000), replica, fleet, NOW)


@pytest.mark.parametrize(("blocks", "expected"), [(40, True), (41, False)])
def test_a_job_fits_beside_what_lives_there_up_to_the_last_block(
    blocks: int, expected: bool
) -> None:
    fleet, replica = living(("x", 60, 0.0))

    assert fits(job("y", blocks), replica, fleet, NOW) is expected


def test_the_reply_needs_room_too() -> None:
    fleet, replica = living(("x", 60, 0.0))

    assert fits(job("y", 39, output=64.0), replica, fleet, NOW)
    assert not fits(job("y", 40, output=1.0), replica, fleet, NOW)


def test_blocks_that_are_shared_need_no_second_room() -> None:
    fleet, replica = living(("x", 60, 0.0))
    grown = Job(1, "y", talk("x", 100), 0.0, 0.0)

    assert fits(grown, replica, fleet, NOW)


def test_who_joins_leaves_room_for_those_to_grow_who_live_there() -> None:
    fleet, replica = living(("x", 60, 0.0))
    fleet.growth = 6.0 * BLOCK

    assert not fits(job("y", 35), replica, fleet, NOW)
    assert fits(job("x", 95), replica, fleet, NOW)  # it is one of them


@pytest.mark.parametrize(("now", "joins"), [(0.0, False), (30.0, False), (50.0, True)])
def test_who_has_half_of_its_time_behind_it_leaves_no_such_room(now: float, joins: bool) -> None:
    fleet, replica = living(("x", 60, 0.0))
    fleet.growth = 6.0 * BLOCK
    pressed = replace(job("y", 35), deadline=100.0)

    assert fits(pressed, replica, fleet, now) is joins


def test_alone_even_what_is_larger_than_the_replica_fits() -> None:
    fleet, replica = living()

    assert fits(job("y", 1000), replica, fleet, NOW)


def mine(fleet: Fleet, blocks: int, program: float) -> Job:
    """A job of a session that lives nowhere yet."""
    fleet.sessions["mine"] = Session("mine", program)
    return job("mine", blocks, program)


def test_an_older_program_takes_the_places_of_the_youngest_and_no_more_than_it_needs() -> None:
    fleet, replica = living(("young", 30, 9.0), ("middle", 30, 5.0), ("old", 30, 1.0))

    assert make_room(mine(fleet, 35, program=2.0), replica, fleet, NOW)
    assert set(replica.pins.owners) == {"middle", "old"}


def test_no_place_is_given_up_in_vain() -> None:
    fleet, replica = living(("young", 30, 9.0), ("old", 60, 1.0))
    before = room(replica, BLOCK)

    assert not make_room(mine(fleet, 50, program=2.0), replica, fleet, NOW)
    assert set(replica.pins.owners) == {"young", "old"}
    assert room(replica, BLOCK) == before


def test_nobody_is_put_out_whose_request_runs() -> None:
    fleet, replica = living(("mine", 30, 1.0), ("young", 30, 9.0), ("middle", 30, 5.0))
    replica.flights[7] = Flight(job("young", 30), 0.0, 0, 0, 0.0, 0.0)

    assert make_room(job("mine", 60), replica, fleet, NOW)
    assert set(replica.pins.owners) == {"mine", "young"}


def test_a_younger_program_takes_nobodys_place() -> None:
    fleet, replica = living(("old", 90, 1.0))

    assert not make_room(mine(fleet, 50, program=2.0), replica, fleet, NOW)
