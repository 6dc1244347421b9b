"""Limits that hold: what a run may spend, how long it may take, and what is left when it ends.

python examples/budget_and_deadline.py
"""

from __future__ import annotations

import asyncio

from agentflow import Budget, Engine, Prices, llm, tool, workflow
from agentflow.errors import BudgetExceeded, DeadlineExceeded, RunFailed
from agentflow.testing import ScriptedServer


@tool(reads="archive", timeout="1m")
async def dig(shelf: int) -> str:
    await asyncio.sleep(0.1 * shelf)
    return f"box from shelf {shelf}"


@workflow(budget=Budget(deadline="250ms"))
async def search_archive(shelves: int) -> list[str]:
    boxes = [dig(shelf) for shelf in range(shelves)]
    return [await box for box in boxes]


@llm(max_tokens=100)
async def translate(text: str) -> str:
    """Translate into English: {text}"""
    raise NotImplementedError


@workflow(budget=Budget(usd="0.0004"))
async def translate_all(texts: list[str]) -> list[str]:
    return [await translate(text) for text in texts]


async def late() -> list[str]:
    """A deadline: the caller is answered in time, and keeps what was finished."""
    async with Engine() as engine:
        try:
            return await engine.run(search_archive, 6)
        except DeadlineExceeded as error:
            print(error)
            return list(error.results.values())


async def spent() -> int:
    """A budget: a call that does not fit is not made, however many wait."""
    prices = Prices({"scripted": {"input": "0.50", "output": "2.00"}})  # USD per million tokens
    async with (
        ScriptedServer(lambda call: "a kettle") as server,
        Engine(base_url=server.base_url, model="scripted", prices=prices) as engine,
    ):
        try:
            await engine.run(translate_all, ["une bouilloire"] * 100)
        except RunFailed as error:
            if not isinstance(error.__cause__, BudgetExceeded):
                raise
            print(error.__cause__)
        print(f"{engine.ledger.spent.usd} USD for {len(server.requests)} calls")
        return len(server.requests)


async def main() -> tuple[list[str], int]:
    return await late(), await spent()


if __name__ == "__main__":
    print(asyncio.run(main()))
