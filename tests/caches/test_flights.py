"""A flight runs until the last who waits for it has left, and nobody's leaving hurts another."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

import pytest

from agentflow.caches.flights import Flights, Left
from agentflow.testing import Gate, Timeline

pytestmark = pytest.mark.virtual


def spawn(work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    return asyncio.create_task(work, name=name)


async def settle() -> None:
    """Let everything happen that can happen now."""
    await asyncio.sleep(0.001)


class Call:
    """Work that takes ten seconds, and one more to clean up after."""

    def __init__(self, outcome: Any = "value") -> None:
        self.line = Timeline()
        self.outcome = outcome

    async def __call__(self) -> Any:
        try:
            with self.line.span("work"):
                await asyncio.sleep(10)
        except asyncio.CancelledError:
            with self.line.span("cleaning"):
                await asyncio.sleep(1)
            raise
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    @property
    def ends(self) -> list[str]:
        return [what for _, what in self.line.notes if what.endswith("ended")]


async def test_all_who_wait_have_the_value_at_the_same_time() -> None:
    flights, call = Flights(spawn), Call()
    flight = flights.begin("key", call(), "call")
    assert flights.get("key") is flight
    async with asyncio.TaskGroup() as group:
        waiters = [group.create_task(flight.wait()) for _ in range(3)]
    assert [waiter.result() for waiter in waiters] == ["value"] * 3
    assert call.line.at("work ended") == asyncio.get_running_loop().time()
    assert len(flights) == flight.waiters == 0


async def test_who_joins_a_flight_that_has_just_landed_has_its_value() -> None:
    flights = Flights(spawn)
    flight = flights.begin("key", Call()(), "call")
    assert await flight.wait() == "value"
    assert await flight.wait() == "value"
    assert flights.get("key") is None


@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_one_who_leaves_does_not_hurt_the_others(leaver: int) -> None:
    flights, call = Flights(spawn), Call()
    flight = flights.begin("key", call(), "call")
    waiters = [asyncio.create_task(flight.wait()) for _ in range(3)]
    await asyncio.sleep(4)
    waiters[leaver].cancel()
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert isinstance(results.pop(leaver), asyncio.CancelledError)
    assert results == ["value", "value"]
    assert call.ends == ["work ended"]


async def test_one_whose_time_is_up_does_not_hurt_the_others() -> None:
    flights = Flights(spawn)
    flight = flights.begin("key", Call()(), "call")
    other = asyncio.create_task(flight.wait())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(flight.wait(), 3)
    assert asyncio.get_running_loop().time() == 3
    assert await other == "value"


async def test_the_last_who_leaves_ends_the_call_and_waits_until_it_has_cleaned_up() -> None:
    flights, call = Flights(spawn), Call()
    flight = flights.begin("key", call(), "call")
    waiters = [asyncio.create_task(flight.wait()) for _ in range(2)]
    await asyncio.sleep(4)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters)
    assert all(waiter.cancelled() for waiter in waiters)
    assert call.ends == ["work ended", "cleaning ended"]
    assert asyncio.get_running_loop().time() == 5


async def test_a_call_that_cleans_up_cannot_be_joined_and_a_new_one_may_begin() -> None:
    flights, first, second = Flights(spawn), Call("first"), Call("second")
    waiter = asyncio.create_task(flights.begin("key", first(), "call").wait())
    await asyncio.sleep(4)
    waiter.cancel()
    await asyncio.sleep(0.5)
    assert flights.get("key") is None
    flight = flights.begin("key", second(), "call")
    await asyncio.sleep(1)
    assert first.ends == ["work ended", "cleaning ended"]
    assert flights.get("key") is flight, "the end of the first is not the end of the second"
    assert await flight.wait() == "second"


async def test_a_flight_ended_from_outside_leaves_its_waiters_behind() -> None:
    tasks: list[asyncio.Task[Any]] = []

    def note(work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        tasks.append(spawn(work, name))
        return tasks[0]

    flight = Flights(note).begin("key", Call()(), "call")
    waiters = [asyncio.create_task(flight.wait()) for _ in range(2)]
    await settle()
    tasks[0].cancel()
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert [type(result) for result in results] == [Left, Left]


async def test_a_call_that_is_cleaning_up_is_not_cancelled_again_by_the_last_who_leaves() -> None:
    tasks: list[asyncio.Task[Any]] = []

    def note(work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        tasks.append(spawn(work, name))
        return tasks[0]

    call = Call()
    waiter = asyncio.create_task(Flights(note).begin("key", call(), "call").wait())
    await asyncio.sleep(4)
    tasks[0].cancel()
    await asyncio.sleep(0.5)
    waiter.cancel()
    await asyncio.wait([waiter])
    assert call.line.at("cleaning ended") == 5


async def test_a_call_that_ends_well_although_it_was_cancelled_disturbs_nobody() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return "all the same"
        return "value"

    waiter = asyncio.create_task(Flights(spawn).begin("key", stubborn(), "call").wait())
    await settle()
    waiter.cancel()
    await asyncio.wait([waiter])
    assert waiter.cancelled()


async def test_a_failure_reaches_all_who_wait() -> None:
    flights = Flights(spawn)
    flight = flights.begin("key", Call(OSError("gone"))(), "call")
    results = await asyncio.gather(*(flight.wait() for _ in range(3)), return_exceptions=True)
    assert [str(result) for result in results] == ["gone"] * 3
    assert len(flights) == 0


async def test_flights_of_different_keys_have_nothing_to_do_with_each_other() -> None:
    flights, gate = Flights(spawn), Gate()
    one, other = flights.begin(1, gate.wait(), "one"), flights.begin(2, Call()(), "other")
    assert flights.get(1) is one
    assert flights.get(2) is other
    assert await other.wait() == "value"
    assert flights.get(1) is one
    gate.release.set()
    await one.wait()


async def test_a_flight_sees_the_context_of_who_began_it_and_changes_nobodys() -> None:
    held: ContextVar[str] = ContextVar("held")

    async def call() -> str:
        seen = held.get()
        held.set("flight")
        return seen

    held.set("caller")
    assert await Flights(spawn).begin("key", call(), "call").wait() == "caller"
    assert held.get() == "caller"


class Bill:
    def __init__(self, *, optional: bool = False) -> None:
        self.open = True
        self.optional = optional
        self.outcome = ""

    def pay(self) -> None:
        if self.open:
            self.open, self.outcome = False, "paid"

    def waive(self) -> None:
        if self.open:
            self.open, self.outcome = False, "waived"


@pytest.mark.parametrize(
    ("leavers", "outcomes"),
    [
        ([], ["paid", "waived", "waived"]),
        ([0], ["waived", "paid", "waived"]),
        ([1], ["paid", "waived", "waived"]),
        ([0, 1], ["waived", "waived", "paid"]),
        ([0, 1, 2], ["waived", "waived", "paid"]),
        ([2, 0, 1], ["waived", "paid", "waived"]),
    ],
)
async def test_exactly_one_of_those_who_waited_pays(
    leavers: list[int], outcomes: list[str]
) -> None:
    flight = Flights(spawn).begin("key", Call()(), "call")
    bills = [Bill() for _ in range(3)]

    async def wait(bill: Bill) -> None:
        await flight.wait(bill)
        flight.settle(bill)

    waiters = [asyncio.create_task(wait(bill)) for bill in bills]
    for leaver in leavers:
        await asyncio.sleep(1)
        waiters[leaver].cancel()
    await asyncio.wait(waiters)
    assert [bill.outcome for bill in bills] == outcomes
