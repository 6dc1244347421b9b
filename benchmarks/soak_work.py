"""What `soak.py` runs: workflows, plans and agent tasks, whose answers are known beforehand.

One call of a tool in a hundred goes wrong. What was not hit by a fault, or has been repeated
after one, gives the same answer in every run.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from agentflow import Engine, Plan, Task, Tool, llm, tool, workflow

KEYS = 5_000
"""Articles in the catalogue; some are asked for much more often than others."""

BEAT = 1.2
"""Seconds; tools take one of them or two, so that 200 runs at a time do not fill a processor."""

TIMEOUT = 10 * BEAT
"""Seconds an attempt of a tool may take; a tool that hangs takes all of them."""

HANG = TIMEOUT + 0.5
"""Seconds until a thread that hangs ends, long after it was given up."""


class Broken(Exception):
    """What a tool raises when it goes wrong."""


class Faults:
    """Goes wrong at random.

    Attributes:
        share: How many calls of tools do.
        struck: What happened how often.
    """

    def __init__(self, share: float, seed: int = 0) -> None:
        self.share = share
        self.struck: Counter[str] = Counter()
        self._chance = random.Random(seed)

    def draw(self) -> str:
        """What is to happen to a call; empty for nothing."""
        if self._chance.random() >= self.share:
            return ""
        kind = self._chance.choice(("raises", "raises", "hangs", "garbage"))
        self.struck[kind] += 1
        return kind

    async def strike(self, beats: float) -> Any:
        """Take some time and go wrong, or give None, or something that no tool may return."""
        await asyncio.sleep(beats * BEAT)
        kind = self.draw()
        if kind == "raises":
            raise Broken("reset by peer")
        if kind == "hangs":
            await asyncio.get_running_loop().create_future()
        return object() if kind else None


faults = Faults(0.0)


@dataclass(frozen=True)
class Article:
    """An entry of the catalogue."""

    key: str
    text: str
    price: int


@dataclass(frozen=True)
class Receipt:
    """What a shop gives for an order."""

    order: str
    total: int


def article(number: int) -> Article:
    """The article of a number."""
    return Article(f"a{number}", f"article {number} " * (10 + number % 40), number % 97 + 1)


@tool(reads="catalogue", ttl="10m", timeout=TIMEOUT, retries=2, backoff=0.01)
async def lookup(key: str) -> Article:
    """An article of the catalogue, such as a17."""
    wrong = await faults.strike(2)
    return wrong or article(int(key[1:]))


@tool(reads="orders/{order}", timeout=TIMEOUT, retries=2, backoff=0.01)
async def state(order: str) -> str:
    """The state of an order."""
    wrong = await faults.strike(1)
    return wrong or f"{order} is open"


@tool(pure=True, timeout=TIMEOUT, retries=2, backoff=0.01)
async def cost(price: int, count: int) -> int:
    """What some pieces cost."""
    wrong = await faults.strike(1)
    return wrong or price * count


@tool(writes="orders/{order}", timeout=TIMEOUT)
async def buy(order: str, total: int) -> Receipt:
    """Pay an order."""
    wrong = await faults.strike(2)
    return wrong or Receipt(order, total)


@tool(timeout=TIMEOUT)
async def tell(message: str) -> int:
    """Tell the customer."""
    wrong = await faults.strike(1)
    return wrong or len(message)


@tool(pure=True, timeout=TIMEOUT, retries=2, backoff=0.01)
def render(text: str) -> str:
    """A text in capitals."""
    match faults.draw():
        case "raises":
            raise Broken("no fonts")
        case "hangs":
            threading.Event().wait(HANG)
        case "garbage":
            return 3  # type: ignore[return-value]  # goes wrong on purpose
    return text.upper()


@tool(pure=True, timeout=TIMEOUT, retries=2, backoff=0.01)
async def pages(text: str) -> AsyncIterator[str]:
    """A text in pages of 100 characters."""
    for start in range(0, len(text), 100):
        if await faults.strike(0.2):
            raise Broken("torn page")
        yield text[start : start + 100]


@llm(max_tokens=64, timeout=20.0, retries=2, backoff=0.01)
async def headline(text: str) -> str:
    """Write a headline for: {text}"""
    raise NotImplementedError


@workflow
async def ship(order: str, total: int) -> Receipt:
    """Buy, and tell the customer."""
    receipt = await buy(order, total)
    await tell(f"{receipt.order} is paid")
    return receipt


@workflow
async def shop(number: int) -> list[Any]:
    """Look up, compute, buy, and write about it."""
    found = lookup.map([f"a{one}" for one in wanted(number)])
    costs = cost.map(found.each.price, count=number)
    title = headline(found.ref[0].text)
    shouted, paged = render(found.ref[1].text), pages(found.ref[2].text)
    total = sum(await costs)
    receipt = ship(f"o{number}", total)
    said = await state(f"o{number}")
    return [total, await title, len(await shouted), len(await paged), (await receipt).total, said]


def wanted(number: int) -> list[int]:
    """The articles that a customer asks for; a few of them are asked for all the time."""
    chance = random.Random(number)
    return [int(KEYS * chance.random() ** 3) for _ in range(4)]


def shop_expected(number: int) -> list[Any]:
    """What `shop` gives."""
    first, second, third, _ = found = [article(one) for one in wanted(number)]
    total = sum(one.price * number for one in found)
    pieces = -(-len(third.text) // 100)
    title = f"About {len(first.text)} characters"
    return [total, title, len(second.text), pieces, total, f"o{number} is open"]


PLAN = """\
$1 = lookup(key="a{one}")
$2 = lookup(key="a{two}")
$3 = cost(price=$1.price, count={number})
$4 = cost(price=$2.price, count={number})
$5 = buy(order="p{number}", total=$3)
$6 = state(order="p{number}")
$7 = tell(message="${{5.order}}: ${{6}}") if $5.total
return [$3, $4, $5.total, $7]
"""


def plan_text(number: int) -> str:
    """A plan that is like no other."""
    one, two, *_ = wanted(number)
    return PLAN.format(one=one, two=two, number=number)


def plan_expected(number: int) -> list[int]:
    """What its run gives."""
    one, two = (article(one).price * number for one in wanted(number)[:2])
    told = f"p{number}: p{number} is open"
    return [one, two, one, len(told)]


TOOLS: list[Tool[..., Any]] = [lookup, state, cost, buy, tell, render]


def target(engine: Engine, number: int) -> tuple[Any, dict[str, Any], Any]:
    """The run of a number: what is run, with which fields, and the answer that it must give."""
    match number % 10:
        case 0 | 1 | 2 | 3:
            return shop, {"number": number}, shop_expected(number)
        case 4 | 5 | 6:
            plan: Plan = engine.plan(plan_text(number))
            return plan, {}, plan_expected(number)
        case 7 | 8:
            question = f"Customer {number} goes turn by turn."
            return Task(question, strategy="react"), {}, f"Customer {number} is served."
        case _:
            question = f"Customer {number} wants a plan."
            return Task(question), {}, f"Customer {number} is served."
