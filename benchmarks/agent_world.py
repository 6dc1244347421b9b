"""The tools of `agent.py`: plain functions that take declared times, and are counted.

What a call gives is known (`agent_programs.result`); how long it takes is drawn from the
distributions of `replay.py`, the same for the same call whoever makes it. A program in the sandbox
takes its time statement by statement.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from statistics import NormalDist
from typing import Any

from agent_programs import Program, mark, result
from agent_time import Times
from replay import USD, latency
from sessions import call_key, chance

CLASSES = {
    "search": "web",
    "open_page": "web",
    "find_customer": "database",
    "find_order": "database",
    "track": "web",
    "rule": "file",
    "refund": "database",
    "list_files": "file",
    "read_file": "file",
}
"""Where each tool's times and prices come from."""

STATEMENT_MS = (150.0, 900.0)
"""Median and 95th percentile of a statement in the sandbox."""

EFFECTS: Mapping[str, Mapping[str, Any]] = {
    "search": {"reads": "web"},
    "open_page": {"reads": "web"},
    "find_customer": {"reads": "shop/customers"},
    "find_order": {"reads": "shop/orders/{order}"},
    "track": {"reads": "parcels/{parcel}"},
    "rule": {"reads": "rules/{topic}"},
    "refund": {"writes": "shop/orders/{order}"},
    "list_files": {"reads": "files"},
    "read_file": {"reads": "files"},
    "run": {"reads": "files"},
}
"""What each does, as agentflow is told; programs run on a copy of the files."""

_P95 = NormalDist().inv_cdf(0.95)

Tool = Callable[..., Awaitable[Any]]


class World:
    """What the tools of one run do, and how often they did it."""

    def __init__(self, times: Times) -> None:
        self._times = times
        self.ended: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        self._usd: Counter[str] = Counter()

    @property
    def usd(self) -> Decimal:
        """What all calls cost, those that were broken off too."""
        return sum((Decimal(usd) * count for usd, count in self._usd.items()), Decimal(0))

    @property
    def started(self) -> int:
        """Calls that began."""
        return self.ended.total() + self.broken.total()

    def wasted(self, programs: Iterable[Program]) -> int:
        """Calls that began though no program has them, once more than it has, or broke off."""
        wanted = Counter(key for program in programs for key in keys(program))
        return self.broken.total() + (self.ended - wanted).total()

    @contextmanager
    def call(
        self, tool: str, arguments: Callable[[], Mapping[str, Any]], usd: str | None = None
    ) -> Iterator[None]:
        """Count a call; its arguments are asked for when it ends."""
        self._usd[price(tool) if usd is None else usd] += 1
        try:
            with self._times.during("tools"):
                yield
        except BaseException:
            self.broken[tool] += 1
            raise
        self.ended[call_key(tool, arguments())] += 1

    async def perform(self, tool: str, **arguments: str) -> Mapping[str, Any]:
        """What a tool does."""
        with self.call(tool, lambda: arguments):
            await asyncio.sleep(seconds(tool, arguments))
        return result(tool, arguments)

    async def execute(self, pieces: AsyncIterator[str]) -> Mapping[str, Any]:
        """Run a program, each statement as soon as it is there."""
        lines: list[str] = []
        with self.call("run", lambda: {"code": "\n".join(lines)}):
            rest = ""
            async for piece in pieces:
                *whole, rest = (rest + piece).split("\n")
                for line in whole:
                    await asyncio.sleep(statement(line))
                    lines.append(line)
            await asyncio.sleep(statement(rest))
            lines.append(rest)
        return result("run", {"code": "\n".join(lines)})


def tools(world: World) -> dict[str, Tool]:
    """The tools as plain functions; `run` takes the whole program."""

    async def search(query: str) -> Any:
        """Search the web."""
        return await world.perform("search", query=query)

    async def open_page(page: str) -> Any:
        """Read a page that a search has found."""
        return await world.perform("open_page", page=page)

    async def find_customer(email: str) -> Any:
        """Who a customer is, and what was ordered."""
        return await world.perform("find_customer", email=email)

    async def find_order(order: str) -> Any:
        """An order, and its parcel."""
        return await world.perform("find_order", order=order)

    async def track(parcel: str) -> Any:
        """Where a parcel is."""
        return await world.perform("track", parcel=parcel)

    async def rule(topic: str) -> Any:
        """What holds in such cases."""
        return await world.perform("rule", topic=topic)

    async def refund(order: str) -> Any:
        """Give the money for an order back."""
        return await world.perform("refund", order=order)

    async def list_files(folder: str) -> Any:
        """The files in a folder."""
        return await world.perform("list_files", folder=folder)

    async def read_file(path: str) -> Any:
        """The text of a file."""
        return await world.perform("read_file", path=path)

    async def run(code: str) -> Any:
        """Run a program in a sandbox, beside a copy of the files."""
        return await world.execute(whole(code))

    listed: list[Any] = [
        search, open_page, find_customer, find_order, track, rule, refund, list_files, read_file, run,
    ]  # fmt: skip
    return {function.__name__: function for function in listed}


async def whole(text: str) -> AsyncIterator[str]:
    """A text that comes in one piece."""
    yield text


def seconds(tool: str, arguments: Mapping[str, str]) -> float:
    """How long a call takes; the same for the same call."""
    if tool == "run":
        return sum(map(statement, arguments["code"].split("\n")))
    return latency(CLASSES[tool], mark(tool, arguments))


def statement(line: str) -> float:
    """Seconds of a statement in the sandbox."""
    middle, high = STATEMENT_MS
    spread = math.log(high / middle) / _P95
    return middle / 1e3 * math.exp(spread * NormalDist().inv_cdf(chance("statement", line)))


def price(tool: str) -> str:
    """USD of a call; the sandbox is one's own."""
    return USD[CLASSES[tool]] if tool in CLASSES else "0"


def keys(program: Program) -> list[str]:
    """The calls of a program, but for estimates, which are no tool's work."""
    pairs = zip(program.steps, program.arguments, strict=True)
    return [call_key(step.tool, given) for step, given in pairs if step.tool != "estimate"]
