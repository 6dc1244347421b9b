"""An environment whose writes change later reads, and tools of all kinds that work on it.

What a call gives depends on the environment and on its arguments alone; how long it takes, and
which of its attempts fail, is up to chance.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Annotated, Any

import pydantic

from agentflow import Commit, Context, Done, Late, NotDone, Stream, Tool, Warm, tool

PRICE = Decimal("0.001")
"""USD of one attempt of the tool that has a price."""

FLAWS = 2
"""Attempts of a tool that is flawed, which fail; it has more."""

WORLD: ContextVar[World] = ContextVar("world")

Lower = Annotated[str, pydantic.StringConstraints(to_lower=True, strip_whitespace=True)]

LEAF, AREA = "tree/{area}/{key}", "tree/{area}"


class Unreadable(Exception):
    """Raised by reads of some values."""


class Refused(Exception):
    """Raised by writes that were not made."""


class Half(Exception):
    """Raised by writes that were made."""


class Flaw(Exception):
    """Raised by the first attempts at some calls."""


@dataclass
class State:
    """What is left of an environment when the process of its tools dies.

    Attributes:
        leaves: Numbers by area and key.
        made: What writes gave, by their idempotency key.
        wrote: How often each write was made, with its arguments.
        outside: Passes before which somebody else has written.
    """

    leaves: Counter[tuple[str, str]] = field(default_factory=Counter)
    made: dict[str, Any] = field(default_factory=dict)
    wrote: Counter[tuple[str, ...]] = field(default_factory=Counter)
    outside: set[str] = field(default_factory=set)

    def copy(self) -> State:
        """The same, apart from what happens now."""
        return State(Counter(self.leaves), dict(self.made), Counter(self.wrote), set(self.outside))


class World:
    """What tools work on.

    Args:
        mood: Decides how long calls take.
        state: What is there already.

    Attributes:
        state: What is there.
        wrong: What happened that never may.
        paid: USD that attempts with a price have cost.
        open: Warm-ups that are not cleaned up.
    """

    def __init__(self, mood: str, state: State) -> None:
        self.state = state
        self.wrong: list[str] = []
        self.paid = Decimal(0)
        self.open = 0
        self._mood = mood
        self._passed: Counter[Any] = Counter()
        self._attempts: Counter[Any] = Counter()
        WORLD.set(self)

    async def passes(self, *what: Any) -> None:
        """Some time passes; for the same work as often, the same."""
        self._passed[what] += 1
        chance = random.Random(f"{self._mood} {what} {self._passed[what]}")
        await asyncio.sleep(chance.choice((0, 0, 0.01, 0.1, 0.5, 2)))

    async def read(self, area: str, key: str) -> int:
        """A number."""
        await self.passes(area, key)
        number = self.state.leaves[area, key]
        await self.passes(area, key)
        return number

    async def write(
        self, ctx: Context, what: tuple[str, ...], change: Callable[[], Any], *, once: bool = False
    ) -> Any:
        """Change something, once for each idempotency key if the tool says so."""
        await self.passes(what)
        made = self.state.made
        if not (once and ctx.idempotency_key in made):
            self.state.wrote[what] += 1
            made[ctx.idempotency_key] = change()
        await self.passes(what)
        return made[ctx.idempotency_key]

    def flawed(self, *call: Any) -> bool:
        """Whether this attempt at a call fails."""
        self._attempts[call] += 1
        return self._attempts[call] <= FLAWS

    def set(self, area: str, key: str, n: int) -> str:
        """Change a number, so that the order of changes matters."""
        leaves = self.state.leaves
        leaves[area, key] = leaves[area, key] * 7 % 1000 + n
        return f"{key} is {leaves[area, key]}"

    def wipe(self, area: str) -> list[str]:
        """Change all numbers of an area."""
        return [self.set(area, key, 1) for key in "xyz"]


def world() -> World:
    """What the tools that are called here work on."""
    return WORLD.get()


def fits(n: int) -> bool | str:
    """A check of an argument."""
    return n != 13 or "not that one"


# Reads


async def get(area: str, key: str) -> dict[str, Any]:
    """A leaf, in a form that further calls can be made of."""
    number = await world().read(area, key)
    return {"n": number, "even": number % 2 == 0, "next": "xyz"[number % 3]}


async def peek(area: str, key: str, hint: Late[str] = "none") -> list[Any]:
    """A leaf, which is not kept for other runs."""
    number = await world().read(area, key)
    return [number % 2, number, await hint]


async def dump(area: str, style: Stream[str] = "", *, lead: Warm[str]) -> list[Any]:
    """All leaves of an area."""
    count = 0
    async for piece in style:
        count += len(piece)
    found = [[key, await world().read(area, key)] for key in "xyz"]
    return [found, count, lead == (await style.whole())[:1]]


async def flaky(area: str, key: str) -> int:
    """A leaf, at the third attempt."""
    if world().flawed("flaky", area, key):
        await world().passes("flaky", area, key)
        raise Flaw("not now")
    return await world().read(area, key)


async def broken(area: str, key: str) -> str:
    """Fails always."""
    await world().read(area, key)
    raise Unreadable(f"{key} was never readable")


async def risky(area: str, key: str) -> int:
    """A leaf, unless its number is of a certain kind."""
    number = await world().read(area, key)
    if number % 3 == 2:
        raise Unreadable(f"{key} is unreadable at {number}")
    return number


async def shout(text: str) -> str:
    """In capitals."""
    await world().passes(text)
    return text.upper()


async def double(n: int) -> int:
    """Twice."""
    world().paid += PRICE
    await world().passes("double", n)
    return 2 * n


async def upto(n: int) -> AsyncIterator[int]:
    """The numbers below one."""
    for number in range(n):
        await world().passes("upto", n)
        yield number


async def times(text: Stream[Lower], n: Late[int]) -> str:
    """A text, some times."""
    whole = await text.whole()
    await world().passes(whole)
    return whole * await n


def reverse(text: str) -> str:
    """From the end; in a thread."""
    return text[::-1]


# Writes


async def put(
    area: str, key: str, tag: str, n: int, memo: Late[str], *, ctx: Context, commit: Commit
) -> str:
    """Change a leaf."""
    await world().passes(tag)
    await commit()
    said = await memo
    await world().passes(tag)
    what = ("put", area, key, tag, f"{n}", said)
    made: str = await world().write(ctx, what, lambda: world().set(area, key, n))
    return made


async def wipe(area: str, tag: str, why: Stream[str], *, ctx: Context, commit: Commit) -> list[str]:
    """Change all leaves of an area."""
    await commit()
    what = ("wipe", area, tag, await why.whole())
    made: list[str] = await world().write(ctx, what, lambda: world().wipe(area))
    return made


async def again(area: str, key: str, tag: str, n: int, *, ctx: Context, lead: Warm[str]) -> str:
    """Change a leaf, which may be asked for twice."""
    what = ("again", area, key, tag, f"{n}", lead)
    made: str = await world().write(ctx, what, lambda: world().set(area, key, n), once=True)
    if world().flawed("again", tag):
        raise Flaw("it was made, and not said")
    return made


async def half(area: str, key: str, tag: str, *, ctx: Context) -> None:
    """Change a leaf, and fail."""
    await world().write(ctx, ("half", area, key, tag), lambda: world().set(area, key, 2), once=True)
    raise Half(f"{key} was changed")


async def refuse(area: str, key: str, tag: str) -> None:
    """Change nothing, and fail."""
    await world().passes(tag)
    raise Refused(f"{key} stays as it is")


async def poke(area: str, key: str, tag: str, *, ctx: Context) -> str:
    """Nobody has said what this does: it changes a leaf."""
    what = ("poke", area, key, tag)
    made: str = await world().write(ctx, what, lambda: world().set(area, key, 5))
    return made


async def was_made(*_args: Any, ctx: Context, **_kwargs: Any) -> Done[Any] | NotDone:
    """Whether a write was made before the process died."""
    made = world().state.made
    return Done(made[ctx.idempotency_key]) if ctx.idempotency_key in made else NotDone()


# Warm-ups


async def session() -> AsyncIterator[str]:
    """Something that has to be closed."""
    world().open += 1
    try:
        await world().passes("session")
        yield "session"
    finally:
        world().open -= 1


async def glance(style: Stream[str]) -> str:
    """How a text begins."""
    await world().passes("glance")
    return (await style.whole())[:1]


@cache
def tools() -> dict[str, Tool[..., Any]]:
    """All tools by name: they are made once, and work on the world of their context."""
    flawed: dict[str, Any] = {"retries": FLAWS, "backoff": 0.1}
    leaf: dict[str, Any] = {"writes": LEAF}
    made: list[Tool[..., Any]] = [
        tool(reads=LEAF, ttl="1h")(get),
        tool(reads=LEAF)(peek),
        tool(reads=AREA, ttl="1h", limit=2)(dump),
        tool(reads=LEAF, **flawed)(flaky),
        tool(reads=LEAF, fallback="fallen back")(broken),
        tool(reads=LEAF, ttl="1h", negative_ttl=1)(risky),
        tool(pure=True)(shout),
        tool(pure=True, usd=PRICE, check={"n": fits})(double),
        tool(pure=True)(upto),
        tool(pure=True)(times),
        tool(pure=True)(reverse),
        tool(**leaf, verify=was_made, check={"n": fits})(put),
        tool(writes=AREA, verify=was_made)(wipe),
        tool(**leaf, **flawed, idempotent=True)(again),
        tool(**leaf, idempotent=True)(half),
        tool(**leaf, verify=was_made)(refuse),
        tool(verify=was_made)(poke),
    ]
    by_name = {one.name: one for one in made}
    by_name["again"].warm(session)
    by_name["dump"].warm(glance)
    return by_name
