"""What held requests and further attempts cost: each attempt that was sent, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow import Engine, events, llm, workflow
from agentflow.budgets.budget import Budget
from agentflow.budgets.ledger import NOTHING
from agentflow.budgets.prices import Price, Prices
from agentflow.errors import AgentflowError, BackendTimeout, BudgetExceeded, RunFailed
from agentflow.executor.affinity.pool import Pool
from agentflow.executor.affinity.replica import ReplicaSpec
from agentflow.executor.models.client import OpenAIBackend
from agentflow.executor.models.ratelimit import RateLimiter
from agentflow.executor.models.stream import Timeouts
from agentflow.testing import Fault, ModelledReplica, run_virtual

PRICES = Prices({"modelled": Price(Decimal(1), Decimal(1))})
QUICK = Timeouts(first_token=3.0)
LONG = "b " * 3_000

FAULTS: dict[str, Callable[[ModelledReplica], object]] = {
    "hang": lambda replica: replica.hang(),
    "recover": lambda replica: replica.recover(),
    "kill": lambda replica: replica.kill(),
    "restart": lambda replica: asyncio.ensure_future(replica.restart()),
    "500": lambda replica: replica.fail(Fault.status(500), times=2),
    "429": lambda replica: replica.fail(Fault.status(429, retry_after=2), times=2),
    "html": lambda replica: replica.fail(Fault.html(), times=2),
    "cut": lambda replica: replica.fail(Fault.cut(after=5), times=2),
    "stall": lambda replica: replica.fail(Fault.stall(after=5), times=1),
}


@llm(max_tokens=200)
async def talk(text: str) -> str:
    """Say {text}"""
    raise NotImplementedError


@workflow
async def flow(text: str) -> str:
    return await talk(text)


class Books:
    """The model calls that an engine tells of."""

    def __init__(self, engine: Engine) -> None:
        self.told: list[events.ModelReplied] = []
        engine.subscribe(self._hear)

    def _hear(self, event: Any) -> None:
        if isinstance(event, events.ModelReplied):
            self.told.append(event)

    @property
    def usd(self) -> Decimal:
        return sum((Decimal(event.usd) for event in self.told), Decimal(0))


@pytest.mark.virtual
async def test_a_request_that_was_only_held_costs_nothing(world: Any) -> None:
    world.replica("a")
    pool = Pool([ReplicaSpec("http://a/v1", slots=1)], "modelled", http=world.http, prices=PRICES)
    world.pools.append(pool)
    async with Engine(model=pool) as engine:
        books = Books(engine)
        first = engine.start(flow, "a")
        await asyncio.sleep(0.5)
        held = engine.start(flow, LONG)
        await asyncio.sleep(0.2)
        assert held.ledger.reserved != NOTHING
        held.cancel()
        with pytest.raises(AgentflowError):
            await held.result()
        async with Engine(model=pool, budget=Budget(deadline=0.3)) as hurried:
            late = hurried.start(flow, LONG)
            with pytest.raises(AgentflowError):
                await late.result()
        await first.result()

        assert world.served() == {"a": 1}
        assert (held.ledger.spent, held.ledger.reserved) == (NOTHING, NOTHING)
        assert (late.ledger.spent, late.ledger.reserved) == (NOTHING, NOTHING)
        assert [event.run for event in books.told] == [first.id]


@pytest.mark.virtual
async def test_a_call_that_waits_for_its_turn_costs_nothing(world: Any) -> None:
    limiter = RateLimiter(requests_per_minute=1, burst=1 / 60)
    backend = OpenAIBackend(
        world.replica("a"), "modelled", http=world.http, limiter=limiter, prices=PRICES
    )
    async with Engine(model=backend) as engine:
        await engine.run(flow, "a")
        waiting = engine.start(flow, LONG)
        await asyncio.sleep(5)
        waiting.cancel()
        with pytest.raises(AgentflowError):
            await waiting.result()

        assert world.served() == {"a": 1}
        assert waiting.ledger.spent == NOTHING


@pytest.mark.virtual
async def test_an_attempt_that_was_given_up_is_paid_besides_the_next(world: Any) -> None:
    pool = world.pool("ab", prices=PRICES, timeouts=QUICK)
    world["a"].hang()
    async with Engine(model=pool) as engine:
        books = Books(engine)
        run = engine.start(flow, LONG)
        await run.result()

        given_up, answered = books.told
        assert world.served() == {"a": 1, "b": 1}
        assert given_up.estimated and not answered.estimated
        assert given_up.prompt_tokens >= answered.prompt_tokens > 3_000
        assert run.ledger.spent.usd == books.usd


@pytest.mark.virtual
async def test_each_attempt_of_one_backend_is_paid(world: Any) -> None:
    url = world.replica("a")
    backend = OpenAIBackend(url, "modelled", http=world.http, prices=PRICES, timeouts=QUICK)
    world["a"].hang()
    asyncio.get_running_loop().call_later(3.01, world["a"].recover)
    async with Engine(model=backend) as engine:
        books = Books(engine)
        run = engine.start(flow, LONG)
        await run.result()

        assert world.served() == {"a": 2}
        assert [event.estimated for event in books.told] == [True, False]
        assert run.ledger.spent.usd == books.usd


@pytest.mark.virtual
async def test_an_attempt_that_does_not_fit_any_more_is_not_made(world: Any) -> None:
    pool = world.pool("ab", prices=PRICES, timeouts=QUICK)
    world["a"].hang()
    async with Engine(model=pool, budget=Budget(usd="0.008")) as engine:
        books = Books(engine)
        run = engine.start(flow, LONG)
        with pytest.raises(RunFailed) as failed:
            await run.result()

        cause = failed.value.__cause__
        assert isinstance(cause, BackendTimeout)
        assert isinstance(cause.__cause__, BudgetExceeded)
        assert world.served() == {"a": 1, "b": 0}
        assert run.ledger.spent.usd == books.usd > 0
        assert run.ledger.reserved == NOTHING


@pytest.mark.virtual
async def test_a_refused_attempt_costs_nothing(world: Any) -> None:
    pool = world.pool("ab", prices=PRICES)
    world["a"].fail(Fault.status(429), times=1)
    async with Engine(model=pool) as engine:
        books = Books(engine)
        run = engine.start(flow, LONG)
        await run.result()

        (answered,) = books.told
        assert world.served() == {"a": 1, "b": 1}
        assert run.ledger.spent.tokens == answered.prompt_tokens + answered.completion_tokens


happenings = st.lists(
    st.tuples(st.floats(0.0, 8.0), st.sampled_from("ab"), st.sampled_from(sorted(FAULTS))),
    max_size=10,
)
cancellations = st.lists(st.tuples(st.floats(0.0, 8.0), st.integers(0, 7)), max_size=3)


async def live(model: Any, world: Any, faults: Any, cancelled: Any, budget: Budget) -> None:
    loop = asyncio.get_running_loop()
    async with Engine(model=model, budget=budget) as engine:
        books = Books(engine)
        runs = [engine.start(flow, f"{number} " * 400) for number in range(8)]
        for at, name, kind in faults:
            loop.call_later(at, FAULTS[kind], world[name])
        for at, number in cancelled:
            loop.call_later(at, runs[number].cancel)
        await asyncio.gather(*(run.result() for run in runs), return_exceptions=True)
        spent, limit = engine.ledger.spent, budget.usd
        assert engine.ledger.reserved == NOTHING
        assert spent.usd == books.usd
        assert limit is None or spent.usd <= limit
        assert spent.tokens == sum(e.prompt_tokens + e.completion_tokens for e in books.told)


@pytest.mark.parametrize("pooled", [True, False])
@settings(max_examples=15)
@given(
    faults=happenings, cancelled=cancellations, usd=st.sampled_from([None, "0.004", "0.01", "0.03"])
)
def test_whatever_happens_the_events_add_up_to_what_is_spent_within_the_budget(
    make_world: Any, pooled: bool, faults: Any, cancelled: Any, usd: str | None
) -> None:
    async def check() -> None:
        world = make_world()
        timeouts = Timeouts(first_token=3.0, idle=3.0, total=30.0)
        options: dict[str, Any] = {"prices": PRICES, "timeouts": timeouts}
        urls = [world.replica("a"), world.replica("b")]
        if pooled:
            model: Any = world.pool("ab", **options)
        else:
            model = OpenAIBackend(urls[0], "modelled", http=world.http, max_concurrent=3, **options)
        await live(model, world, faults, cancelled, Budget(usd=usd))
        await world.aclose()

    run_virtual(check())
