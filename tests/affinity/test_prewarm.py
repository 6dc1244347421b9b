"""What is known of a next prompt is computed early, where nobody has to wait for it."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from agentflow.caches.affinity.dispatcher import Dispatcher
from agentflow.caches.affinity.jobs import Job, Pause
from agentflow.caches.affinity.policies import Sticky
from agentflow.caches.affinity.prompts import Prompt
from agentflow.caches.affinity.rates import Rates
from agentflow.caches.affinity.warming import pays
from agentflow.clock import now
from agentflow.errors import BackendError, BackendRejected
from agentflow.executor.affinity.prewarm import SELDOM, Prewarmer
from agentflow.executor.models.base import ChatRequest, Reply, SessionTag, Usage

pytestmark = pytest.mark.virtual

# The decision

LONG = Pause(100.0, 200.0)


def prompt(session: str, blocks: int) -> Prompt:
    return Prompt(tuple((session, at) for at in range(blocks)), 64 * blocks)


class Fleet:
    """One replica (1,000 tokens a second), and sessions that have been answered there."""

    def __init__(self, capacity: int = 64_000) -> None:
        self.dispatcher = Dispatcher(Sticky())
        rates = Rates(prefill=1000.0, decode=0.01)
        self.dispatcher.join("a", 0.0, capacity=capacity, rates=rates)
        self.now = 0.0
        self._number = 0

    def ask(self, session: str, blocks: int) -> int:
        self._number += 1
        job = Job(self._number, session, prompt(session, blocks), 10, self.now, returns=True)
        self.dispatcher.arrive(job, self.now)
        return self._number

    def answered(
        self, session: str, blocks: int, pause: Pause | None, seconds: float | None = None
    ) -> None:
        number = self.ask(session, blocks)
        self.now += 64 * blocks / 1000 if seconds is None else seconds
        self.dispatcher.began(number, self.now)
        self.now += 0.1
        self.dispatcher.finished(number, self.now, prompt=64 * blocks, made=11)
        self.dispatcher.away(session, pause, self.now)

    def pays(self, session: str, blocks: int, **options: Any) -> bool:
        job = Job(0, session, prompt(session, blocks), 1, self.now, optional=True, **options)
        return pays(job, self.dispatcher.fleet, self.now)


def fleet(pause: Pause | None = LONG) -> Fleet:
    made = Fleet()
    made.answered("s", 10, pause)
    return made


def test_new_results_are_computed_while_the_session_is_away() -> None:
    assert fleet().pays("s", 20)


def test_what_is_there_already_is_not_computed() -> None:
    assert not fleet().pays("s", 10)


def test_a_session_that_is_back_before_it_is_done_is_left_alone() -> None:
    assert not fleet(Pause(0.5, 0.6)).pays("s", 20)
    assert fleet(Pause(5.0, 6.0)).pays("s", 20)


def test_of_a_session_that_may_be_back_at_any_time_nothing_is_known() -> None:
    assert not fleet(None).pays("s", 20)
    assert not fleet().pays("another", 20)


def test_nothing_is_computed_where_somebody_else_is_served() -> None:
    busy = fleet()
    busy.ask("other", 5)
    assert not busy.pays("s", 20)


def test_nothing_is_computed_for_a_session_that_is_back() -> None:
    back = fleet()
    number = back.ask("s", 20)
    back.dispatcher.began(number, back.now)
    assert not back.pays("s", 30)


def test_nothing_is_computed_at_a_replica_that_is_gone() -> None:
    gone = fleet()
    gone.dispatcher.usable("a", False, 0.0)
    assert not gone.pays("s", 20)


def test_nothing_is_computed_for_a_prompt_that_comes_after_the_deadline() -> None:
    assert not fleet().pays("s", 20, deadline=50.0)
    assert fleet().pays("s", 20, deadline=500.0)


def crowded(*order: str, capacity: int = 130) -> Fleet:
    """Sessions that were answered in this order; of ``s`` 100 blocks are worth keeping."""
    made = Fleet(64 * capacity)
    for session in order:
        if session == "s":
            made.answered("s", 100, Pause(3.0, 4.0))
        else:
            made.answered(session, 25, None, seconds=0.1)
    return made


def test_what_is_there_is_used_again_before_it_is_evicted() -> None:
    assert crowded("s", "other").pays("s", 100)


def test_what_was_used_last_is_not_used_again() -> None:
    assert not crowded("other", "s").pays("s", 100)


def test_what_will_still_be_there_is_not_used_again() -> None:
    assert not crowded("s", "other", capacity=1000).pays("s", 100)


def test_whose_place_was_given_up_is_not_kept_there() -> None:
    given_up = crowded("s", "other")
    given_up.dispatcher.fleet.unpin(given_up.dispatcher.fleet.replicas["a"], "s")
    assert not given_up.pays("s", 100)


# Carrying it out


def request(text: str, session: str = "s") -> ChatRequest:
    return ChatRequest(
        messages=[{"role": "user", "content": text}],
        max_tokens=1,
        session=SessionTag(session),
    )


class Warms:
    """Stands where a pool stands: takes what it is given when there is a place."""

    def __init__(self, *, seconds: float = 1.0) -> None:
        self.begun: list[float] = []
        self.done: list[str] = []
        self.free = True
        self.broken: BackendError | None = None
        self.seconds = seconds

    async def warm(self, request: ChatRequest) -> Reply | None:
        text = request.messages[-1]["content"]
        if not self.free or text in self.done:
            return None
        self.begun.append(now())
        if self.broken is not None:
            raise self.broken
        await asyncio.sleep(self.seconds)
        self.done.append(text)
        return Reply(text="", usage=Usage(100, 1, 60))


def prewarmer(pool: Any) -> Prewarmer:
    return Prewarmer(pool.warm, asyncio.get_running_loop().create_task)


async def test_what_is_learnt_meanwhile_follows_and_what_was_overtaken_does_not() -> None:
    pool = Warms()
    ahead = prewarmer(pool)
    ahead.know(request("a"))
    await asyncio.sleep(0.5)
    ahead.know(request("a b"))
    ahead.know(request("a b c"))
    await asyncio.sleep(5.0)
    ahead.stop()
    assert pool.done == ["a", "a b c"]


async def test_what_is_learnt_between_two_looks_is_computed_at_once() -> None:
    pool = Warms()
    ahead = prewarmer(pool)
    ahead.know(request("a"))
    await asyncio.sleep(100.0)
    ahead.know(request("a b"))
    await asyncio.sleep(1.1)
    ahead.stop()
    assert pool.done == ["a", "a b"]


async def test_a_place_that_is_free_later_is_taken_then() -> None:
    pool = Warms()
    pool.free = False
    ahead = prewarmer(pool)
    ahead.know(request("a"))
    await asyncio.sleep(3.0)
    assert not pool.begun
    pool.free = True
    await asyncio.sleep(3.0 * SELDOM + 1.0)
    ahead.stop()
    assert pool.done == ["a"]


async def test_what_is_evicted_again_is_computed_more_and_more_seldom() -> None:
    pool = Warms(seconds=0.0)
    ahead = prewarmer(pool)
    ahead.know(request("a"))
    for _ in range(1000):
        await asyncio.sleep(0.1)
        pool.done.clear()
    ahead.stop()
    gaps = [after - before for before, after in itertools.pairwise(pool.begun)]
    assert len(pool.begun) < 30
    assert gaps[0] < 1.0 and gaps[-1] > 10.0


async def test_what_gave_way_is_tried_again() -> None:
    pool = Warms()
    pool.broken = BackendError("a request needs the place", url="http://a/v1")
    ahead = prewarmer(pool)
    ahead.know(request("a"))
    await asyncio.sleep(0.1)
    pool.broken = None
    await asyncio.sleep(5.0)
    ahead.stop()
    assert pool.done == ["a"]


async def test_a_server_that_refuses_such_prompts_is_asked_no_more() -> None:
    pool = Warms()
    pool.broken = BackendRejected("no result for a call", url="http://a/v1", status=400)
    ahead = prewarmer(pool)
    ahead.know(request("a"))
    await asyncio.sleep(5.0)
    ahead.know(request("a b"))
    await asyncio.sleep(5.0)
    ahead.stop()
    assert len(pool.begun) == 1


async def test_when_the_session_is_back_what_is_under_way_is_withdrawn() -> None:
    pool = Warms(seconds=60.0)
    ahead = prewarmer(pool)
    ahead.know(request("a"))
    await asyncio.sleep(1.0)
    ahead.stop()
    await asyncio.sleep(100.0)
    assert len(pool.begun) == 1 and not pool.done


async def test_a_prewarmer_that_was_stopped_can_begin_again() -> None:
    pool = Warms()
    ahead = prewarmer(pool)
    ahead.stop()
    ahead.know(request("a"))
    ahead.stop()
    ahead.know(request("b"))
    await asyncio.sleep(5.0)
    ahead.stop()
    assert pool.done == ["b"]


async def test_of_a_new_session_only_what_is_much_longer_is_computed() -> None:
    pool = Warms()
    ahead = prewarmer(pool)
    for text in ("a " * 300, "a " * 330, "a " * 900):
        ahead.know(request(text), lives=False)
        await asyncio.sleep(20.0)
    pool.done.clear()
    await asyncio.sleep(20.0)
    ahead.stop()
    assert len(pool.begun) == 2
