"""Replicas join, are drained, and leave while requests run; a pool closes and leaves nothing."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

import pytest

from agentflow.caches.affinity.fleet import Fleet, Replica
from agentflow.caches.affinity.jobs import Job
from agentflow.caches.affinity.policies import LeastLoaded
from agentflow.clock import now
from agentflow.errors import BackendError, DefinitionError, NoReplica
from agentflow.executor.affinity.pool import Pool
from agentflow.executor.affinity.replica import ReplicaSpec
from agentflow.executor.models.base import ChatRequest, Reply, SessionTag
from agentflow.executor.models.ratelimit import RateLimiter
from agentflow.testing import Fault, Serving

pytestmark = pytest.mark.virtual

ONE_AT_A_TIME = Serving(prefill=10_000.0, step=0.05, capacity=100_000, slots=1)


def ask(text: str = "hello", session: str | None = None) -> ChatRequest:
    tag = None if session is None else SessionTag(session)
    return ChatRequest(messages=[{"role": "user", "content": text}], max_tokens=40, session=tag)


def learning() -> int:
    """How many servers are being asked what they are."""
    return sum("_learn" in repr(task.get_coro()) for task in asyncio.all_tasks())


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
        ("http://a/v1", "a list of replicas"),
        ([ReplicaSpec("http://a/v1", "x"), ReplicaSpec("http://b/v1", "x")], "two replicas"),
    ],
)
def test_a_pool_that_cannot_work_is_refused_where_it_is_made(replicas: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        Pool(replicas)


@pytest.mark.parametrize("policy", ["sticky", LeastLoaded])
def test_a_policy_is_an_instance(policy: Any) -> None:
    with pytest.raises(DefinitionError, match="give an instance"):
        Pool(["http://a/v1"], policy=policy)


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


async def test_a_replica_that_has_left_is_asked_nothing_more(world: Any) -> None:
    pool = world.pool(policy=LeastLoaded())
    world["a"].hang()
    asking = asyncio.create_task(pool.complete(ask()))
    await asyncio.sleep(3.0)
    assert learning() == 1

    await pool.leave("a")

    assert learning() == 0
    assert (await asking).replica == "b"


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


async def test_who_waits_is_served_by_the_replica_that_joined_an_empty_pool(world: Any) -> None:
    world.replica("b", ONE_AT_A_TIME)
    pool = world.pool("a")
    await pool.leave("a")
    pool.join(ReplicaSpec("http://b/v1", slots=1))

    replies = await asyncio.gather(*[pool.complete(ask(f"{i}", f"s{i}")) for i in range(20)])

    assert {reply.replica for reply in replies} == {"b"}
    assert now() > 35.0  # longer than its patience


async def test_a_replica_that_leaves_before_a_request_wakes_up_loses_it_not(world: Any) -> None:
    pool = world.pool("a")
    world.replica("b")
    await pool.drain("a")
    asking = asyncio.create_task(pool.complete(ask(session="s")))
    await asyncio.sleep(1.0)

    pool.join("http://b/v1")
    await pool.leave("b")
    pool.join("http://a/v1")

    assert (await asking).replica == "a"
    assert world.served() == {"a": 1, "b": 0}


async def test_nothing_is_sent_once_the_pool_was_closed(world: Any) -> None:
    pool = world.pool("a", limiter=RateLimiter(60, burst=1))
    await pool.complete(ask())
    asking = asyncio.create_task(pool.complete(ask()))  # it waits for its turn
    await asyncio.sleep(0.2)

    await pool.aclose()

    with pytest.raises(BackendError, match="closed"):
        await asking
    assert world.served() == {"a": 1}


async def test_a_pool_that_closes_while_it_connects_keeps_no_client() -> None:
    pool = Pool(["http://a/v1"], "modelled")
    asking = [asyncio.create_task(pool.complete(ask())) for _ in range(2)]
    await asyncio.sleep(0.0)

    await pool.aclose()

    for task in asking:
        with pytest.raises(BackendError, match="closed"):
            await task
    assert pool._http is None


async def test_nothing_is_sent_again_once_the_pool_was_closed(world: Any) -> None:
    pool = world.pool("a")
    world["a"].fail(Fault.status(500))
    asking = asyncio.create_task(pool.complete(ask()))
    await asyncio.sleep(0.05)  # it sleeps before its second attempt

    await pool.aclose()

    with pytest.raises(BackendError, match="closed"):
        await asking
    assert world.served() == {"a": 1}


async def test_a_password_in_a_url_is_sent_and_never_shown(world: Any) -> None:
    world.replica("a")
    pool = Pool(["http://us%40er:s3cret@a/v1"], "modelled", api_key="key", http=world.http)
    world.pools.append(pool)

    reply = await pool.complete(ask())
    world["a"].kill()
    with pytest.raises(BackendError) as caught:
        await pool.complete(ask())

    [sent] = world["a"].requests
    assert sent.headers["authorization"] == "Basic " + b64encode(b"us@er:s3cret").decode()
    shown = [repr(reply), repr(pool.replicas), pool.url, str(caught.value), repr(caught.value)]
    assert not any("s3cret" in text for text in shown)
    assert names(pool) == ["a"]
    assert pool.join("http://us%40er:s3cret@a/v1") == "a"


async def test_what_only_warms_and_belongs_to_no_session_leaves_nothing(world: Any) -> None:
    pool = world.pool("a")

    for i in range(5):
        warmed = await pool.warm(ask(f"{i}"))
        assert warmed is not None and warmed.usage.completion_tokens == 1

    fleet = pool._desk.dispatcher.fleet
    assert (len(fleet.sessions), fleet.replicas["a"].homes) == (0, 0)


async def test_what_only_warms_gives_way_without_a_session_too(world: Any) -> None:
    world.replica("a", ONE_AT_A_TIME)
    pool = world.pool("a")
    warming = asyncio.create_task(pool.warm(ask("warm " * 5_000)))
    await asyncio.sleep(0.1)

    reply = await pool.complete(ask("real"))

    assert reply.first_token_seconds < 1.0
    with pytest.raises(BackendError, match="needs the place"):
        await warming


class Mistaken(LeastLoaded):
    """A policy that sends one request at a time, and fails at some of what it is asked."""

    def __init__(
        self, places: frozenset[int] = frozenset(), orders: frozenset[int] = frozenset()
    ) -> None:
        self._places, self._orders = places, orders
        self._placed, self._ordered = count(), count()

    def choose(self, job: Job, fleet: Fleet, at: float) -> tuple[Replica, str] | None:
        if next(self._placed) in self._places:
            raise ValueError("a mistake in my policy")
        return None if fleet.replicas["a"].running else super().choose(job, fleet, at)

    def order(self, waiting: Sequence[Job], fleet: Fleet, at: float) -> Iterable[Job]:
        if next(self._ordered) in self._orders:
            raise ValueError("a mistake in my policy")
        return super().order(waiting, fleet, at)


@pytest.mark.parametrize(
    "policy", [Mistaken(places=frozenset({0})), Mistaken(orders=frozenset({0}))]
)
async def test_a_mistake_of_a_policy_is_raised_where_it_was_made_and_forgotten(
    world: Any, policy: Mistaken
) -> None:
    pool = world.pool("a", policy=policy)

    with pytest.raises(ValueError, match="a mistake"):
        await pool.complete(ask(session="s"))

    assert (await pool.complete(ask())).text
    [report] = pool.replicas
    assert report.running == 0 and not pool._desk.dispatcher.waiting
    assert not any(s.busy for s in pool._desk.dispatcher.fleet.sessions.values())


@pytest.mark.parametrize(
    "policy", [Mistaken(places=frozenset({2})), Mistaken(orders=frozenset({2}))]
)
async def test_a_mistake_about_a_request_that_waits_is_its_error(
    world: Any, policy: Mistaken
) -> None:
    pool = world.pool("a", policy=policy)

    replies = await asyncio.gather(
        *[pool.complete(ask()) for _ in range(2)], return_exceptions=True
    )

    assert [type(reply) for reply in replies] == [Reply, ValueError]
    assert (await pool.complete(ask())).text


# What is refused


@pytest.mark.parametrize(
    "again", ["http://a/v1", "http://a/v1/", ReplicaSpec("http://a/v1", name="other")]
)
def test_a_replica_is_in_the_list_once(again: Any) -> None:
    with pytest.raises(DefinitionError, match="http://a/v1 is in the list of replicas 2 times"):
        Pool(["http://a/v1", again], "modelled")


@pytest.mark.parametrize("room", [{"slots": 0}, {"slots": -1}, {"capacity": 0}, {"capacity": -5}])
async def test_a_replica_has_room_for_something(world: Any, room: Any) -> None:
    spec = ReplicaSpec("http://c/v1", **room)
    with pytest.raises(DefinitionError, match=r"http://c/v1: \w+=.* must be 1 or more"):
        Pool([spec], "modelled")
    with pytest.raises(DefinitionError, match=r"http://c/v1: \w+=.* must be 1 or more"):
        world.pool().join(spec)


@pytest.mark.parametrize("patience", [-1, -0.5, float("nan")])
def test_patience_is_not_negative(patience: float) -> None:
    with pytest.raises(DefinitionError, match="must be 0 seconds or more"):
        Pool(["http://a/v1"], "modelled", patience=patience)
