"""A task at its limits: its model is told what it cannot afford, and what is done is kept."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest

from agentflow import Budget, tool
from agentflow.errors import BudgetExceeded, DeadlineExceeded
from agentflow.testing import Call, Reply
from agentflow.testing.replies import Usage

pytestmark = pytest.mark.virtual

PRICES = {"tiny": {"input": "1", "output": "10"}}  # USD per million tokens


@tool(usd="0.50", reads="books")
async def buy(title: str) -> str:
    """Buy a book."""
    raise AssertionError("nobody can pay for it")


def asks(strategy: str, name: str, **arguments: str) -> Reply:
    """A model's reply that calls one tool."""
    given = ", ".join(f'{key}="{value}"' for key, value in arguments.items())
    said = f"$1 = {name}({given})\njoin()" if strategy == "plan" else Call(name, arguments)
    return Reply(said, usage=Usage(2_000, 100))


@pytest.mark.parametrize("strategy", ["plan", "react"])
async def test_a_model_is_told_of_a_tool_it_cannot_afford(lab: Any, strategy: str) -> None:
    answer = "Answer: too dear" if strategy == "plan" else "too dear"
    said = await lab.run(
        asks(strategy, "buy", title="Emma"), answer, strategy=strategy, tools=[buy],
        prices=PRICES, budget=Budget(usd="0.10"),
    )  # fmt: skip

    assert said == "too dear"
    told = str(lab.server.requests[1].body["messages"])
    assert "failed: BudgetExceeded: 0.50 usd do not fit" in told


@pytest.mark.parametrize("strategy", ["plan", "react"])
async def test_what_was_done_before_the_money_ended_is_kept(lab: Any, strategy: str) -> None:
    lab.takes = {"look": 3.0}

    failed = await lab.fails(
        asks(strategy, "look", key="a"), "never asked", strategy=strategy, max_tokens=500,
        prices=PRICES, budget=Budget(usd="0.008"),
    )  # fmt: skip

    assert failed.results == {0: "apple"}
    error = failed.__cause__
    assert isinstance(error, BudgetExceeded)
    assert error.left == Decimal("0.005") < error.asked
    assert len(lab.server.requests) == 1 and asyncio.get_running_loop().time() == 3.0


@pytest.mark.parametrize("strategy", ["plan", "react"])
async def test_a_call_that_does_not_end_meets_the_deadline(lab: Any, strategy: str) -> None:
    stop = asyncio.Event()

    @tool(reads="books")
    async def read(title: str) -> str:
        """Read a book."""
        while not stop.is_set():
            try:
                await stop.wait()
            except asyncio.CancelledError:
                continue
        return title

    engine = await lab.prepare([asks(strategy, "read", title="Emma")], tools=[read])

    with pytest.raises(DeadlineExceeded) as late:
        await engine.run("Which?", strategy=strategy, budget=Budget(deadline=9))

    assert asyncio.get_running_loop().time() == 9.0
    assert late.value.unfinished == ("read",) and late.value.pending == (0,)
    stop.set()


async def test_a_loop_goes_on_as_long_as_its_prompts_fit_as_they_were_counted(lab: Any) -> None:
    """By their bytes, of which each would be a token, the last ones would not."""
    turns = [Call("search", {"query": f"thing {n}", "k": 40}) for n in range(8)]
    answer = await lab.run(
        *turns, "All of it.", strategy="react", max_tokens=100, budget=Budget(tokens=24_000)
    )
    assert answer == "All of it."
    last = lab.server.requests[-1].body
    assert len(json.dumps(last)) > 6_000
