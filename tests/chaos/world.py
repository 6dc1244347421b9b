"""A tree of texts, tools that read and change it, and a note of everything that may not be."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar, cast

from agentflow import Context, Stream, Tool, tool
from agentflow.clock import now
from tests.chaos.faults import Fate, Strike

T = TypeVar("T")

PRICE = Decimal("0.01")
"""USD of one attempt of the tool that has a price."""

RETRIES = 2

WORLD: ContextVar[World] = ContextVar("world")

OWNER: ContextVar[str] = ContextVar("owner")
"""Name of the pass that the current code belongs to."""

LEAF, AREA = "tree/{area}/{key}", "tree/{area}"


class ToolBroke(Exception):
    """Raised by tools that a fault strikes."""


class Odd(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Base(BaseException):
    """Not even an Exception."""


def world() -> World:
    """What the tools that are called here work on."""
    return WORLD.get()


class World:
    """What tools work on.

    Attributes:
        cells: The tree.
        wrong: What happened that never may.
        issued: How often the program has asked for a write, by its tag.
        wrote: How often a write was made, by its tag.
        keys: How often a write was begun, by its idempotency key.
        paid: USD that attempts with a price have cost.
        repeatable: Tags of writes that may be made more than once.
        doubtful: Areas in which a write may have been made or not.
        until: When the deadline of a pass is, by its name.
        slack: Seconds by which the clock has jumped.
        shares: Passes share what they read.
        honest: Models say what they are expected to.
        may_write: Whether a write with this tag has been asked for.
    """

    def __init__(self, fate: Fate, *, hedge: float | bool) -> None:
        self.fate = fate
        self.cells: dict[tuple[str, str], str] = {}
        self.wrong: list[str] = []
        self.issued: Counter[str] = Counter()
        self.wrote: Counter[str] = Counter()
        self.keys: Counter[str] = Counter()
        self.paid = Decimal(0)
        self.repeatable: set[str] = set()
        self.doubtful: set[str] = set()
        self.until: dict[str, float] = {}
        self.slack = 0.0
        self.shares = False
        self.honest = fate.mood != "hostile"
        self.may_write: Callable[[str], bool] = lambda tag: self.issued[tag] > 0
        self.tools = {made.name: made for made in _tools(hedge)}
        WORLD.set(self)

    # What the tools have in common

    def begin(
        self, name: str, arguments: Any, *, changes: bool = False, retried: bool = True
    ) -> Strike:
        if now() > self._latest(changes) + self.slack:
            self.wrong.append(f"{name}{arguments} began at {now():g}, after its deadline")
        return self.fate.of_tool(name, arguments, changes=changes, retried=retried)

    def _latest(self, changes: bool) -> float:
        """When a call may begin; what does not write may be made for another pass as well."""
        if changes or not self.shares:
            return self.until.get(OWNER.get(""), math.inf)
        return max(self.until.values(), default=math.inf)

    async def read(self, name: str, arguments: Any, value: Callable[[], T]) -> T:
        strike = self.begin(name, arguments)
        await _before(strike)
        found = value()
        return await _after(strike, found)

    async def write(
        self, name: str, ctx: Context, area: str, tag: str, change: Callable[[], str]
    ) -> str:
        again = name == "again"
        if again:
            self.repeatable.add(tag)
        self._check_write(name, ctx, tag, attempts=RETRIES + 1 if again else 1)
        strike = self.begin(name, tag, changes=True, retried=again)
        try:
            await _before(strike)
            self.wrote[tag] += 1
            return await _after(strike, change())
        except BaseException:
            self.doubtful.add(area)
            raise

    def _check_write(self, name: str, ctx: Context, tag: str, attempts: int) -> None:
        if not self.may_write(tag):
            self.wrong.append(f"{name}({tag}) was called at {now():g} before it was certain")
        self.keys[ctx.idempotency_key] += 1
        if self.keys[ctx.idempotency_key] > attempts:
            self.wrong.append(f"{name}({tag}) was attempted more than {attempts} times")

    # The tree

    def leaf(self, area: str, key: str) -> str:
        return self.cells.get((area, key), "nothing")

    def leaves(self, area: str) -> list[list[str]]:
        return sorted([key, text] for (where, key), text in self.cells.items() if where == area)

    def set(self, area: str, key: str, tag: str) -> str:
        self.cells[area, key] = tag
        return f"{key} is {tag}"

    def wiped(self, area: str, tag: str) -> str:
        for where, key in self.cells:
            if where == area:
                self.cells[where, key] = f"wiped by {tag}"
        return f"wiped {tag}"


async def _before(strike: Strike) -> None:
    """What an attempt does before its work."""
    await asyncio.sleep(strike.before)
    match strike.fault:
        case "raise":
            raise ToolBroke("it broke before it did anything")
        case "odd error":
            raise Odd
        case "base error":
            raise Base("it broke in its own way")
        case "cancelled":
            raise asyncio.CancelledError
        case "hang":
            await asyncio.get_running_loop().create_future()
        case "slow":
            await asyncio.sleep(15.0)
        case "lingers":
            await _sleep_on(1000.0, 1.0)
        case "deaf":
            await _sleep_on(1000.0, 50.0)


async def _sleep_on(seconds: float, further: float) -> None:
    """Sleep, and go on for a while when cancelled."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        await asyncio.sleep(further)
        raise


