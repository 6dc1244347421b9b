"""When a guess is worth it, and what it costs."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from agentflow import Budget, events, tool, workflow
from agentflow.errors import RunFailed


@workflow
async def idle(seconds: float) -> None:
    await asyncio.sleep(seconds)


@pytest.mark.parametrize(
    ("probability", "prices", "worth"),
    [
        (0.5, {}, True),
        (0.01, {}, False),
        (0.0, {}, False),
        (0.5, {"load_price": 0.1}, False),
        (0.5, {"wait_price": 0.0001}, False),
        (0.5, {"wait_price": 0.1, "load_price": 0.05}, True),
    ],
)
async def test_a_guess_is_made_if_it_gains_more_than_it_costs(
    lab: Any, maybe: Any, probability: float, prices: dict[str, float], worth: bool
) -> None:
    @tool(reads="web")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    engine = lab.start(maybe("search", probability, query="x"), tools=[search], **prices)

    await engine.run(idle, 5.0)

    assert lab.calls == (["x"] if worth else [])


async def test_a_call_that_takes_no_time_is_not_worth_a_guess(lab: Any, maybe: Any) -> None:
    @tool(pure=True)
    async def quick(query: str) -> str:
        lab.made.append((query, 0.0))
        return query

    @workflow
    async def ask() -> None:
        await quick("a")
        await asyncio.sleep(1)

    engine = lab.start(tools=[quick])
    await engine.run(ask)
    engine.services.foresight._source.says = [maybe("quick", query="x")]

    await engine.run(ask)

    assert lab.calls == ["a"]


async def test_a_dear_call_needs_a_likely_guess(lab: Any, maybe: Any) -> None:
    @tool(reads="web", usd="0.05")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    unlikely, likely = maybe("search", 0.5, query="x"), maybe("search", 0.99, query="y")
    engine = lab.start(unlikely, likely, tools=[search])

    await engine.run(idle, 5.0)

    assert lab.calls == ["y"]


async def test_a_rate_limit_makes_a_guess_cost_the_wait_of_the_next_call(
    lab: Any, maybe: Any
) -> None:
    @tool(reads="web", rate="1/m")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    engine = lab.start(maybe("search", query="x"), tools=[search])

    await engine.run(idle, 5.0)

    assert lab.calls == []


async def test_no_more_guesses_are_under_way_than_the_breadth(lab: Any, maybe: Any) -> None:
    @tool(reads="web")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    engine = lab.start(
        *[maybe("search", 0.5 + n / 10, query=str(n)) for n in range(5)],
        tools=[search],
        breadth=3,
    )

    await engine.run(idle, 3.0)

    assert lab.made == [("4", 0.0), ("3", 0.0), ("2", 0.0), ("1", 2.0), ("0", 2.0)]


async def test_a_source_that_always_has_another_guess_is_asked_once_for_each_thing_that_happens(
    lab: Any, maybe: Any, scripted: Any
) -> None:
    number = iter(range(1000))

    @tool(pure=True)
    async def quick(n: int) -> int:
        lab.made.append((str(n), 0.0))
        return n

    source = scripted(after=lambda trail: [maybe("quick", n=next(number))])
    engine = lab.start(source, tools=[quick], depth=1)

    await engine.run(idle, 1.0)

    assert lab.calls == ["0"]


async def test_guesses_that_rest_on_others_are_given_up_when_they_never_come_true(
    lab: Any, maybe: Any, scripted: Any
) -> None:
    @tool(reads="web")
    async def search(query: str) -> str:
        return str(await lab.work(query, 1.0))

    @workflow
    async def ask() -> None:
        await asyncio.sleep(1.5)
        await search("x")
        await asyncio.sleep(1.5)

    def after(trail: Any) -> list[Any]:
        return [maybe("search", query="x" if not trail.length else f"y{len(lab.made)}")]

    engine = lab.start(scripted(after=after), tools=[search])
    depths = []
    for _ in range(40):
        lab.made.clear()
        await engine.run(ask)
        depths.append(len(lab.calls))

    assert depths[0] > depths[-1]


@pytest.fixture
def dear(lab: Any) -> Any:
    @tool(reads="web", usd="0.01")
    async def dear(query: str) -> str:
        return str(await lab.work(query))

    return dear


@workflow
async def buy(seconds: float, tool: Any, query: str) -> Any:
    await asyncio.sleep(seconds)
    return await tool(query)


@pytest.mark.parametrize("seconds", [1.0, 5.0])
async def test_the_run_pays_once_for_a_guess_that_it_uses(
    lab: Any, maybe: Any, dear: Any, seconds: float
) -> None:
    engine = lab.start(maybe("dear", query="x"), tools=[dear], budget=Budget(usd=1))
    run = engine.start(buy, seconds, dear, "x")

    assert await run == "X"

    assert lab.calls == ["x"]
    assert run.ledger.spent.usd == engine.ledger.spent.usd == Decimal("0.01")


@pytest.mark.parametrize("seconds", [1.0, 5.0])
async def test_the_run_pays_nothing_for_a_guess_in_vain(
    lab: Any, maybe: Any, dear: Any, seconds: float
) -> None:
    engine = lab.start(maybe("dear", query="y"), tools=[dear])
    run = engine.start(idle, seconds)

    await run
    await asyncio.sleep(1)

    assert run.ledger.spent.usd == engine.ledger.spent.usd == 0
    assert engine.services.foresight.ledger.spent.usd == Decimal("0.01")
    (wasted,) = lab.told(events.SpeculationWasted)
    assert wasted.usd == "0.01"


async def test_a_call_that_cannot_pay_does_not_get_a_guess_for_nothing(
    lab: Any, maybe: Any, dear: Any
) -> None:
    @workflow(budget=Budget(usd=0.001))
    async def poor() -> Any:
        await asyncio.sleep(5)
        return await dear("x")

    engine = lab.start(maybe("dear", query="x"), tools=[dear], budget=Budget(usd=1))

    with pytest.raises(RunFailed, match="do not fit"):
        await engine.run(poor)

    assert engine.ledger.spent.usd == 0
    assert engine.services.foresight.ledger.spent.usd == Decimal("0.01")


async def test_a_guess_that_fails_is_paid_for_though_a_call_had_taken_it_over(
    lab: Any, maybe: Any
) -> None:
    @tool(reads="web", usd="0.01")
    async def dear(query: str) -> str:
        await lab.work(query)
        if len(lab.made) == 1:
            raise OSError
        return "fine"

    engine = lab.start(maybe("dear", query="x"), tools=[dear])
    run = engine.start(buy, 1.0, dear, "x")

    assert await run == "fine"

    assert run.ledger.spent.usd == engine.ledger.spent.usd == Decimal("0.01")
    assert engine.services.foresight.ledger.spent.usd == Decimal("0.01")


async def test_the_budget_of_guesses_holds_under_concurrency(
    lab: Any, maybe: Any, dear: Any
) -> None:
    guesses = [maybe("dear", query=str(n)) for n in range(8)]
    engine = lab.start(*guesses, tools=[dear], budget=Budget(usd="0.03"))

    await asyncio.gather(*(engine.run(idle, 5.0) for _ in range(3)))

    assert len(lab.calls) == 3


async def test_a_guess_that_is_used_makes_room_in_the_budget_for_another(
    lab: Any, maybe: Any, dear: Any
) -> None:
    guesses = [maybe("dear", 0.95, query="x"), maybe("dear", query="y")]
    engine = lab.start(*guesses, tools=[dear], budget=Budget(usd="0.01"))

    @workflow
    async def ask() -> list[str]:
        await asyncio.sleep(3)
        one = await dear("x")
        await asyncio.sleep(3)
        return [one, await dear("y")]

    assert await engine.run(ask) == ["X", "Y"]

    assert lab.used() == [2.0, 2.0]
