"""Runs whose next prompts are computed ahead: sooner answered, and the same in all else."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from agentflow import events
from agentflow.budgets.budget import Budget
from agentflow.budgets.prices import Price, Prices
from agentflow.caches.affinity.jobs import Pause
from agentflow.clock import now
from agentflow.engine import Engine
from agentflow.errors import DeadlineExceeded, RunCancelled
from agentflow.executor.affinity.pool import Pool
from agentflow.executor.affinity.replica import ReplicaSpec
from agentflow.executor.models.base import ChatRequest, SessionTag
from agentflow.executor.strategies.task import Task
from agentflow.testing import Call, Fault, ModelledReplica, Serving
from agentflow.testing.chat import ChatCall
from agentflow.testing.replies import Reply
from agentflow.tools.tool import tool

pytestmark = pytest.mark.virtual

SERVING = Serving(prefill=1000.0, step=0.01, capacity=8_000)

PAGE = " ".join(f"word{number}" for number in range(600))  # 1,040 tokens or so

TWO = Reply(
    Call("page", {"name": "a", "seconds": 1.0}, "c1"),
    Call("page", {"name": "b", "seconds": 20.0}, "c2"),
)
LONG = Reply(
    Call("page", {"name": "a", "seconds": 1.0}, "c1"),
    Call("page", {"name": "b", "seconds": 200.0}, "c2"),
)
PLAN = '$1 = page(name="a", seconds=1)\n$2 = page(name="b", seconds=20)\njoin()'


def said(text: str, tag: SessionTag | None = None) -> ChatRequest:
    message = {"role": "user", "content": text}
    return ChatRequest(messages=[message], max_tokens=2, session=tag)


async def others(pool: Pool, seconds: float) -> None:
    """Have all of the replica's memory used by somebody else, for as long."""
    until = now() + seconds
    for number in itertools.count():
        await pool.complete(said(f"other {number % 4} " * 2_000))
        if now() > until:
            return


@tool(reads="web")
async def page(name: str, seconds: float) -> str:
    """Read a page."""
    await asyncio.sleep(seconds)
    return f"{name}: {PAGE}"


class Unready(Pool):
    """A pool that computes nothing ahead."""

    warm = property()


@dataclass
class Outcome:
    """A run, and what was told of its model calls."""

    value: Any
    replies: list[Any]
    spent: int

    @property
    def answers(self) -> list[Any]:
        return [reply for reply in self.replies if not reply.warmed]

    @property
    def warmed(self) -> list[Any]:
        return [reply for reply in self.replies if reply.warmed]


class Bench:
    """One replica that follows a script, and an engine that asks it."""

    def __init__(self, world: Any, kind: type[Pool], script: Any, **options: Any) -> None:
        def say(call: ChatCall) -> Any:
            if call.body["max_tokens"] == 1:
                return "word"
            turns = sum(message["role"] == "assistant" for message in call.messages)
            joins = "judge" in str(call.messages[0]["content"])[:400]
            return "Answer: done." if turns or joins else script

        world.hosts.replicas["a"] = self.replica = ModelledReplica(SERVING, say)
        spec = ReplicaSpec("http://a/v1", name="a", capacity=SERVING.capacity)
        self.pool = kind([spec], "modelled", http=world.http, **options)
        world.pools.append(self.pool)
        self.events: list[events.Event] = []
        self.engine = Engine(model=self.pool, tools=[page], subscribers=[self.events.append])

    def outcome(self, run: Any, value: Any = None) -> Outcome:
        replies = [event for event in self.events if isinstance(event, events.ModelReplied)]
        return Outcome(value, replies, run.ledger.spent.tokens)

    async def run(self, strategy: Any, budget: Budget | None = None) -> Outcome:
        run = self.engine.start(Task("Which?", strategy, budget=budget))
        value = await run
        await self.engine.aclose()
        return self.outcome(run, value)


