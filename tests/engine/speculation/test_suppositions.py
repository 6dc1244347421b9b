"""Calls of a plan that start before what they wait for is known."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentflow import events, tool
from agentflow.caches.speculation.values import LARGEST
from agentflow.planner.plan import Plan


class Shop:
    """Tools of a plan; what `look` gives may change from run to run.

    Attributes:
        tools: For the engine.
        stock: What `look` finds.
    """

    def __init__(self, lab: Any) -> None:
        self.stock: dict[str, Any] = {"a": {"next": "b", "good": True}, "b": {"next": "c"}, "c": {}}

        @tool(reads="shop/{key}")
        async def look(key: str) -> dict[str, Any]:
            await lab.work(f"look {key}", 4.0)
            return dict(self.stock[key])

        @tool(reads="shop")
        async def price(key: str) -> str:
            return str(await lab.work(f"price {key}", 2.0))

        @tool(writes="shop/{key}")
        async def sell(key: str) -> dict[str, Any]:
            await lab.work(f"sell {key}", 3.0)
            return {"next": "b"}

        self.tools = [look, price, sell]


@pytest.fixture
def shop(lab: Any) -> Shop:
    return Shop(lab)


async def rounds(lab: Any, engine: Any, plan: Plan, number: int = 1) -> dict[str, float]:
    """Run a plan; when each call of the last run was begun, from the run's start."""
    for _ in range(number):
        lab.made.clear()
        began = asyncio.get_running_loop().time()
        await engine.run(plan)
    return {what: at - began for what, at in lab.made}


CHAIN = '$1 = look(key="a")\n$2 = price(key=$1.next)\njoin()'


async def test_what_uses_a_slow_value_starts_with_the_one_it_had_the_last_time(
    lab: Any, shop: Shop
) -> None:
    engine = lab.start(tools=shop.tools)
    plan = engine.plan(CHAIN)

    assert await rounds(lab, engine, plan) == {"look a": 0.0, "price b": 4.0}
    assert await rounds(lab, engine, plan) == {"look a": 0.0, "price b": 0.0}

    assert lab.used() == [2.0]
    assert asyncio.get_running_loop().time() == 10.0


async def test_a_wrong_supposition_is_ended_and_the_call_is_made_with_the_right_value(
    lab: Any, shop: Shop
) -> None:
    engine = lab.start(tools=shop.tools)
    plan = engine.plan(CHAIN)
    await rounds(lab, engine, plan)
    shop.stock["a"] = {"next": "c"}

    assert await rounds(lab, engine, plan) == {"look a": 0.0, "price b": 0.0, "price c": 4.0}

    assert lab.used() == []
    assert lab.wasted() == ["what it was based on did not come true"]


async def test_values_that_change_with_every_call_are_no_longer_supposed(
    lab: Any, shop: Shop
) -> None:
    engine = lab.start(tools=shop.tools)
    plan = engine.plan(CHAIN)
    for number in range(8):
        shop.stock["a"] = {"next": str(number)}
        made = await rounds(lab, engine, plan)

    assert made == {"look a": 0.0, "price 7": 4.0}


TWICE = '$1 = look(key="a")\n$2 = look(key=$1.next)\n$3 = price(key=$2.next)\njoin()'


@pytest.mark.parametrize(("depth", "begun"), [(1, 4.0), (2, 0.0)])
async def test_a_supposition_may_rest_on_another_as_deep_as_is_allowed(
    lab: Any, shop: Shop, depth: int, begun: float
) -> None:
    engine = lab.start(tools=shop.tools, depth=depth)
    plan = engine.plan(TWICE)

    made = await rounds(lab, engine, plan, 3)

    assert made == {"look a": 0.0, "look b": 0.0, "price c": begun}
    last = lab.told(events.CallPredicted)[-1]
    assert last.probability == (0.75 if depth == 1 else 0.75 * 0.75)


GUARDED = '$1 = look(key="a")\n$2 = price(key="x") if $1.good\njoin()'


async def test_a_call_behind_an_undecided_guard_starts_with_the_probability_learnt(
    lab: Any, shop: Shop
) -> None:
    engine = lab.start(tools=shop.tools)
    plan = engine.plan(GUARDED)

    assert await rounds(lab, engine, plan) == {"look a": 0.0, "price x": 0.0}

    assert lab.used() == [2.0]
    assert lab.told(events.CallPredicted)[0].probability == 0.5


async def test_a_guess_whose_call_is_skipped_is_wasted(lab: Any, shop: Shop) -> None:
    shop.stock["a"] = {"good": False, "next": "b"}
    engine = lab.start(tools=shop.tools)
    plan = engine.plan(GUARDED.replace("join", "$3 = look(key=$1.next)\njoin"))

    assert await rounds(lab, engine, plan) == {"look a": 0.0, "price x": 0.0, "look b": 4.0}

    (wasted,) = lab.told(events.SpeculationWasted)
    assert (wasted.at, wasted.why) == (4.0, "what it was based on did not come true")


async def test_guards_that_never_hold_are_learnt(lab: Any, shop: Shop) -> None:
    engine = lab.start(tools=shop.tools)
    plan = engine.plan(GUARDED)
    for _ in range(12):
        shop.stock["a"] = {"good": False, "text": "too long to be supposed" * LARGEST}
        made = await rounds(lab, engine, plan)

    assert made == {"look a": 0.0}


async def test_what_has_to_come_after_a_write_is_not_guessed_at_before(
    lab: Any, shop: Shop
) -> None:
    engine = lab.start(tools=shop.tools)
    plan = engine.plan('$1 = sell(key="b")\n$2 = look(key=$1.next)\njoin()')

    made = await rounds(lab, engine, plan, 3)

    assert made == {"sell b": 0.0, "look b": 3.0}
    assert lab.told(events.CallPredicted) == []


async def test_writes_are_not_made_on_a_supposition(lab: Any, shop: Shop) -> None:
    engine = lab.start(tools=shop.tools)
    plan = engine.plan('$1 = look(key="a")\n$2 = sell(key=$1.next)\njoin()')

    made = await rounds(lab, engine, plan, 3)

    assert made == {"look a": 0.0, "sell b": 4.0}


async def test_a_complete_plan_makes_no_other_calls_than_its_own(
    lab: Any, shop: Shop, maybe: Any
) -> None:
    engine = lab.start(maybe("price", key="z"), tools=shop.tools)

    made = await rounds(lab, engine, engine.plan(CHAIN))

    assert "price z" not in made
