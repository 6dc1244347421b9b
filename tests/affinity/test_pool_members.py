"""Replicas join, are drained, and leave while requests run; a pool closes and leaves nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentflow.caches.affinity.policies import LeastLoaded
from agentflow.clock import now
from agentflow.errors import BackendError, DefinitionError, NoReplica
from agentflow.executor.affinity.pool import Pool
from agentflow.executor.affinity.replica import ReplicaSpec
from agentflow.executor.models.base import ChatRequest, SessionTag
from agentflow.testing import Serving

pytestmark = pytest.mark.virtual

ONE_AT_A_TIME = Serving(prefill=10_000.0, step=0.05, capacity=100_000, slots=1)


def ask(text: str = "hello", session: str | None = None) -> ChatRequest:
    tag = None if session is None else SessionTag(session)
    return ChatRequest(messages=[{"role": "user", "content": text}], max_tokens=40, session=tag)


def names(pool: Pool) -> list[str]:
    return [replica.name for replica in pool.replicas]


async def test_replicas_are_called_by_host_and_port_and_told_apart() -> None:
    urls = ["http://a:1/v1/", "http://a:2/v1", "http://a:1/other/v1"]

    pool = Pool([*urls, ReplicaSpec("http://b/v1", name="spare")])

    assert names(pool) == ["a:1", "a:2", "a:1#2", "spare"]
    assert pool.url == pool.replicas[0].url == "http://a:1/v1"


@pytest.mark.parametrize(
    ("replicas", "said"),
    [
        ([], "a pool needs replicas"),
        (["localhost:8000"], "is not a base URL"),
        ([ReplicaSpec("http://a/v1", "x"), ReplicaSpec("http://b/v1", "x")], "two replicas"),
    ],
)
def test_a_pool_that_cannot_work_is_refused_where_it_is_made(replicas: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        Pool(replicas)


async def test_a_replica_that_is_drained_finishes_and_gets_nothing_new(world: Any) -> None:
    pool = world.pool(policy=LeastLoaded())
    running = [asyncio.create_task(pool.complete(ask())) for _ in range(4)]
    await asyncio.sleep(0.1)

    await pool.drain("a")

    assert all(task.done() for task in running)
    assert {(await task).attempts for task in running} == {1}
    later = await asyncio.gather(*[pool.complete(ask()) for _ in range(4)])
    assert {reply.replica for reply in later} == {"b"}
    assert [replica.condition for replica in pool.replicas] == ["draining", "up"]


async def test_a_drained_replica_that_joins_again_takes_requests(world: Any) -> None:
    pool = world.pool(policy=LeastLoaded())
    await pool.drain("a")

    assert pool.join("http://a/v1") == "a"

    assert (await pool.complete(ask())).replica == "a"
    assert names(pool) == ["a", "b"]


async def test_a_replica_that_joins_is_sent_what_waits(world: Any) -> None:
    pool = world.pool("a")
    world["a"].kill()
    asking = asyncio.create_task(pool.complete(ask()))
    await asyncio.sleep(3.0)

    assert pool.join(world.replica("b")) == "b"

    assert (await asking).replica == "b"
    assert now() < 4.0


async def test_a_replica_that_leaves_finishes_replies_and_gives_the_rest_away(world: Any) -> None:
    world.replica("a", ONE_AT_A_TIME)
    pool = world.pool(policy=LeastLoaded())
    asking = [asyncio.create_task(pool.complete(ask(f"{i}"))) for i in range(6)]
    await asyncio.sleep(0.5)

    await pool.leave("a")

    assert names(pool) == ["b"]
    replies = await asyncio.gather(*asking)
    assert [reply.replica for reply in replies].count("a") == 1
    assert [reply.attempts for reply in replies].count(2) == 2


async def test_the_last_replica_finishes_all_it_has_before_it_leaves(world: Any) -> None:
    world.replica("a", ONE_AT_A_TIME)
    pool = world.pool("a", policy=LeastLoaded(), patience=5.0)
    asking = [asyncio.create_task(pool.complete(ask(f"{i}"))) for i in range(3)]
    await asyncio.sleep(0.5)

    await pool.leave("a")

    assert [(await task).replica for task in asking] == ["a"] * 3
    with pytest.raises(NoReplica, match="the pool has none"):
        await pool.complete(ask())


async def test_a_name_that_is_not_there_is_told(world: Any) -> None:
    with pytest.raises(DefinitionError, match=r"no replica 'c'.*Known: a, b"):
        await world.pool().leave("c")


async def test_who_leaves_while_a_request_is_held_disturbs_nobody(world: Any) -> None:
    pool = world.pool("a")
    world["a"].kill()
    asking = [asyncio.create_task(pool.complete(ask(f"{i}"))) for i in range(6)]
    await asyncio.sleep(0.2)
    for task in asking[::2]:
        task.cancel()
    await asyncio.sleep(3.0)
    await world["a"].restart()

    replies = await asyncio.gather(*asking, return_exceptions=True)

    assert [isinstance(reply, asyncio.CancelledError) for reply in replies] == [True, False] * 3
    assert world.served()["a"] == 3


async def test_who_leaves_a_stream_frees_the_replica(world: Any) -> None:
    pool = world.pool("a")
    async with pool.stream(ask()) as stream:
        await anext(aiter(stream))

    [report] = pool.replicas
    assert (report.running, world["a"].active) == (0, 0)


async def test_a_pool_that_closes_ends_who_waits_and_who_reads(world: Any) -> None:
    pool = world.pool("ab")
    world["b"].kill()
    reading = asyncio.create_task(pool.complete(ask()))
    await asyncio.sleep(0.1)
    await pool.drain("b")
    waiting = asyncio.create_task(pool.drain("a"))
    await asyncio.sleep(0.0)
    held = asyncio.create_task(pool.complete(ask()))
    await asyncio.sleep(0.1)

    await pool.aclose()

    for task in (reading, held):
        with pytest.raises(BackendError, match="the pool of replicas was closed"):
            await task
    await waiting
    with pytest.raises(BackendError, match="closed"):
        await pool.complete(ask())


async def test_reports_say_what_each_replica_did(world: Any) -> None:
    pool = world.pool()
    for i in range(3):
        await pool.complete(ask("long text " * 200 + str(i), "s"))
    world["a"].kill()
    moved = await pool.complete(ask("long text " * 200, "s"))

    a, b = pool.replicas
    assert (a.requests, a.failures, a.condition) == (4, 1, "down")
    assert (b.requests, b.failures, b.moved) == (1, 0, {"lost": 1})
    assert moved.moved == "lost"
    assert a.hit_share is not None and 0.5 < a.hit_share < 0.7
    assert (b.hit_share, b.prompt_tokens, b.completion_tokens) == (0.0, b.reported_tokens, 40)


async def test_every_replica_can_be_probed(world: Any) -> None:
    pool = world.pool()
    world["b"].kill()

    found = await pool.probe()

    assert found["a"].models[0].name == "modelled"
    assert isinstance(found["b"], BackendError)
