"""Whatever happens, the books of guesses add up: random runs, cancelled, failing, closed early."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest

from agentflow import Budget, events, tool, workflow
from agentflow.errors import AgentflowError
from agentflow.testing import run_virtual

PRICE = Decimal("0.001")
KEYS = "wxyz"


def tools_of(lab: Any, chance: random.Random) -> list[Any]:
    """Tools that are slow, scarce, dear, and fail now and then."""

    async def work(key: str) -> str:
        value = await lab.work(key, chance.choice((0.0, 0.1, 1.0, 5.0)))
        if chance.random() < 0.2:
            raise OSError(key)
        return str(value)

    @tool(reads="shop/{key}", limit=chance.choice((1, 2, 9)), usd=PRICE, ttl="1h", timeout=3)
    async def dear(key: str) -> str:
        return await work(key)

    @tool(reads="shop/{key}", usd=PRICE, rate="2/s", retries=1, backoff=0.1)
    async def rated(key: str) -> str:
        return await work(key)

    @tool(writes="shop/{key}")
    async def sell(key: str) -> str:
        return str(await lab.work(key, 0.5))

    return [dear, rated, sell]


@workflow
async def wander(tools: list[Any], seed: int) -> None:
    chance = random.Random(seed)
    handles = []
    for _ in range(chance.randrange(1, 8)):
        handles.append(chance.choice(tools)(chance.choice(KEYS)))
        await asyncio.sleep(chance.choice((0.0, 0.5, 2.0)))
        if chance.random() < 0.2:
            chance.choice(handles).cancel()
        if chance.random() < 0.05:
            raise ValueError
    for handle in handles:
        if not handle.cancelled():
            await asyncio.wait([handle])


async def scenario(lab: Any, scripted: Any, maybe: Any, seed: int) -> None:
    """Several runs at once in one engine; some are cancelled, and the engine closes early."""
    chance = random.Random(seed)
    tools = tools_of(lab, chance)

    def after(trail: Any) -> list[Any]:
        number = chance.randrange(6)
        return [
            maybe(chance.choice(tools).name, chance.uniform(0.5, 1.0), key=chance.choice(KEYS))
            for _ in range(number)
        ]

    engine = lab.start(
        scripted(after=after),
        tools=tools,
        speculation=None,
        load_price=0.0,
        depth=3,
        budget=Budget(usd=chance.choice(("0.002", "1"))),
    )
    runs = [engine.start(wander, tools, chance.randrange(1 << 30)) for _ in range(4)]
    for run in runs:
        await asyncio.sleep(chance.choice((0.0, 0.3)))
        if chance.random() < 0.3:
            run.cancel()
    if chance.random() < 0.3:
        await asyncio.sleep(1.0)
        await engine.aclose()
    for run in runs:
        with suppress(AgentflowError):
            await run
    await lab.aclose()
    gates = [tool.shared[engine.services].call.gate for tool in tools if tool.shared]
    assert all(gate.free == gate.limit and not gate.guests for gate in gates)


@pytest.mark.parametrize("batch", range(6))
def test_guesses_are_used_or_wasted_and_paid_for_once(
    laboratory: Any, scripted: Any, maybe: Any, batch: int
) -> None:
    for seed in range(batch * 20, batch * 20 + 20):
        lab = laboratory()
        run_virtual(scenario(lab, scripted, maybe, seed))
        assert lab.told(events.RunStarted)
