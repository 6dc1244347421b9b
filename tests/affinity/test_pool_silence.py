"""Replicas that say nothing: who is there is slow, and waited for; who is not is given up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentflow.caches.affinity.policies import LeastLoaded
from agentflow.clock import now
from agentflow.errors import BackendTimeout
from agentflow.executor.models.base import ChatRequest
from agentflow.testing import Fault, Serving

pytestmark = pytest.mark.virtual

SERVING = Serving(prefill=10_000.0, step=0.01, capacity=100_000)


def ask(text: str = "hello") -> ChatRequest:
    return ChatRequest(messages=[{"role": "user", "content": text}], max_tokens=40)


async def thinker(call: Any) -> str:
    """Thinks for as many seconds as it is told, wherever it is asked."""
    said = call.messages[-1]["content"]
    await asyncio.sleep(float(said) if said[0].isdigit() else 0.0)
    return "done after all of this"


@pytest.fixture
async def pool(world: Any) -> Any:
    """Two replicas that have answered before."""
    for name in "ab":
        world.replica(name, SERVING, thinker)
    made = world.pool(policy=LeastLoaded())
    await asyncio.gather(*[made.complete(ask()) for _ in range(4)])
    return made


def asked(world: Any) -> dict[str, int]:
    """How many requests each replica was sent beyond the first ones."""
    return {name: sent - 2 for name, sent in world.served().items()}


def conditions(pool: Any) -> list[str]:
    return [replica.condition for replica in pool.replicas]


async def test_a_replica_that_is_there_is_waited_for(pool: Any, world: Any) -> None:
    reply = await pool.complete(ask("20"))

    assert (reply.text, reply.attempts) == ("done after all of this", 1)
    assert asked(world) == {"a": 1, "b": 0}
    assert conditions(pool) == ["up", "up"]


async def test_others_in_flight_there_are_left_alone(pool: Any, world: Any) -> None:
    replies = await asyncio.gather(*[pool.complete(ask("20")) for _ in range(6)])

    assert {reply.attempts for reply in replies} == {1}
    assert asked(world) == {"a": 3, "b": 3}


async def test_what_is_silent_for_much_longer_is_asked_for_elsewhere_once(
    pool: Any, world: Any
) -> None:
    began = now()

    reply = await pool.complete(ask("80"))

    assert (reply.replica, reply.attempts) == ("b", 2)
    assert now() - began == pytest.approx(30.0 + 80.0, abs=1.0)
    assert asked(world) == {"a": 1, "b": 1}


async def test_a_replica_that_answers_but_serves_nothing_is_left_alone(
    pool: Any, world: Any
) -> None:
    world["a"].fail(Fault.silence())
    began = now()

    replies = await asyncio.gather(*[pool.complete(ask()) for _ in range(4)])

    assert {reply.replica for reply in replies} == {"b"}
    assert now() - began == pytest.approx(30.0, abs=1.0)
    assert conditions(pool) == ["down", "up"]
    assert "nothing came for 30 s" in pool.replicas[0].complaint


async def test_a_reply_that_has_begun_is_not_taken_from_a_replica_that_is_there(
    pool: Any, world: Any
) -> None:
    world["a"].fail(Fault.stall(after=3), times=1)
    seen: list[Any] = []
    began = now()

    with pytest.raises(BackendTimeout):
        await pool.complete(ask("0.5"), seen.append)

    assert seen and now() - began > 60.0  # Timeouts.idle
    assert conditions(pool) == ["up", "up"]


async def test_a_replica_that_does_not_answer_is_given_up_soon(pool: Any, world: Any) -> None:
    world["a"].hang()
    began = now()

    reply = await pool.complete(ask())

    assert reply.replica == "b"
    assert 9.0 <= now() - began <= 11.0
    assert conditions(pool) == ["down", "up"]


async def test_a_replica_that_spoke_after_all_is_trusted_for_longer(pool: Any, world: Any) -> None:
    doubts = [member.doubt for member in pool._care.members.values()]

    await pool.complete(ask("6"))

    assert [doubt.long(5.0) for doubt in doubts] == [10.0, 5.0]


async def test_a_silence_is_counted_though_new_requests_are_sent(pool: Any, world: Any) -> None:
    world["a"].hang()
    began = now()
    first = asyncio.create_task(pool.complete(ask()))
    later = []
    for _ in range(5):
        await asyncio.sleep(2.0)
        later += [asyncio.create_task(pool.complete(ask())) for _ in range(2)]

    assert (await first).replica == "b"
    assert now() - began <= 11.0
    await asyncio.gather(*later)


async def test_a_replica_that_hangs_from_the_beginning_is_given_up_too(world: Any) -> None:
    pool = world.pool()
    world["a"].hang()

    reply = await pool.complete(ask())

    assert reply.replica == "b"
    assert 9.0 <= now() <= 11.5


async def test_replicas_may_have_to_load_before_the_first_answer(world: Any) -> None:
    for name in "ab":
        world.replica(name, SERVING, thinker)

    reply = await world.pool().complete(ask("90"))

    assert reply.attempts == 1


async def test_a_silence_that_its_caller_ended_says_nothing_of_the_replica(
    pool: Any, world: Any
) -> None:
    asking = asyncio.create_task(pool.complete(ask("40")))
    await asyncio.sleep(6.0)
    asking.cancel()
    await asyncio.wait([asking])

    await pool.complete(ask())

    assert [member.doubt.long(5.0) for member in pool._care.members.values()] == [5.0, 5.0]


async def test_replicas_that_all_hang_have_an_error_each_when_their_request_is_withdrawn(
    world: Any,
) -> None:
    pool = world.pool()
    for name in "ab":
        world[name].hang()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(30.0):
            await pool.complete(ask())

    hanging, silent = (report.error for report in pool.replicas)
    assert "http://a/v1 seems to hang" in hanging
    assert silent == "http://b/v1 had sent nothing for 20 s when nobody waited any more"


async def test_a_replica_that_was_silent_for_a_moment_is_not_blamed(world: Any) -> None:
    pool = world.pool("a")
    await pool.complete(ask())
    world["a"].hang()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(4.0):
            await pool.complete(ask())

    assert pool.replicas[0].error == ""


async def test_the_error_of_a_replica_is_over_when_it_answers(world: Any) -> None:
    pool = world.pool("a")
    world["a"].fail(Fault.status(500), times=1)
    errors = []
    asyncio.get_running_loop().call_later(0.1, lambda: errors.append(pool.replicas[0].error))

    await pool.complete(ask())

    assert errors == ["http://a/v1 failed (500): scripted 500"]
    assert pool.replicas[0].error == ""
