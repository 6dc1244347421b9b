"""What is known of a next prompt is computed early, where nobody has to wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from decimal import Decimal
from typing import Any

import pytest

from agentflow.budgets.budget import Budget
from agentflow.budgets.ledger import Ledger
from agentflow.budgets.prices import Price
from agentflow.caches.affinity.dispatcher import Dispatcher
from agentflow.caches.affinity.jobs import Job, Pause
from agentflow.caches.affinity.policies import Sticky
from agentflow.caches.affinity.prompts import Prompt
from agentflow.caches.affinity.rates import Rates
from agentflow.caches.affinity.warming import pays
from agentflow.errors import BackendUnreachable
from agentflow.executor.affinity.prewarm import AGAIN, Prewarmer
from agentflow.executor.models.base import ChatRequest, Reply, SessionTag, Usage

pytestmark = pytest.mark.virtual

# The decision

LONG = Pause(100.0, 200.0)


def prompt(session: str, blocks: int) -> Prompt:
    return Prompt(tuple((session, at) for at in range(blocks)), 64 * blocks)


class Fleet:
    """One replica (1,000 tokens a second), and sessions that have been answered there."""

    def __init__(self) -> None:
        self.dispatcher = Dispatcher(Sticky())
        self.dispatcher.join("a", 0.0, capacity=64_000, rates=Rates(prefill=1000.0, decode=0.01))
        self.now = 0.0
        self._number = 0

    def ask(self, session: str, blocks: int) -> int:
        self._number += 1
        job = Job(self._number, session, prompt(session, blocks), 10, self.now, returns=True)
        self.dispatcher.arrive(job, self.now)
        return self._number

    def answered(self, session: str, blocks: int, pause: Pause | None) -> None:
        number = self.ask(session, blocks)
        self.now += 64 * blocks / 1000
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


# Carrying it out


def request(text: str, session: str = "s") -> ChatRequest:
    return ChatRequest(
        messages=[{"role": "user", "content": text}],
        max_tokens=500,
        session=SessionTag(session),
    )


class Warms:
    """Stands where a pool stands: takes what it is given when there is a place."""

    def __init__(self, *, seconds: float = 1.0) -> None:
        self.begun: list[ChatRequest] = []
        self.done: list[str] = []
        self.free = True
        self.broken = False
        self.seconds = seconds

    async def warm(self, request: ChatRequest) -> Reply | None:
        if not self.free:
            return None
        self.begun.append(request)
        if self.broken:
            raise BackendUnreachable("gone", url="http://a/v1")
        await asyncio.sleep(self.seconds)
        self.done.append(request.messages[-1]["content"])
        return Reply(text="", usage=Usage(100, 1, 60))


def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work)


async def test_one_token_is_asked_for() -> None:
    pool = Warms()
    Prewarmer(pool.warm, Ledger(), spawn).know(request("a"))
    await asyncio.sleep(2.0)
    assert [it.max_tokens for it in pool.begun] == [1]


async def test_what_is_learnt_meanwhile_follows_and_what_was_overtaken_does_not() -> None:
    pool = Warms()
    prewarmer = Prewarmer(pool.warm, Ledger(), spawn)
    prewarmer.know(request("a"))
    await asyncio.sleep(0.5)
    prewarmer.know(request("a b"))
    prewarmer.know(request("a b c"))
    await asyncio.sleep(5.0)
    assert pool.done == ["a", "a b c"]


async def test_a_place_that_is_free_later_is_taken_then() -> None:
    pool = Warms()
    pool.free = False
    Prewarmer(pool.warm, ledger := Ledger(), spawn).know(request("a"))
    await asyncio.sleep(3.0)
    assert not pool.begun and ledger.reserved.tokens == 0
    pool.free = True
    await asyncio.sleep(AGAIN + 1.0)
    assert pool.done == ["a"]


async def test_when_the_session_is_back_what_is_under_way_is_withdrawn() -> None:
    pool = Warms(seconds=60.0)
    prewarmer = Prewarmer(pool.warm, ledger := Ledger(), spawn)
    prewarmer.know(request("a"))
    await asyncio.sleep(1.0)
    prewarmer.stop()
    await asyncio.sleep(100.0)
    assert pool.begun and not pool.done
    assert ledger.reserved.tokens == 0 and ledger.spent.tokens > 0


async def test_a_prewarmer_that_was_stopped_can_begin_again() -> None:
    pool = Warms()
    prewarmer = Prewarmer(pool.warm, Ledger(), spawn)
    prewarmer.stop()
    prewarmer.know(request("a"))
    prewarmer.stop()
    prewarmer.know(request("b"))
    await asyncio.sleep(5.0)
    assert pool.done == ["b"]


async def test_it_is_charged_for() -> None:
    pool = Warms()
    price = Price(Decimal(1), Decimal(2), Decimal("0.5"))
    ledger = Ledger(Budget(usd=1.0))
    Prewarmer(pool.warm, ledger, spawn, price=price, paid=True).know(request("a"))
    await asyncio.sleep(2.0)
    assert ledger.spent.tokens == 101
    assert ledger.spent.usd == Decimal("0.000072")  # 40 computed, 60 cached, 1 written
    assert ledger.reserved.tokens == 0


async def test_a_model_that_costs_money_is_not_asked_unless_that_is_allowed() -> None:
    pool = Warms()
    price = Price(Decimal(1), Decimal(2))
    Prewarmer(pool.warm, Ledger(), spawn, price=price).know(request("a"))
    await asyncio.sleep(2.0)
    assert not pool.begun


async def test_nothing_is_asked_for_that_the_budget_does_not_allow() -> None:
    pool = Warms()
    ledger = Ledger(Budget(tokens=5))
    Prewarmer(pool.warm, ledger, spawn).know(request("a"))
    await asyncio.sleep(2.0)
    assert not pool.begun and ledger.spent.tokens == 0


async def test_what_goes_wrong_is_not_tried_again() -> None:
    pool = Warms()
    pool.broken = True
    Prewarmer(pool.warm, ledger := Ledger(), spawn).know(request("a"))
    await asyncio.sleep(10.0)
    assert len(pool.begun) == 1 and ledger.reserved.tokens == 0


async def test_a_prompt_that_was_warmed_in_a_pool_is_cached_when_it_comes(world: Any) -> None:
    pool = world.pool("ab")
    first = await pool.complete(request("begins so " * 100))
    pool.away("s", LONG)
    known = request("begins so " * 100)
    known.messages = [*known.messages, first.as_message(), *request("went on " * 300).messages]
    Prewarmer(pool.warm, Ledger(), spawn).know(known)
    await asyncio.sleep(50.0)

    known.max_tokens = 4
    reply = await pool.complete(known)

    assert reply.replica == first.replica
    assert (reply.usage.cached_tokens or 0) > 0.9 * reply.usage.prompt_tokens
