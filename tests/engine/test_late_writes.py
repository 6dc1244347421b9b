"""A write that is stopped has its grace if it is being made; if it still waits, it is not made."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from agentflow import Budget, Context, Engine, gather, tool, workflow
from agentflow.budgets import Amount
from agentflow.errors import DeadlineExceeded, RunCancelled, RunFailed


def now() -> float:
    return asyncio.get_running_loop().time()


async def stopped(engine: Engine, flow: Any, *, after: float) -> float:
    """Cancel a run so many seconds after it began; how long it took to end."""
    run = engine.start(flow)
    await asyncio.sleep(after)
    began = now()
    run.cancel()
    with pytest.raises(RunCancelled):
        await run
    await run.ended()
    return now() - began


async def test_a_write_that_is_being_made_has_its_grace(engine: Engine) -> None:
    done: list[int] = []

    @tool(writes="box")
    async def put() -> None:
        await asyncio.sleep(1)
        done.append(1)

    @workflow
    async def flow() -> None:
        await put()

    assert await stopped(engine, flow, after=0.5) == pytest.approx(0.5)
    assert done == [1]


@pytest.mark.parametrize("options", [{}, {"retries": 1}, {"usd": "1"}], ids=str)
async def test_so_has_one_that_reports_what_it_does(engine: Engine, options: Any) -> None:
    done: list[int] = []

    @tool(writes="box", idempotent=True, **options)
    async def put(ctx: Context) -> None:
        ctx.emit("half")
        await asyncio.sleep(1)
        done.append(1)

    @workflow
    async def flow() -> None:
        await put()  # type: ignore[call-arg]  # the engine fills it in

    await stopped(engine, flow, after=0.5)

    assert done == [1]


async def test_a_fallback_that_is_being_made_has_its_grace(engine: Engine) -> None:
    done: list[int] = []

    @tool(writes="box")
    async def keep() -> None:
        await asyncio.sleep(1)
        done.append(1)

    @tool(reads="web", fallback=keep)
    async def look() -> None:
        raise ConnectionError("nobody is there")

    @workflow
    async def flow() -> None:
        await look()

    await stopped(engine, flow, after=0.5)

    assert done == [1]


async def test_a_write_that_waits_for_its_turn_is_not_made(engine: Engine) -> None:
    made: list[int] = []

    @tool(writes="box/{number}", rate="1/s")
    async def put(number: int) -> None:
        made.append(number)

    @workflow
    async def flow() -> None:
        await gather(*[put(n) for n in range(3)])

    assert await stopped(engine, flow, after=0.5) == 0.0
    assert made == [0]


async def test_a_write_that_pauses_before_another_attempt_is_not_made_again(
    engine: Engine,
) -> None:
    made: list[float] = []

    @tool(writes="box", idempotent=True, retries=3, backoff=10)
    async def put() -> None:
        made.append(now())
        raise ConnectionError("not now")

    @workflow
    async def flow() -> None:
        await put()

    assert await stopped(engine, flow, after=0.01) == 0.0
    assert len(made) == 1


async def test_at_the_deadline_too(engine: Engine) -> None:
    made: list[int] = []

    @tool(writes="box/{number}", rate="1/s")
    async def put(number: int) -> None:
        made.append(number)
        if number == 0:
            await asyncio.sleep(0.7)

    @workflow(budget=Budget(deadline=0.5))
    async def flow() -> None:
        first, second = put(0), put.with_(rate=None)(1)
        await gather(first, second)

    run = engine.start(flow)
    with pytest.raises(DeadlineExceeded):
        await run
    await run.ended()

    assert made == [0, 1]


async def test_a_write_that_was_not_made_costs_nothing(engine: Engine) -> None:
    def small(number: int) -> bool:
        return number < 3

    @tool(writes="box", usd="1", check={"number": small})
    async def put(number: int) -> None:
        return None

    @tool(pure=True)
    async def five() -> int:
        return 5

    @workflow
    async def flow() -> None:
        await put(1)
        await put(five().ref)

    with pytest.raises(RunFailed, match="put"):
        await engine.run(flow)

    assert engine.ledger.spent == Amount(Decimal(1))
