"""A gate: who has a place, who makes way, and that no more work runs than it allows."""

from __future__ import annotations

import asyncio
import random

import pytest

from agentflow.executor.state.gates import Gate


class Guest:
    """Work that notes that it was asked to leave."""

    def __init__(self, worth: float = 0.0) -> None:
        self.worth = worth
        self.asked = False

    def leave(self) -> None:
        self.asked = True


def let_in(gate: Gate) -> asyncio.Task[None]:
    """A call that starts, and makes its way to where it begins."""
    assert gate.room > 0
    gate.free -= 1
    gate.make_room()
    return asyncio.create_task(gate.emptied())


async def turns() -> None:
    """Let everybody who can go on."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_call_begins_when_its_guest_has_ended() -> None:
    gate, guest = Gate(1), Guest()
    assert gate.admit_guest(guest)
    call = let_in(gate)
    await turns()
    assert (guest.asked, call.done()) == (True, False)
    gate.ended(guest)
    await call


async def test_a_call_begins_in_the_place_of_another_that_ends_sooner() -> None:
    gate, guest = Gate(2), Guest()
    gate.free -= 1  # a call that runs
    assert gate.admit_guest(guest)
    call = let_in(gate)
    await turns()
    assert not call.done()
    gate.give_back()
    await call
    assert gate.leaving == [guest]


async def test_only_as_many_calls_wait_as_guests_are_leaving() -> None:
    gate, guest = Gate(3), Guest()
    assert gate.admit_guest(guest)
    calls = [let_in(gate) for _ in range(3)]
    await turns()
    assert sorted(call.done() for call in calls) == [False, True, True]
    gate.ended(guest)
    await asyncio.gather(*calls)


async def test_a_call_that_is_cancelled_while_it_waits_holds_up_nobody() -> None:
    gate, guest = Gate(1), Guest()
    assert gate.admit_guest(guest)
    gone = let_in(gate)
    await turns()
    gone.cancel()
    await turns()
    gate.give_back()
    call = let_in(gate)
    gate.ended(guest)
    await call
    assert (gate.free, gate.leaving) == (0, [])


def test_no_guest_has_a_place_that_another_has_not_left() -> None:
    gate, guest = Gate(1), Guest()
    assert gate.admit_guest(guest)
    gate.free -= 1
    gate.make_room()
    gate.give_back()
    assert not gate.admit_guest(Guest())
    gate.ended(guest)
    assert gate.admit_guest(Guest())


def test_a_gate_may_have_no_guests() -> None:
    assert not Gate(1, hosts=False).admit_guest(Guest())


@pytest.mark.parametrize("seed", range(20))
async def test_never_more_runs_than_the_gate_allows(seed: int) -> None:
    chance = random.Random(seed)
    gate = Gate(chance.randrange(1, 5))
    guests: list[Guest] = []
    calls: list[asyncio.Task[None]] = []
    for _ in range(200):
        match chance.randrange(4):
            case 0 if gate.admit_guest(guest := Guest(chance.random())):
                guests.append(guest)
            case 1 if gate.room > 0:
                calls.append(let_in(gate))
            case 2 if guests:
                gate.ended(guests.pop(chance.randrange(len(guests))))
            case 3 if ended := [call for call in calls if call.done()]:
                calls.remove(ended[0])
                gate.give_back()
        await turns()
        running = sum(call.done() for call in calls)
        assert running + len(guests) <= gate.limit
        waits = len(calls) > running
        assert not waits or running + len(guests) == gate.limit
    for guest in guests:
        gate.ended(guest)
    await asyncio.gather(*calls)
    assert gate.free + len(calls) == gate.limit
