"""What servers tell of other clients' requests counts where requests of this pool go."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest

from agentflow.caches.affinity.completion import EarliestCompletion
from agentflow.caches.affinity.dispatcher import Dispatcher
from agentflow.caches.affinity.jobs import Job, Pause
from agentflow.caches.affinity.load import NOTHING, OLD, Load
from agentflow.caches.affinity.policies import LeastLoaded, Policy, Sticky
from agentflow.caches.affinity.prompts import Prompt
from agentflow.caches.affinity.residency import Residency
from agentflow.caches.affinity.warming import pays
from agentflow.executor.affinity.metrics import PERIOD, ServerState
from agentflow.executor.models.base import ChatRequest, SessionTag
from agentflow.executor.models.client import OpenAIBackend
from agentflow.testing import Serving

pytestmark = pytest.mark.virtual

SERVING = Serving(prefill=20_000.0, step=0.02, per_sequence=0.002, capacity=200_000)
BLOCK = 64
_numbers = count(1)


def ask(session: str, words: int = 20) -> ChatRequest:
    text = f"{session}: " + "and so on " * 100
    return ChatRequest(
        messages=[{"role": "user", "content": text}], max_tokens=words, session=SessionTag(session)
    )


@asynccontextmanager
async def hammered(world: Any, name: str, clients: int = 12) -> AsyncIterator[None]:
    """Another client keeps a replica busy."""
    backend = OpenAIBackend(f"http://{name}/v1", "modelled", http=world.http)

    async def client(number: int) -> None:
        while True:
            await backend.complete(ask(f"foreign {number}", 200))

    tasks = [asyncio.create_task(client(number)) for number in range(clients)]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def homes(pool: Any, round_: str, sessions: int = 8) -> Counter[str]:
    """Where new sessions go that are open at the same time."""
    asked = [pool.complete(ask(f"{round_} {number}")) for number in range(sessions)]
    replies = await asyncio.gather(*asked)
    for number in range(sessions):
        pool.ended(f"{round_} {number}")
    return Counter(reply.replica for reply in replies)


async def look(pool: Any) -> None:
    """Be busy until the servers have been looked at again."""
    until = asyncio.get_running_loop().time() + 1.5 * PERIOD
    while asyncio.get_running_loop().time() < until:
        await pool.complete(ask("busy", 50))


@pytest.mark.parametrize("policy", [EarliestCompletion, LeastLoaded])
async def test_new_sessions_go_where_no_other_client_is_until_it_stops(
    world: Any, policy: type[EarliestCompletion | LeastLoaded]
) -> None:
    for name in "ab":
        world.replica(name, SERVING, server="vllm")
    pool = world.pool("ab", policy=policy())
    await look(pool)
    before = await homes(pool, "before")

    async with hammered(world, "a"):
        await look(pool)
        during = [await homes(pool, f"during {again}") for again in range(5)]
    await look(pool)
    after = await homes(pool, "after")

    assert min(before["a"], before["b"]) >= 3
    assert during == [{"b": 8}] * 5
    assert min(after["a"], after["b"]) >= 3


async def test_without_a_page_that_tells_it_other_clients_are_not_seen(world: Any) -> None:
    for name in "ab":
        world.replica(name, SERVING)
    pool = world.pool("ab", policy=LeastLoaded())

    async with hammered(world, "a"):
        await look(pool)
        during = await homes(pool, "during")

    assert during == {"a": 4, "b": 4}


async def test_two_pools_over_the_same_replicas_divide_them(world: Any) -> None:
    for name in "abcd":
        world.replica(name, SERVING, server="vllm")
    pools = [world.pool("abcd") for _ in range(2)]

    async def agent(pool: Any, name: str) -> list[str]:
        replies = [await pool.complete(ask(name, 100)) for _ in range(20)]
        pool.ended(name)
        return [reply.moved for reply in replies if reply.moved]

    agents = []
    for number in range(32):
        agents.append(asyncio.create_task(agent(pools[number % 2], f"agent {number}")))
        await asyncio.sleep(1.0)
    moved = [why for each in await asyncio.gather(*agents) for why in each]
    served = sorted(world.served().values())

    assert not moved
    assert served[-1] < 1.5 * served[0]


async def test_requests_that_are_there_while_a_server_is_asked_are_known_as_its_own(
    world: Any,
) -> None:
    world.replica("a", SERVING, server="vllm")
    pool = world.pool("a")
    under_way = asyncio.create_task(pool.complete(ask("long", 1000)))
    await asyncio.sleep(1.5 * PERIOD)

    replica = pool._desk.dispatcher.fleet.replicas["a"]
    assert (len(replica.asked), replica.others) == (1, NOTHING)
    await under_way


# Decisions


def job(session: str = "s", blocks: int = 10, **options: Any) -> Job:
    prompt = Prompt(tuple((session, index) for index in range(blocks)), BLOCK * blocks)
    return Job(next(_numbers), session, prompt, 50.0, 0.0, **options)


def dispatcher(policy: Policy, **options: Any) -> Dispatcher:
    made = Dispatcher(policy, block=BLOCK)
    for name in "ab":
        made.join(name, 0.0, **options)
    return made


def where(made: Dispatcher, wanted: Job, now: float = 0.0) -> str:
    (sent,) = made.arrive(wanted, now)
    return sent.replica


def test_what_others_have_is_what_is_not_ones_own() -> None:
    assert Load(5, 2, 900.0).beyond(Load(3, 1, 400.0)) == Load(2, 1, 500.0)
    assert Load(5, 4, 900.0).beyond(Load(3, 0, 400.0)) == Load(2, 2, 500.0)
    assert Load(2, 1, 900.0).beyond(Load(3, 1, 400.0)) == NOTHING


def test_ones_own_requests_are_no_others_though_they_end_while_the_server_answers() -> None:
    made = dispatcher(LeastLoaded())
    flying = job()
    assert where(made, flying) == "a"
    made.fleet.asks("a")
    made.began(flying.number, 0.5)
    made.finished(flying.number, 1.0, made=50)

    made.observed("a", 1.0, load=Load(1, 0, 700.0))
    assert made.fleet.replicas["a"].others == NOTHING

    made.fleet.asks("a")
    made.observed("a", 6.0, load=Load(1, 0, 700.0))
    assert made.fleet.replicas["a"].others == Load(1, 0, 700.0)


@pytest.mark.parametrize("policy", [EarliestCompletion(), LeastLoaded()])
def test_what_was_told_long_ago_is_forgotten(policy: Policy) -> None:
    made = dispatcher(policy)
    made.observed("a", 0.0, load=Load(8, 0))

    assert where(made, job("x"), OLD - 1.0) == "b"
    assert where(made, job("y"), OLD + 1.0) == "a"


def test_a_request_waits_behind_those_of_others_that_wait() -> None:
    made = dispatcher(EarliestCompletion())
    made.observed("a", 0.0, load=Load(3, 0))
    made.observed("b", 0.0, load=Load(3, 3))

    assert [where(made, job(str(number))) for number in range(2)] == ["a", "a"]


def test_a_request_waits_for_a_slot_where_others_have_all() -> None:
    made = dispatcher(EarliestCompletion(), slots=4)
    made.observed("a", 0.0, load=Load(4, 0))
    made.observed("b", 0.0, load=Load(5, 0), slots=64)
    assert where(made, job("one")) == "b"

    made.observed("a", 1.0, load=Load(4, 0))
    made.observed("b", 1.0, load=Load(80, 0))
    assert where(made, job("two"), 1.0) == "a"  # nobody is held for it: others might never leave


def test_a_session_stays_at_home_beside_a_few_others_and_leaves_many() -> None:
    for others, home in ((4, "a"), (400, "b")):
        made = dispatcher(EarliestCompletion())
        for number in range(20):  # replies take longer beside others
            made.fleet.replicas["a"].rates.wrote(100, 2.0 + 0.2 * number, 1 + number)
            made.fleet.replicas["b"].rates.wrote(100, 2.0 + 0.2 * number, 1 + number)
        first = job("s", returns=True)
        assert where(made, first) == "a"
        made.began(first.number, 0.1)
        made.finished(first.number, 1.0, made=50)
        made.observed("a", 1.0, load=Load(others, 0))
        assert where(made, job("s", 12, returns=True), 1.5) == home


def test_a_hash_of_the_session_knows_no_load() -> None:
    busy, idle = dispatcher(Sticky()), dispatcher(Sticky())
    busy.observed("a", 0.0, load=Load(50, 50))
    names = [str(number) for number in range(20)]
    assert [where(busy, job(name)) for name in names] == [where(idle, job(name)) for name in names]


def test_nothing_is_computed_early_where_others_would_wait_for_it() -> None:
    made = dispatcher(EarliestCompletion())
    first = job("s", returns=True)
    home = where(made, first)
    made.began(first.number, 0.1)
    made.finished(first.number, 1.0, made=50)
    made.away("s", Pause(60.0, 90.0), 1.0)
    more = job("s", 40, optional=True)
    assert pays(more, made.fleet, 1.5)

    made.observed(home, 1.5, load=Load(1, 0))

    assert not pays(more, made.fleet, 1.5)
    assert made.arrive(more, 1.5) == []


def test_rates_are_those_beside_everybodys_requests() -> None:
    made = Dispatcher(LeastLoaded(), block=BLOCK)
    made.join("a", 0.0)
    for number in range(20):
        others, token = (9, 0.1) if number % 2 else (0, 0.02)
        began, one = 20.0 * number, job(str(number))
        made.observed("a", began, load=Load(others))
        where(made, one, began)
        made.began(one.number, began + 0.1)
        made.finished(one.number, began + 0.1 + 100 * token, made=101)

    rates = made.fleet.replicas["a"].rates
    assert rates.decode(1) == pytest.approx(0.02, rel=0.1)
    assert rates.decode(10) == pytest.approx(0.1, rel=0.1)


def test_what_waited_behind_others_says_nothing_of_how_fast_prompts_are() -> None:
    made = dispatcher(LeastLoaded())
    rates = made.fleet.replicas["a"].rates
    before = rates.prefill(1000)
    made.observed("a", 0.0, load=Load(5, 5))
    made.observed("b", 0.0, load=Load(5, 5))
    one = job()
    assert where(made, one) == "a"

    made.began(one.number, 60.0)

    assert rates.prefill(1000) == before


# KV


def test_what_others_hold_is_not_there_for_this_pool_until_they_let_it_go() -> None:
    made = dispatcher(EarliestCompletion(), capacity=100 * BLOCK)
    residency = made.fleet.replicas["a"].residency

    made.observed("a", 0.0, load=Load(3, 0, 60.0 * BLOCK))
    assert residency.capacity == 40
    made.observed("a", 1.0, load=Load(1, 0, 10.0 * BLOCK))
    assert residency.capacity == 90
    made.observed("a", 2.0, load=NOTHING)
    assert residency.capacity == 100


def test_a_session_goes_where_others_leave_it_room() -> None:
    made = dispatcher(EarliestCompletion(), capacity=400 * BLOCK)
    made.observed("a", 0.0, load=Load(1, 0, 380.0 * BLOCK))
    made.observed("b", 0.0, load=Load(2, 0, 0.0))
    where(made, job("small", 5, returns=True))

    assert where(made, job("large", 100, returns=True)) == "b"


def test_who_is_evicted_for_others_is_not_resident_any_more() -> None:
    residency = Residency(100)
    old, new = (Prompt(tuple((name, at) for at in range(30)), 1920) for name in ("old", "new"))
    residency.touch(old)
    residency.touch(new)

    residency.share(60)

    assert (residency.depth(old), residency.depth(new)) == (10, 30)


def test_what_is_lost_while_others_are_there_is_no_smaller_memory_once_they_have_left() -> None:
    residency = Residency(1000)
    prompts = [Prompt(tuple((name, at) for at in range(100)), 6400) for name in range(8)]
    residency.share(100)
    touched = [residency.touch(prompt) for prompt in prompts]
    residency.confirm(100, 0, residency.touch(prompts[0]))
    assert residency.capacity is not None
    assert touched and residency.capacity < 800

    residency.share(0)

    assert residency.capacity == 1000


@pytest.mark.parametrize(("page", "held"), [(16, 0), (640, 5)])
def test_the_end_of_a_prompt_that_fills_no_page_was_not_lost(page: int, held: int) -> None:
    made = dispatcher(LeastLoaded(), capacity=1000 * BLOCK)
    residency = made.fleet.replicas["a"].residency
    made.observed("a", 0.0, page=page)
    for one, cached in ((job("other", 5), 0), (job("s", 19), 0), (job("s", 19), 10 * BLOCK)):
        assert where(made, one) == "a"
        made.finished(one.number, 1.0, cached=cached, made=1)

    assert residency.depth(job("other", 5).prompt) == held


@pytest.mark.parametrize(("page", "cached"), [(1, 1000), (16, 992), (640, 640), (2000, 0)])
def test_only_whole_pages_are_expected_to_be_cached(page: int, cached: int) -> None:
    made = dispatcher(LeastLoaded())
    first, again = (Job(next(_numbers), "s", Prompt((1, 2), 1000), 9.0, 0.0) for _ in range(2))
    assert where(made, first) == "a"
    made.finished(first.number, 1.0, made=100)

    made.observed("a", 1.0, page=page)

    assert made.fleet.cached(again, made.fleet.replicas["a"]) == cached


# What servers tell


def test_a_load_is_what_runs_and_what_waits() -> None:
    state = ServerState(running=3, waiting=2, kv_usage=0.25, capacity=1000)
    assert state.load == Load(5, 2, 250.0)
    assert ServerState(running=3).load == Load(3)
    assert ServerState(waiting=3, kv_usage=0.5).load is None
