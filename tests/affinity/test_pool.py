"""A pool answers like one model, whichever of its replicas is asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentflow.caches.affinity.jobs import Pause
from agentflow.clock import now
from agentflow.errors import BackendError
from agentflow.executor.models.base import ChatRequest, SessionTag, TextPiece, Usage
from agentflow.executor.models.ratelimit import RateLimiter
from agentflow.testing import Fault

pytestmark = pytest.mark.virtual


def ask(text: str = "hello", session: str | None = None, **options: Any) -> ChatRequest:
    tag = None if session is None else SessionTag(session)
    return ChatRequest(
        messages=[{"role": "user", "content": text}], max_tokens=8, session=tag, **options
    )


async def test_a_reply_comes_as_from_a_single_backend(world: Any) -> None:
    pool = world.pool()
    seen: list[Any] = []

    reply = await pool.complete(ask(), seen.append)

    assert reply.text == " ".join(["word"] * 8)
    assert "".join(piece.text for piece in seen if isinstance(piece, TextPiece)) == reply.text
    assert isinstance(seen[-1], Usage)
    assert (reply.replica, reply.moved, reply.held, reply.attempts) == ("a", "", 0.0, 1)


async def test_requests_of_a_session_go_where_the_first_went(world: Any) -> None:
    pool = world.pool()
    replies = [await pool.complete(ask(f"{name} " * 200, name)) for name in "stuv" * 3]

    homes = {name: {r.replica for r in replies[i::4]} for i, name in enumerate("stuv")}
    assert all(len(home) == 1 for home in homes.values())
    assert {reply.replica for reply in replies} == {"a", "b"}


async def test_a_replica_that_refuses_connections_is_not_asked_again(world: Any) -> None:
    pool = world.pool()
    world["a"].kill()
    world["b"].kill()
    await world["b"].restart()

    replies = [await pool.complete(ask(f"text {i}")) for i in range(4)]

    assert {reply.replica for reply in replies} == {"b"}
    assert replies[0].attempts == 2 and replies[1].attempts == 1


async def test_all_replicas_together_keep_to_the_rate_limit(world: Any) -> None:
    pool = world.pool(limiter=RateLimiter(requests_per_minute=60, burst=1))
    world["a"].fail(Fault.status(500), times=1)

    replies = [await pool.complete(ask(f"{i}")) for i in range(3)]

    assert replies[0].attempts == 2
    assert sum(world.served().values()) == 4
    assert now() >= 3.0


async def test_what_warms_a_cache_takes_a_turn_at_the_rate_limit_or_is_not_sent(
    world: Any,
) -> None:
    pool = world.pool("a", limiter=RateLimiter(requests_per_minute=2, burst=60))
    text = "to be known later " * 300
    await pool.complete(ask("begin", "s"))
    pool.away("s", Pause(40.0, 50.0))

    assert await pool.warm(ask(text, "s")) is not None
    assert await pool.warm(ask(text * 2, "s")) is None
    await pool.complete(ask(text * 2, "s"))

    assert 29.0 < now() < 31.0
    assert world.served() == {"a": 3}


async def test_what_warms_no_cache_takes_no_turn(world: Any) -> None:
    pool = world.pool("a", limiter=RateLimiter(requests_per_minute=2, burst=60))
    await pool.drain("a")

    for _ in range(3):
        assert await pool.warm(ask("to be known later " * 300)) is None
    pool.join("http://a/v1")
    await pool.complete(ask("begin"))

    assert now() < 1.0


async def test_what_warms_a_cache_is_sent_where_nothing_waits_for_it(world: Any) -> None:
    pool = world.pool("a")
    text = "to be known later " * 300
    await pool.complete(ask("begin", "s"))
    pool.away("s", Pause(10.0, 20.0))

    warmed = await pool.warm(ask(text, "s"))

    assert warmed is not None
    assert (await pool.complete(ask(text, "s"))).usage.cached_tokens > 1000


async def test_nothing_is_warmed_where_something_runs(world: Any) -> None:
    pool = world.pool("a")
    async with pool.stream(ask()):
        assert await pool.warm(ask("other", "s")) is None

    assert world.served() == {"a": 1}


async def test_nothing_is_warmed_for_who_is_back_at_once(world: Any) -> None:
    pool = world.pool("a")
    await pool.complete(ask("begin", "s"))
    pool.away("s", Pause(0.01, 0.02))

    assert await pool.warm(ask("to be known later " * 300, "s")) is None


async def test_what_only_warms_gives_way_to_a_request(world: Any) -> None:
    pool = world.pool("a")
    await pool.complete(ask("begin", "s"))
    pool.away("s", Pause(100.0, 200.0))
    warming = asyncio.create_task(pool.warm(ask("to be known later " * 5_000, "s")))
    await asyncio.sleep(0.1)
    began = now()

    await pool.complete(ask("other"))

    with pytest.raises(BackendError, match="needs the place"):
        await warming
    assert now() - began < 0.3  # the prompt alone would have taken 2 s
    assert (pool.replicas[0].failures, pool.replicas[0].running) == (0, 0)


async def test_requests_of_no_session_leave_none_behind(world: Any) -> None:
    pool = world.pool()
    await pool.complete(ask())
    await pool.complete(ask(session="s"))

    assert list(pool._desk.dispatcher.fleet.sessions) == ["s"]
    pool.ended("s")
    assert not pool._desk.dispatcher.fleet.sessions


async def test_what_a_pool_needs_before_it_sends_is_not_the_replicas_time(world: Any) -> None:
    pool = world.pool("a")  # with dialect="auto" it is asked what it is before the first request
    world["a"].hang()
    asyncio.get_running_loop().call_later(0.4, world["a"].recover)

    await pool.complete(ask("word " * 1_000))

    assert now() > 0.4
    assert pool.replicas[0].prefill > 5_000.0