async def test_what_others_are_about_to_push_out_is_used_again(world: Any) -> None:
    bench = Bench(world, Pool, TWO)
    one = said("this is long " * 1_300, SessionTag("one"))
    other = said("that is not " * 500)
    await bench.pool.complete(other)
    await bench.pool.complete(one)
    bench.pool.away("one", Pause(0.5, 0.6))

    before = await bench.pool.warm(one)
    await bench.pool.complete(other)
    after = await bench.pool.warm(one)

    assert before is None and after is not None
    assert (after.usage.cached_tokens or 0) > 0.9 * after.usage.prompt_tokens


@pytest.mark.parametrize(("strategy", "script"), [("react", TWO), ("plan", PLAN)])
async def test_results_are_computed_while_others_are_waited_for(
    world: Any, strategy: str, script: Any
) -> None:
    plain = await Bench(world, Unready, script).run(strategy)
    ahead = await Bench(world, Pool, script).run(strategy)

    assert ahead.value == plain.value
    assert ahead.warmed and not plain.warmed
    assert ahead.answers[-1].cached_tokens > plain.answers[-1].cached_tokens + 1000
    assert ahead.answers[-1].seconds < plain.answers[-1].seconds - 1.0


async def test_what_was_evicted_during_a_long_call_is_there_again(world: Any) -> None:
    async def crowd(bench: Bench) -> Outcome:
        running = asyncio.create_task(bench.run("react"))
        await asyncio.sleep(30.0)
        await others(bench.pool, seconds=10.0)
        return await running

    plain = await crowd(Bench(world, Unready, LONG))
    ahead = await crowd(Bench(world, Pool, LONG))

    assert ahead.value == plain.value
    assert ahead.answers[-1].cached_tokens > 1000 > plain.answers[-1].cached_tokens
    assert ahead.answers[-1].seconds < plain.answers[-1].seconds - 1.0


async def test_nothing_is_computed_while_others_are_answered(world: Any) -> None:
    bench = Bench(world, Pool, TWO)
    running = asyncio.create_task(bench.run("react"))
    await asyncio.sleep(0.5)
    await others(bench.pool, seconds=30.0)

    outcome = await running

    assert outcome.value == "Answer: done." and not outcome.warmed


async def test_nothing_is_looked_for_once_the_next_request_is_here(world: Any) -> None:
    looks: list[float] = []

    class Noted(Pool):
        async def warm(self, request: ChatRequest) -> Any:
            looks.append(now())
            return await super().warm(request)

    page_b = Call("page", {"name": "b", "seconds": 3.0}, "c1")
    outcome = await Bench(world, Noted, Reply(page_b)).run("react")

    last = outcome.answers[-1]
    assert len(looks) > 3 and looks[-1] <= last.at - last.seconds


async def test_others_do_not_wait_for_what_is_computed_ahead(world: Any) -> None:
    bench = Bench(world, Pool, TWO)
    running = asyncio.create_task(bench.run("react"))
    while not bench.replica.engine.running:
        await asyncio.sleep(0.01)
    while bench.replica.engine.running or not bench.replica.requests[1:]:
        await asyncio.sleep(0.01)

    began = now()
    await bench.pool.complete(said("Something else."))

    assert now() - began < 0.5
    await running


async def test_what_is_computed_ahead_is_counted_and_told(world: Any) -> None:
    outcome = await Bench(world, Pool, TWO).run("react", Budget(tokens=1_000_000))

    assert outcome.warmed
    told = sum(reply.prompt_tokens + reply.completion_tokens for reply in outcome.replies)
    assert outcome.spent == told


@pytest.mark.parametrize("status", [400, 401, 500])
async def test_what_a_server_refuses_to_compute_ahead_costs_nothing(
    world: Any, status: int
) -> None:
    bench = Bench(world, Pool, TWO)
    running = asyncio.create_task(bench.run("react", Budget(tokens=1_000_000)))
    await asyncio.sleep(0.9)
    assert len(bench.replica.requests) == 1 and not bench.replica.engine.running
    bench.replica.fail(Fault.status(status), times=1)

    outcome = await running

    assert len(bench.replica.requests) == 2 + len(outcome.answers[1:]) + len(outcome.warmed)
    told = sum(reply.prompt_tokens + reply.completion_tokens for reply in outcome.replies)
    assert outcome.spent == told
    assert not any(reply.estimated for reply in outcome.warmed)


