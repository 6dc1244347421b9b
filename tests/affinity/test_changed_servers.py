"""Servers that accept less than they did: they are asked again, and no request is lost to it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentflow.caches.affinity.prompts import Prompt
from agentflow.clock import now
from agentflow.errors import BackendError, BackendRejected
from agentflow.executor.affinity.dialects import Template
from agentflow.executor.models.attempts import metered
from agentflow.executor.models.base import ChatRequest, SessionTag
from agentflow.testing import ChatCall, Fault, Serving

pytestmark = pytest.mark.virtual

SERVING = Serving(prefill=10_000.0, step=0.01, capacity=100_000)
SLOTTED = Serving(prefill=10_000.0, step=0.01, capacity=8_000, slots=4)
FEWER = Serving(prefill=10_000.0, step=0.01, capacity=8_000, slots=1)


def ask(session: str = "s", text: str = "hello", words: int = 10) -> ChatRequest:
    tag = SessionTag(session, tenant="acme")
    return ChatRequest(messages=[{"role": "user", "content": text}], max_tokens=words, session=tag)


def asked(replica: Any) -> list[Any]:
    """The chat requests it got that were no questions of what it accepts."""
    return [call.body for call in replica.requests if "hello" in str(call.body["messages"])]


async def test_a_server_that_orders_by_rank_no_more_is_asked_again(world: Any) -> None:
    world.replica("a", SERVING, server="vllm", priorities=True)
    pool = world.pool("a")
    for _ in range(3):
        await pool.complete(ask())
    assert "priority" in asked(world["a"])[-1]

    await world["a"].restart(priorities=False)
    before = len(asked(world["a"]))
    replies = [await pool.complete(ask()) for _ in range(4)]

    sent = asked(world["a"])[before:]
    assert [reply.attempts for reply in replies] == [2, 1, 1, 1]
    assert ["priority" in body for body in sent] == [True, False, False, False, False]
    assert ["cache_salt" in body for body in sent] == [True, False, True, True, True]
    assert (pool.replicas[0].failures, pool.replicas[0].condition) == (0, "up")


async def test_those_that_are_refused_at_once_ask_it_only_once_more(world: Any) -> None:
    world.replica("a", SERVING, server="vllm", priorities=True)
    pool = world.pool("a")
    await pool.complete(ask())
    await asyncio.sleep(1.0)
    questions = len(world["a"].requests) - 1

    await world["a"].restart(priorities=False)
    replies = await asyncio.gather(*[pool.complete(ask(str(number))) for number in range(6)])
    await pool.complete(ask())
    await asyncio.sleep(1.0)

    assert [reply.attempts for reply in replies] == [2] * 6
    assert len(world["a"].requests) == 1 + questions + 2 * 6 + 1 + questions


async def test_a_server_that_still_refuses_what_it_says_it_takes_is_told_nothing(
    world: Any,
) -> None:
    def strange(call: ChatCall) -> Any:
        told = "cache_salt" in call.body
        return Fault.status(400, "not with a salt") if told else "Hello."

    world.replica("a", SERVING, strange, server="vllm")
    pool = world.pool("a")

    attempts = [(await pool.complete(ask())).attempts for _ in range(6)]

    assert attempts == [2, 2, 1, 1, 1, 1]


async def test_a_server_that_was_away_is_asked_anew(world: Any) -> None:
    world.replica("a", SERVING, server="vllm", priorities=False)
    pool = world.pool("a")
    await pool.complete(ask())
    world["a"].kill()
    waits = asyncio.create_task(pool.complete(ask()))
    await asyncio.sleep(1.0)

    await world["a"].restart(priorities=True)
    await waits
    await asyncio.sleep(1.0)
    await pool.complete(ask())

    assert "priority" in asked(world["a"])[-1]


async def test_what_was_learnt_of_a_memory_is_forgotten_when_it_was_away(world: Any) -> None:
    world.replica("a", SERVING)
    pool = world.pool("a")
    await pool.complete(ask())
    residency = pool._desk.dispatcher.fleet.replicas["a"].residency
    prompts = [Prompt(tuple((name, at) for at in range(100)), 6400) for name in range(8)]
    for prompt in prompts:
        residency.touch(prompt)
    residency.confirm(100, 0, residency.touch(prompts[0]))
    assert residency.capacity == 700

    world["a"].kill()
    waits = asyncio.create_task(pool.complete(ask()))
    await asyncio.sleep(0.2)
    await world["a"].restart()
    await waits

    assert residency.capacity is None


async def test_a_bad_request_is_sent_twice_at_most_and_the_error_is_the_servers(
    world: Any,
) -> None:
    for name in "ab":
        world.replica(name, SERVING, server="vllm", priorities=True)
    pool = world.pool("ab")
    await pool.complete(ask())
    await asyncio.sleep(1.0)
    home = next(name for name in "ab" if asked(world[name]))
    before = len(world[home].requests), sum(world.served().values())
    for name in "ab":
        world[name].fail(Fault.status(400, "no such tool"))

    with pytest.raises(BackendRejected, match="no such tool"):
        await pool.complete(ask())

    assert sum(world.served().values()) == before[1] + 2
    assert ["priority" in call.body for call in world[home].requests[before[0] :]] == [True, False]
    for name in "ab":
        world[name].recover()
    await pool.complete(ask())
    await asyncio.sleep(1.0)
    assert sum(world.served().values()) == before[1] + 3  # it was not asked again either


async def test_a_request_without_anything_added_is_sent_once(world: Any) -> None:
    world.replica("a", SERVING)
    pool = world.pool("a")
    world["a"].fail(Fault.status(400, "no such tool"))

    with pytest.raises(BackendRejected, match="no such tool"):
        await pool.complete(ask())

    assert len(asked(world["a"])) == 1


async def test_what_the_user_has_said_is_to_be_added_is_not_left_out(world: Any) -> None:
    def router(call: ChatCall) -> Any:
        return Fault.status(400, f"no route {call.body.get('route')}")

    world.replica("a", SERVING, router)
    pool = world.pool("a", dialect=Template(body={"route": "{session}"}))

    with pytest.raises(BackendRejected, match="no route s"):
        await pool.complete(ask())

    assert len(asked(world["a"])) == 1


async def test_what_is_sent_again_is_paid_again(world: Any) -> None:
    told: list[str] = []

    class Meter:
        def holding(self) -> None: ...

        def sending(self) -> None:
            told.append("sending")

        def again(self, error: BackendError) -> None:
            told.append(f"again {error.status}")

    world.replica("a", SERVING, server="vllm", priorities=True)
    pool = world.pool("a")
    await pool.complete(ask())
    await asyncio.sleep(1.0)
    await world["a"].restart(priorities=False)

    with metered(Meter()):
        await pool.complete(ask())

    assert told == ["sending", "again 400", "sending"]


async def test_requests_that_wait_for_slots_that_are_gone_are_placed_anew(world: Any) -> None:
    world.replica("a", SLOTTED, server="llama.cpp")
    pool = world.pool("a")
    await asyncio.gather(*[pool.complete(ask(str(number))) for number in range(4)])

    await world["a"].restart(serving=FEWER)  # it keeps requests for slots that it does not have
    began = now()
    replies = await asyncio.gather(*[pool.complete(ask(str(number))) for number in range(4)])

    assert now() - began < 10.0
    assert {reply.text for reply in replies} == {" ".join(["word"] * 10)}
    slots = [body["id_slot"] for body in asked(world["a"])]
    assert {*slots[-3:]} == {0} and max(slots[4:8]) == 3


async def test_slots_that_a_server_refuses_are_not_asked_for_again(world: Any) -> None:
    slots = 4

    def strict(call: ChatCall) -> Any:
        gone = call.body.get("id_slot", -1) >= slots
        return Fault.status(400, "Invalid slot ID") if gone else "Hello."

    world.replica("a", SLOTTED, strict, server="llama.cpp")
    pool = world.pool("a")
    await asyncio.gather(*[pool.complete(ask(str(number))) for number in range(4)])

    slots = 1
    await world["a"].restart(serving=FEWER)
    replies = [await pool.complete(ask("3")) for _ in range(3)]

    assert [reply.attempts for reply in replies] == [2, 1, 1]
    assert [body.get("id_slot") for body in asked(world["a"])[4:]] == [3, None, 0, 0]
