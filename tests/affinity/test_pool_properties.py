"""Whatever happens to replicas and callers, every request ends once, and nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.caches.affinity.completion import EarliestCompletion
from agentflow.caches.affinity.jobs import Pause
from agentflow.caches.affinity.policies import LeastLoaded, Sticky
from agentflow.errors import BackendError
from agentflow.executor.affinity.pool import Pool
from agentflow.executor.models.base import ChatRequest, Reply, SessionTag
from agentflow.executor.models.persistent import Persistent
from agentflow.executor.models.stream import Timeouts
from agentflow.testing import Fault, ModelledReplica, Serving, run_virtual

NAMES = "abc"
TURNS = 3
WORDS = 30
SERVING = Serving(prefill=2_000.0, step=0.02, capacity=4_000, slots=4)

FAULTS: dict[str, Callable[[ModelledReplica], object]] = {
    "kill": lambda replica: replica.kill(),
    "restart": lambda replica: asyncio.ensure_future(replica.restart()),
    "hang": lambda replica: replica.hang(),
    "recover": lambda replica: replica.recover(),
    "500": lambda replica: replica.fail(Fault.status(500)),
    "429": lambda replica: replica.fail(Fault.status(429, retry_after=2), times=2),
    "html": lambda replica: replica.fail(Fault.html(), times=3),
    "cut": lambda replica: replica.fail(Fault.cut(after=5), times=2),
    "stall": lambda replica: replica.fail(Fault.stall(after=5), times=1),
}

happenings = st.lists(
    st.tuples(st.floats(0.0, 6.0), st.sampled_from(NAMES), st.sampled_from(sorted(FAULTS))),
    max_size=12,
)
cancellations = st.lists(st.tuples(st.floats(0.0, 6.0), st.integers(0, 7)), max_size=3)
POLICIES = [EarliestCompletion, LeastLoaded, Sticky]


async def converse(pool: Pool, number: int) -> list[Reply | BackendError]:
    """One session of some turns, with pauses between them."""
    session, model = f"session {number}", Persistent(pool)
    messages = [{"role": "user", "content": f"{number} begins " * 50}]
    outcomes: list[Reply | BackendError] = []
    try:
        for _ in range(TURNS):
            tag = SessionTag(session, tenant=str(number % 2))
            request = ChatRequest(messages=list(messages), max_tokens=WORDS, session=tag)
            try:
                reply = await model.complete(request)
            except BackendError as error:
                outcomes.append(error)
                continue
            outcomes.append(reply)
            messages += [reply.as_message(), {"role": "user", "content": "go on " * 30}]
            pool.away(session, Pause(0.3, 1.0))
            await asyncio.sleep(0.1 * number)
    finally:
        pool.ended(session)
    return outcomes


async def live(world: Any, faults: Any, cancelled: Any, policy: Any) -> tuple[Pool, list[Any]]:
    for name in NAMES:
        world.replica(name, SERVING)
    pool = world.pool(NAMES, policy=policy(), timeouts=Timeouts(idle=10.0, total=60.0))
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(converse(pool, number)) for number in range(8)]
    for at, name, kind in faults:
        loop.call_later(at, FAULTS[kind], world[name])
    for at, number in cancelled:
        loop.call_later(at, tasks[number].cancel)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    return pool, outcomes


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=12)
@given(faults=happenings, cancelled=cancellations)
def test_every_request_ends_once_and_nothing_is_left(
    make_world: Any, policy: Any, faults: Any, cancelled: Any
) -> None:
    async def check() -> None:
        world = make_world()
        pool, outcomes = await live(world, faults, cancelled, policy)
        for number, outcome in enumerate(outcomes):
            if isinstance(outcome, asyncio.CancelledError):
                assert number in {number for _, number in cancelled}
                continue
            assert len(outcome) == TURNS, outcome
            texts = [reply.text for reply in outcome if isinstance(reply, Reply)]
            assert set(texts) <= {" ".join(["word"] * WORDS)}
        assert {report.running for report in pool.replicas} == {0}
        assert not faults or sum(report.requests for report in pool.replicas) > 0
        await pool.aclose()
        loop: Any = asyncio.get_running_loop()
        ours = [handle for handle in loop._scheduled if "Alarm" in repr(handle)]
        assert [handle for handle in ours if not handle.cancelled()] == []
        await world.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(check())


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=12)
@given(faults=happenings)
def test_with_one_replica_that_works_every_reply_is_right(
    make_world: Any, policy: Any, faults: Any
) -> None:
    async def check() -> None:
        world = make_world()
        _, outcomes = await live(world, [f for f in faults if f[1] != "c"], [], policy)
        assert all(isinstance(reply, Reply) for outcome in outcomes for reply in outcome)
        await world.aclose()

    run_virtual(check())