async def test_what_gives_way_while_it_is_computed_ahead_is_counted(world: Any) -> None:
    bench = Bench(world, Pool, TWO)
    running = asyncio.create_task(bench.run("react", Budget(tokens=1_000_000)))
    while not (bench.replica.requests[1:] and bench.replica.engine.running):
        await asyncio.sleep(0.01)
    await bench.pool.complete(said("Something else."))

    outcome = await running

    assert outcome.warmed[0].estimated
    told = sum(reply.prompt_tokens + reply.completion_tokens for reply in outcome.replies)
    assert outcome.spent == told


async def test_nothing_is_computed_ahead_that_could_be_missing_later(world: Any) -> None:
    outcome = await Bench(world, Pool, TWO).run("react", Budget(tokens=30_000))

    assert outcome.value == "Answer: done." and not outcome.warmed


async def test_nothing_is_computed_ahead_for_money(world: Any) -> None:
    prices = Prices({"modelled": Price(Decimal(1), Decimal(2))})
    outcome = await Bench(world, Pool, TWO, prices=prices).run("react")

    assert outcome.value == "Answer: done." and not outcome.warmed


async def test_nothing_is_computed_ahead_for_what_the_deadline_cuts_off(world: Any) -> None:
    bench = Bench(world, Pool, TWO)

    with pytest.raises(DeadlineExceeded):
        await bench.run("react", Budget(deadline=2.0))
    await asyncio.sleep(60.0)

    assert len(bench.replica.requests) == 1


async def test_a_run_that_is_cancelled_leaves_nothing_behind(world: Any) -> None:
    bench = Bench(world, Pool, TWO)
    run = bench.engine.start(Task("Which?", "react"))
    await asyncio.sleep(2.0)
    assert bench.replica.engine.running

    run.cancel()
    with pytest.raises(RunCancelled):
        await run
    await asyncio.sleep(0.1)

    outcome = bench.outcome(run)
    assert len(outcome.warmed) == 1 and isinstance(bench.events[-1], events.RunCancelled)
    assert outcome.spent == sum(r.prompt_tokens + r.completion_tokens for r in outcome.replies)
    assert not bench.replica.engine.running and run.ledger.reserved.tokens == 0
    requests = len(bench.replica.requests)
    await asyncio.sleep(60.0)
    assert len(bench.replica.requests) == requests
    await bench.engine.aclose()


THREE = Reply(
    *(
        Call("stubborn", {"name": name, "seconds": seconds}, name)
        for name, seconds in (("a", 1.0), ("b", 60.0), ("c", 70.0))
    )
)


@tool(reads="web")
async def stubborn(name: str, seconds: float) -> str:
    """Read a page, and take a while to leave it when cancelled."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if name == "b":
            await asyncio.sleep(0.3)
        raise
    return f"{name}: {PAGE}"


@pytest.mark.parametrize("ends", ["by its deadline", "by being cancelled"])
async def test_calls_that_are_cancelled_with_their_run_are_no_news(world: Any, ends: str) -> None:
    bench = Bench(world, Pool, THREE)
    task = Task("Which?", "react", tools=[stubborn], budget=Budget(deadline="10s"))
    run = bench.engine.start(task)
    await asyncio.sleep(5.0)
    if ends == "by being cancelled":
        run.cancel()
    with pytest.raises((DeadlineExceeded, RunCancelled)):
        await run

    requests = len(bench.replica.requests)
    await asyncio.sleep(30.0)

    assert len(bench.replica.requests) == requests
    assert not [task for task in asyncio.all_tasks() if "warming" in task.get_name()]
    await bench.engine.aclose()
