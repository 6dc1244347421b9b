"""With the cache or without it: the same calls change the world, and every line gives the same."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from agentflow import Engine, settled, tool, workflow
from agentflow.caches.caching import Caching
from agentflow.caches.epochs import Epochs
from agentflow.caches.flights import Spawn
from agentflow.caches.tool_cache import ToolCache
from agentflow.testing import run_virtual
from agentflow.tools.tool import Tool
from agentflow.workflows import Workflow

READING = ("get", "get", "get", "dump", "size", "peek")
WRITING = ("put", "clear", "half", "hang", "again", "poke", "late")
ALONE = ("peek", "poke", "late")
"""Lines whose order nothing declares: they wait for what is before them, and are waited for."""

ROUNDS = 3
AREAS = ("a", "b")
LOST = "lost"


@dataclass(frozen=True)
class Line:
    """One call. `uses` is the line whose result it takes, or None."""

    tool: str
    key: str
    uses: int | None


def program(chance: random.Random) -> list[Line]:
    """Random reads, and fewer writes."""
    lines: list[Line] = []
    for _ in range(chance.randrange(3, 9)):
        name = chance.choice(READING if chance.random() < 0.7 else WRITING)
        uses = chance.randrange(len(lines)) if lines and chance.random() < 0.3 else None
        lines.append(Line(name, chance.choice("xy"), uses))
    return lines


class Half(Exception):
    """Raised by writes that have written."""


class World:
    """A tree of values that takes random times to read and change, and counts its calls."""

    def __init__(self, seed: int) -> None:
        self.tree: dict[tuple[str, str], str] = {}
        self.writes: Counter[tuple[str, ...]] = Counter()
        self.reads = 0
        self._chance = random.Random(seed)
        self._slow: list[asyncio.Task[None]] = []
        leaf, area = "tree/{area}/{key}", "tree/{area}"
        self.tools: dict[str, Tool[..., Any]] = {
            "get": tool(reads=leaf, ttl=1000)(self.get),
            "dump": tool(reads=area)(self.dump),
            "size": tool(pure=True)(self.size),
            "put": tool(writes=leaf)(self.put),
            "clear": tool(writes=area)(self.clear),
            "half": tool(writes=leaf)(self.half),
            "hang": tool(writes=leaf, timeout=50)(self.hang),
            "again": tool(writes=leaf, idempotent=True, retries=1, backoff=1)(self.again),
            "poke": tool(self.poke),
            "late": tool(writes=leaf, timeout=50)(self.late),
            "peek": workflow(self.peek),
        }

    async def _pass(self) -> None:
        await asyncio.sleep(self._chance.choice((0, 1, 1, 2, 5, 20)))

    def _write(self, name: str, area: str, key: str, value: str) -> None:
        self.writes[name, area, key, value] += 1
        self.tree[area, key] = value

    async def get(self, area: str, key: str, value: str) -> str:
        self.reads += 1
        await self._pass()
        seen = self.tree.get((area, key), "nothing")
        await self._pass()
        return seen

    async def dump(self, area: str, key: str, value: str) -> list[list[str]]:
        self.reads += 1
        await self._pass()
        seen = sorted([k, v] for (a, k), v in self.tree.items() if a == area)
        await self._pass()
        return seen

    async def size(self, area: str, key: str, value: str) -> int:
        self.reads += 1
        await self._pass()
        return len(value)

    async def peek(self, area: str, key: str, value: str) -> Any:
        return [await self.tools["get"](area, key, ""), await self.tools["dump"](area, key, value)]

    async def put(self, area: str, key: str, value: str) -> str:
        await self._pass()
        self._write("put", area, key, value)
        await self._pass()
        return "put"

    async def clear(self, area: str, key: str, value: str) -> int:
        await self._pass()
        gone = [place for place in self.tree if place[0] == area]
        for _, name in gone:
            self._write("clear", area, name, "")
        await self._pass()
        return len(gone)

    async def half(self, area: str, key: str, value: str) -> None:
        await self._pass()
        self._write("half", area, key, value)
        await self._pass()
        raise Half

    async def hang(self, area: str, key: str, value: str) -> None:
        await self._pass()
        self._write("hang", area, key, value)
        await asyncio.sleep(1000)

    async def again(self, area: str, key: str, value: str) -> str:
        await self._pass()
        self._write("again", area, key, value)
        await self._pass()
        if self.writes["again", area, key, value] % 2:
            raise Half
        return "again"

    async def poke(self, area: str, key: str, value: str) -> str:
        await self._pass()
        self._write("poke", area, key, value)
        return "poked"

    async def late(self, area: str, key: str, value: str) -> None:
        """It is given up on before it writes; whoever calls it waits until it has."""
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
            self._write("late", area, key, value)
            raise


def session(world: World, lines: list[Line], area: str, number: int) -> Workflow[..., Any]:
    """A workflow that makes the calls of a program, in the order written."""

    @workflow
    async def flow() -> list[Any]:
        handles: list[Any] = []
        for place, line in enumerate(lines):
            alone = line.tool in ALONE or (line.uses is not None and len(handles) % 2 == 0)
            if alone and handles:
                await settled(*handles)
            value = f"{number}.{place}" if line.tool in WRITING else ""
            if line.uses is not None:
                value += str((await settled(handles[line.uses]))[0].value)
            handles.append(world.tools[line.tool](area, line.key, value))
            if alone:
                await settled(handles[-1])
        ends = await settled(*handles)
        return [end.value if end.ok else LOST for end in ends]

    return flow


@dataclass
class Outcome:
    """What came of it all; `reads` is how many were made."""

    tree: dict[tuple[str, str], str]
    writes: Counter[tuple[str, ...]]
    results: list[Any]
    reads: int

    def same(self, other: Outcome) -> bool:
        return (self.tree, self.writes, self.results) == (other.tree, other.writes, other.results)


async def rounds(seed: int, cache: Caching | bool, speculation: bool = False) -> Outcome:
    """Several rounds in one engine; in each a session per area, at the same time."""
    chance, world, results = random.Random(seed), World(seed), []
    tools = world.tools.values()
    async with Engine(tools=tools, cache=cache, speculation=speculation, seed=seed) as engine:
        for number in range(ROUNDS):
            flows = [session(world, program(chance), area, number) for area in AREAS]
            results.append(await asyncio.gather(*(engine.run(flow) for flow in flows)))
    return Outcome(world.tree, world.writes, results, world.reads)


@pytest.mark.parametrize("batch", range(4))
def test_the_cache_changes_nothing_but_how_many_reads_are_made(batch: int) -> None:
    saved = 0
    for seed in range(batch * 12, batch * 12 + 12):
        without, with_it = run_virtual(rounds(seed, False)), run_virtual(rounds(seed, True))
        assert with_it.same(without), seed
        assert with_it.reads <= without.reads, seed
        saved += without.reads - with_it.reads
    assert saved > 50


def test_speculation_changes_nothing_but_how_many_reads_are_made() -> None:
    guessed = 0
    for seed in range(10):
        without = run_virtual(rounds(seed, False))
        with_it = run_virtual(rounds(seed, True, speculation=True))
        assert with_it.same(without), seed
        guessed += with_it.reads > without.reads
    assert guessed > 1


class Deaf(Epochs):
    """Hears of no write."""

    def begin(self, resources: Any) -> None: ...

    def end(self, resources: Any) -> None: ...

    async def raised(self, resources: Any) -> None: ...


class WithoutEpochs(Caching):
    """A cache that takes what it has for what there is."""

    def build(self, spawn: Spawn, chance: random.Random) -> ToolCache:
        cache = super().build(spawn, chance)
        cache.epochs = Deaf()
        return cache


def test_without_epochs_it_changes_results() -> None:
    differing = 0
    for seed in range(12):
        without = run_virtual(rounds(seed, False))
        differing += not run_virtual(rounds(seed, WithoutEpochs())).same(without)
    assert differing > 6
