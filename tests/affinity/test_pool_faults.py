"""What a pool makes of replicas that fail: another answers, and who failed is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agentflow.caches.affinity.policies import LeastLoaded
from agentflow.clock import now
from agentflow.errors import (
    BackendError,
    BackendRejected,
    BackendTimeout,
    BackendUnreachable,
    BadReply,
    NoReplica,
)
from agentflow.executor.models.base import ChatRequest, SessionTag
from agentflow.executor.models.persistent import Persistent
from agentflow.executor.models.retry import RetryPolicy
from agentflow.executor.models.stream import Timeouts
from agentflow.testing import ChatCall, Fault, Serving

pytestmark = pytest.mark.virtual

WORDS = " ".join(["word"] * 40)


def ask(text: str = "hello", session: str | None = None, words: int = 40) -> ChatRequest:
    tag = None if session is None else SessionTag(session)
    return ChatRequest(messages=[{"role": "user", "content": text}], max_tokens=words, session=tag)


def conditions(pool: Any) -> dict[str, str]:
    return {replica.name: replica.condition for replica in pool.replicas}


async def test_a_replica_killed_in_mid_stream_breaks_the_reply_off_retryably(world: Any) -> None:
    pool = world.pool()
    seen: list[Any] = []
    asyncio.get_running_loop().call_later(0.2, world["a"].kill)

    with pytest.raises(BackendUnreachable) as caught:
        await pool.complete(ask(), seen.append)

    assert caught.value.retryable and 0 < len(seen) < 40


async def test_asked_again_a_reply_that_broke_off_goes_on_elsewhere(world: Any) -> None:
    pool = world.pool()
    seen: list[Any] = []
    asyncio.get_running_loop().call_later(0.2, world["a"].kill)

    reply = await Persistent(pool).complete(ask(session="s"), seen.append)

    assert reply.text == WORDS == "".join(getattr(piece, "text", "") for piece in seen)
    assert (reply.replica, reply.moved) == ("b", "lost")
    assert world.served() == {"a": 1, "b": 1}


async def test_garbage_in_a_reply_that_had_begun_is_asked_for_again_elsewhere(world: Any) -> None:
    pool = world.pool()
    world["a"].fail(Fault.garbage(after=5), times=1)

    reply = await Persistent(pool).complete(ask(session="s"))

    assert (reply.text, reply.replica) == (WORDS, "b")


async def test_a_reply_that_breaks_off_again_and_again_goes_somewhere_else_each_time(
    world: Any,
) -> None:
    pool = world.pool("abc")
    for name in "ab":
        world[name].fail(Fault.cut(after=5))

    reply = await Persistent(pool).complete(ask(session="s"))

    assert (reply.text, reply.replica) == (WORDS, "c")
    assert world.served() == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize(
    ("fault", "condition"),
    [
        (Fault.status(500), "up"),
        (Fault.html(502), "up"),
        (Fault.html(200), "up"),
        (Fault.hang_up(), "up"),
        (Fault.status(503), "resting"),
        (Fault.status(429, retry_after=9), "resting"),
    ],
)
async def test_a_replica_that_fails_once_has_another_answer_at_once(
    world: Any, fault: Any, condition: str
) -> None:
    pool = world.pool()
    world["a"].fail(fault, times=1)

    reply = await pool.complete(ask())

    assert (reply.replica, reply.attempts) == ("b", 2)
    assert now() < 1.0
    assert conditions(pool) == {"a": condition, "b": "up"}


async def test_a_replica_that_failed_three_times_in_a_row_is_left_alone(world: Any) -> None:
    pool = world.pool(policy=LeastLoaded())
    world["a"].fail(Fault.status(500))

    for _ in range(4):
        await pool.complete(ask())

    assert world.served() == {"a": 3, "b": 4}
    assert conditions(pool) == {"a": "down", "b": "up"}
    assert "failed (500)" in pool.replicas[0].complaint


async def test_a_replica_that_is_back_gets_one_request_and_then_all(world: Any) -> None:
    pool = world.pool(policy=LeastLoaded())
    world["a"].fail(Fault.status(500), times=3)
    for _ in range(3):
        await pool.complete(ask())
    assert conditions(pool)["a"] == "down"
    await asyncio.sleep(1.0)
    await pool.complete(ask())  # it is asked whether it is there meanwhile

    assert conditions(pool)["a"] == "trying"
    replies = await asyncio.gather(*[pool.complete(ask()) for _ in range(4)])

    assert sorted(reply.replica for reply in replies) == ["a", "b", "b", "b"]
    assert conditions(pool)["a"] == "up"


async def test_one_that_fails_its_trial_is_left_alone_for_longer(world: Any) -> None:
    pool = world.pool(policy=LeastLoaded())
    world["a"].fail(Fault.status(500))
    for _ in range(60):
        await pool.complete(ask())  # 0.4 s each

    assert 5 <= world.served()["a"] <= 8  # 3 at first, then after 1, 2, 4, 8 s


async def test_a_rejected_request_is_nobodys_fault_but_its_own(world: Any) -> None:
    pool = world.pool()
    for name in "ab":
        world[name].fail(Fault.status(400, "too long"))

    for _ in range(5):
        with pytest.raises(BackendRejected, match="too long"):
            await pool.complete(ask())

    assert sum(world.served().values()) == 5
    assert conditions(pool) == {"a": "up", "b": "up"}
    assert [replica.failures for replica in pool.replicas] == [0, 0]


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_replica_with_another_key_or_other_models_is_left_alone(
    world: Any, status: int
) -> None:
    pool = world.pool(policy=LeastLoaded())
    world["a"].fail(Fault.status(status))

    replies = [await pool.complete(ask()) for _ in range(4)]

    assert {reply.replica for reply in replies} == {"b"}
    assert conditions(pool) == {"a": "down", "b": "up"}


async def test_what_every_replica_refuses_is_an_error_at_once(world: Any) -> None:
    pool = world.pool()
    for name in "ab":
        world[name].fail(Fault.status(401, "no such key"))

    for _ in range(8):
        began = now()
        with pytest.raises(BackendRejected, match="no such key"):
            await pool.complete(ask())
        assert now() - began < 1.0


async def test_a_busy_replica_rests_as_long_as_it_asked_to(world: Any) -> None:
    pool = world.pool(policy=LeastLoaded())
    world["a"].fail(Fault.status(429, retry_after=20), times=1)

    times = []
    for _ in range(60):
        times.append((now(), (await pool.complete(ask())).replica))

    assert min(at for at, name in times if name == "a") == pytest.approx(20.0, abs=1.0)


async def test_all_busy_waits_for_the_first_that_is_free_again(world: Any) -> None:
    pool = world.pool()
    world["a"].fail(Fault.status(429, retry_after=40), times=1)
    world["b"].fail(Fault.status(429, retry_after=7), times=1)

    reply = await pool.complete(ask())

    assert (reply.replica, reply.attempts) == ("b", 3)
    assert 7.0 <= now() < 8.0


async def test_a_rest_may_be_longer_than_the_patience_with_replicas_that_are_gone(
    world: Any,
) -> None:
    pool = world.pool(patience=30.0)
    for name in "ab":
        world[name].fail(Fault.status(429, retry_after=45), times=1)

    reply = await pool.complete(ask())

    assert reply.text == WORDS
    assert 45.0 <= now() < 46.0


async def test_nobody_waits_for_another_attempt_beyond_the_deadline(world: Any) -> None:
    pool = world.pool()
    for name in "ab":
        world[name].fail(Fault.status(500))
    request = ask()
    request.session = SessionTag("s", deadline=0.2)

    with pytest.raises(BackendError, match=r"failed \(500\)"):
        await pool.complete(request)

    assert now() < 0.2


async def test_servers_that_are_all_broken_are_tried_for_as_long_as_the_pool_is_patient(
    world: Any,
) -> None:
    pool = world.pool(patience=20.0)
    for name in "ab":
        world[name].fail(Fault.status(500))

    with pytest.raises(NoReplica, match=r"a: .*failed \(500\).*b: .*failed \(500\)") as caught:
        await pool.complete(ask())

    assert now() == pytest.approx(20.0, abs=0.1)
    assert 8 < sum(world.served().values()) < 20
    assert isinstance(caught.value.__cause__, BackendError)


async def test_servers_that_were_all_broken_and_are_well_again_lose_no_request(world: Any) -> None:
    pool = world.pool(patience=20.0)
    for name in "ab":
        world[name].fail(Fault.status(500))
    asyncio.get_running_loop().call_later(5.0, world["b"].recover)

    reply = await pool.complete(ask())

    assert reply.replica == "b"
    assert 5.0 < now() < 20.0


async def test_a_request_that_servers_break_at_is_repeated_as_often_as_the_policy_says(
    world: Any,
) -> None:
    def breaks(call: ChatCall) -> Any:
        return Fault.status(500) if "poison" in str(call.messages) else WORDS

    world.replica("a", model=breaks)
    pool = world.pool("a", policy=LeastLoaded())

    async def others() -> None:
        while True:
            await pool.complete(ask())

    busy = asyncio.ensure_future(others())
    with pytest.raises(BackendError, match=r"failed \(500\)"):
        await pool.complete(ask("poison"))
    busy.cancel()

    assert now() < 10.0
    asked = [request for request in world["a"].requests if "poison" in str(request.body)]
    assert len(asked) == 3


async def test_a_request_that_failed_once_may_be_held_for_longer_than_the_patience(
    world: Any,
) -> None:
    world.replica("a", Serving(prefill=10_000.0, step=0.1, capacity=100_000, slots=1))
    world["a"].fail(Fault.status(500), times=4)
    pool = world.pool("a", patience=5.0)

    replies = await asyncio.gather(*[pool.complete(ask(f"{i}", words=100)) for i in range(3)])

    assert now() > 20.0
    assert [reply.text.count("word") for reply in replies] == [100] * 3


async def test_without_retries_broken_servers_are_asked_once_each(world: Any) -> None:
    pool = world.pool(retry=RetryPolicy(max_retries=0))
    for name in "ab":
        world[name].fail(Fault.status(500))

    with pytest.raises(BackendError, match=r"failed \(500\)"):
        await pool.complete(ask())

    assert world.served() == {"a": 1, "b": 1}


async def test_other_failures_of_all_are_repeated_as_often_as_the_policy_says(world: Any) -> None:
    pool = world.pool(retry=RetryPolicy(max_retries=1))
    for name in "ab":
        world[name].fail(Fault.hang_up())

    with pytest.raises(BackendError):
        await pool.complete(ask())

    assert sum(world.served().values()) == 3


async def test_html_from_all_is_a_bad_reply_at_once(world: Any) -> None:
    pool = world.pool()
    for name in "ab":
        world[name].fail(Fault.html())

    with pytest.raises(BadReply):
        await pool.complete(ask())

    assert world.served() == {"a": 1, "b": 1}


async def test_all_down_is_an_error_that_names_each_and_why(world: Any) -> None:
    pool = world.pool(patience=30.0)
    for name in "ab":
        world[name].kill()

    with pytest.raises(NoReplica) as caught:
        await pool.complete(ask())

    assert 29.0 <= now() <= 32.0
    assert set(caught.value.replicas) == {"a", "b"}
    assert all("http://" in why for why in caught.value.replicas.values())
    assert "a: http://a/v1" in str(caught.value) and isinstance(
        caught.value.__cause__, BackendUnreachable
    )


async def test_who_waits_while_all_are_down_is_served_by_the_first_that_is_back(
    world: Any,
) -> None:
    pool = world.pool()
    for name in "ab":
        world[name].kill()
    asking = asyncio.gather(*[pool.complete(ask(f"{i}")) for i in range(5)])
    await asyncio.sleep(10.0)
    await world["b"].restart()

    replies = await asking

    assert {reply.replica for reply in replies} == {"b"}
    assert now() < 30.0
    assert all(reply.held > 9.0 for reply in replies)


async def test_the_deadline_ends_the_wait_for_a_replica(world: Any) -> None:
    pool = world.pool()
    for name in "ab":
        world[name].kill()
    request = ask()
    request.session = SessionTag("s", deadline=3.0)

    with pytest.raises(NoReplica, match=r"a: .*; b: .*") as caught:
        await pool.complete(request)

    assert now() == pytest.approx(3.0)
    assert not caught.value.retryable


async def test_a_replica_that_hangs_is_given_up_and_its_requests_move(world: Any) -> None:
    pool = world.pool(policy=LeastLoaded())
    await asyncio.gather(*[pool.complete(ask()) for _ in range(4)])
    world["a"].hang()
    began = now()

    replies = await asyncio.gather(*[pool.complete(ask(f"{i}")) for i in range(6)])

    assert {reply.replica for reply in replies} == {"b"}
    assert 5.0 <= now() - began <= 11.0
    assert conditions(pool) == {"a": "down", "b": "up"}
    assert "seems to hang" in pool.replicas[0].complaint


async def test_a_stream_that_hangs_with_its_replica_ends_as_stalled(world: Any) -> None:
    pool = world.pool()
    asyncio.get_running_loop().call_later(0.2, world["a"].hang)
    seen: list[Any] = []

    with pytest.raises(BackendTimeout, match="seems to hang") as caught:
        await pool.complete(ask(), seen.append)

    assert seen and caught.value.retryable
    assert now() <= 11.0


async def test_a_replica_that_only_makes_others_wait_is_alive(world: Any) -> None:
    slow = Serving(prefill=10_000.0, step=0.5, capacity=100_000, slots=1)
    for name in "ab":
        world.replica(name, slow)
    pool = world.pool(policy=LeastLoaded())

    replies = await asyncio.gather(*[pool.complete(ask(f"{i}")) for i in range(8)])

    assert {reply.attempts for reply in replies} == {1}
    assert now() > 60.0  # the last waited for three others of 20 s


async def test_a_replica_nobody_listens_to_does_not_hang(world: Any) -> None:
    pool = world.pool()
    async with pool.stream(ask()) as stream:
        await asyncio.sleep(60.0)  # whoever asked is busy
        async for _ in stream:
            pass

    assert stream.reply.text == WORDS
    assert conditions(pool) == {"a": "up", "b": "up"}


async def test_silence_counts_from_when_somebody_began_to_listen(world: Any) -> None:
    pool = world.pool()
    loop = asyncio.get_running_loop()
    async with pool.stream(ask()) as stream:
        await anext(aiter(stream))
        world["a"].hang()
        loop.call_later(62.0, world["a"].recover)
        await asyncio.sleep(60.0)  # whoever asked is busy
        async for _ in stream:
            pass

    assert stream.reply.text == WORDS


async def test_the_only_replica_is_not_given_up_for_its_silence(world: Any) -> None:
    pool = world.pool("a", timeouts=Timeouts(first_token=50.0))
    await pool.complete(ask())
    world["a"].hang()
    asyncio.get_running_loop().call_later(30.0, world["a"].recover)

    reply = await pool.complete(ask())

    assert reply.attempts == 1 and now() >= 30.0


async def test_what_a_restarted_replica_held_is_forgotten(world: Any) -> None:
    pool = world.pool("a")
    long = "much to be known " * 500
    held: list[int] = []
    await pool.complete(ask(long, "s"))
    assert (await pool.complete(ask(long, "s"))).usage.cached_tokens > 1000
    world["a"].kill()
    fleet = pool._desk.dispatcher.fleet
    assert len(fleet.replicas["a"].residency) > 10
    asyncio.get_running_loop().call_later(
        4.0, lambda: held.append(len(fleet.replicas["a"].residency))
    )
    asyncio.get_running_loop().call_later(5.0, lambda: asyncio.ensure_future(world["a"].restart()))

    reply = await pool.complete(ask(long, "s"))

    assert reply.usage.cached_tokens == 0
    assert held == [0]


@pytest.mark.parametrize(
    "lie", [lambda cached: 10**9, lambda cached: None, lambda cached: -5, lambda cached: 0]
)
async def test_wrong_counts_of_cached_tokens_break_nothing(
    world: Any, lie: Callable[[int], int | None]
) -> None:
    pool = world.pool()
    for name in "ab":
        world[name].report(lie)

    replies = [await pool.complete(ask("text " * 300 * i, "s")) for i in range(1, 6)]

    assert all(reply.text == WORDS for reply in replies)