async def _after(strike: Strike, value: T) -> T:
    """What an attempt gives after its work."""
    await asyncio.sleep(strike.after)
    match strike.fault:
        case "raise after":
            raise ToolBroke("it broke after it had done its work")
        case "garbage":
            return cast("T", {"of": {1, 2}, "self": object()})
        case "nothing":
            return cast("T", None)
    return value


# Tools: they are made once, and work on the world of the context they are called in.


async def get(area: str, key: str) -> str:
    """One leaf."""
    return await world().read("get", (area, key), lambda: world().leaf(area, key))


async def peek(area: str, key: str) -> list[str]:
    """One leaf, which is not kept."""
    return await world().read("peek", (area, key), lambda: [world().leaf(area, key)])


async def dump(area: str) -> list[list[str]]:
    """All leaves of an area."""
    return await world().read("dump", area, lambda: world().leaves(area))


async def shout(text: str) -> str:
    """In capitals."""
    return await world().read("shout", text, text.upper)


async def double(n: int) -> int:
    """Twice."""
    return await world().read("double", n, lambda: 2 * n)


async def upto(n: int) -> AsyncIterator[int]:
    """The numbers below one."""
    strike = world().begin("upto", n)
    await _before(strike)
    for number in range(n):
        yield number
    await _after(strike, None)


async def read_aloud(text: Stream[str]) -> int:
    """How long a text is, as far as it is there."""
    strike = world().begin("read_aloud", "")
    count = 0
    async for piece in text:
        count += len(piece)
    await _before(strike)
    return await _after(strike, count)


def reverse(text: str) -> str:
    """From the end; in a thread."""
    return text[::-1]


async def buy(n: int) -> int:
    """Costs something, each time."""
    world().paid += PRICE
    return await world().read("buy", n, lambda: n)


async def put(area: str, key: str, tag: str, ctx: Context) -> str:
    """Change a leaf."""
    return await world().write("put", ctx, area, tag, lambda: world().set(area, key, tag))


async def again(area: str, key: str, tag: str, ctx: Context) -> str:
    """Change a leaf, which may be done twice."""
    return await world().write("again", ctx, area, tag, lambda: world().set(area, key, tag))


async def poke(area: str, key: str, tag: str, ctx: Context) -> str:
    """Nobody has said what this does: it changes a leaf."""
    return await world().write("poke", ctx, area, tag, lambda: world().set(area, key, tag))


async def wipe(area: str, tag: str, ctx: Context) -> str:
    """Change all leaves of an area."""
    return await world().write("wipe", ctx, area, tag, lambda: world().wiped(area, tag))


@cache
def _tools(hedge: float | bool) -> list[Tool[..., Any]]:
    common: dict[str, Any] = {"timeout": 20, "retries": RETRIES, "backoff": 0.1}
    reading = {**common, "hedge": hedge}
    return [
        tool(reads=LEAF, ttl="1h", **reading)(get),
        tool(reads=LEAF, negative_ttl=1, **reading)(peek),
        tool(reads=AREA, limit=2, **reading)(dump),
        tool(pure=True, **reading)(shout),
        tool(pure=True, **common)(double),
        tool(pure=True, **common)(upto),
        tool(pure=True, **common)(read_aloud),
        tool(pure=True, **common)(reverse),
        tool(reads="shop", usd=PRICE, ttl=5, **reading)(buy),
        tool(writes=LEAF, timeout=20)(put),
        tool(writes=AREA, timeout=20, fallback="lost: gave way")(wipe),
        tool(writes=LEAF, idempotent=True, **common)(again),
        tool(timeout=20)(poke),
    ]
