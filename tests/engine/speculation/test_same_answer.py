"""The same calls are committed, with the same results, whatever is switched on.

Random programs run in a world whose writes change later reads, each time with other latencies,
with guesses that are right, wrong, stale, or nonsense.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow import Caching, Engine, Plan, Speculation, Tool, events, tool, workflow
from agentflow.caches.epochs import Epochs
from agentflow.caches.memory import MemoryStore
from agentflow.caches.speculation.candidates import Candidate
from agentflow.caches.speculation.trail import Trail
from agentflow.caches.tool_cache import ToolCache
from agentflow.errors import RunFailed
from agentflow.testing import run_virtual

AREAS, KEYS = "ab", "xyz"

PASSES = 3
"""Runs of a program, one after the other in one world."""

Call = tuple[str, dict[str, Any]]


class World:
    """A tree of numbers, and tools that take random times to read and change it."""

    def __init__(self, seed: str, hedge: float | bool, *, fragile: bool) -> None:
        self._chance = random.Random(seed)
        self._fragile = fragile
        self._leaves = {(area, key): 0 for area in AREAS for key in KEYS}
        leaf, area = "tree/{area}/{key}", "tree/{area}"
        read: dict[str, Any] = {"hedge": hedge}
        self.tools: list[Tool[..., Any]] = [
            tool(reads=leaf, ttl="1h", **read)(self.get),
            tool(reads=leaf, **read)(self.peek),
            tool(reads=area, ttl="1h", limit=2, **read)(self.dump),
            tool(reads="tree", **read)(self.count),
            tool(pure=True, **read)(self.double),
            tool(writes=leaf)(self.put),
            tool(writes=area)(self.wipe),
            tool()(self.poke),
        ]

    async def _pass(self) -> None:
        await asyncio.sleep(self._chance.choice((0, 0, 0.1, 0.5, 1, 3)))

    async def get(self, area: str, key: str) -> dict[str, Any]:
        """A leaf, in a form that further calls can be made of; some cannot be read."""
        await self._pass()
        number = self._leaves[area, key]
        await self._pass()
        if self._fragile and number % 4 == 3:
            raise LookupError(f"{area}/{key} is unreadable at {number}")
        return {"n": number, "even": number % 2 == 0, "next": KEYS[number % 3], "at": area + key}

    async def peek(self, area: str, key: str) -> list[Any]:
        await self._pass()
        number = self._leaves[area, key]
        await self._pass()
        return [area, key, number]

    async def dump(self, area: str) -> dict[str, int]:
        await self._pass()
        found = {key: self._leaves[area, key] for key in KEYS}
        await self._pass()
        return found

    async def count(self) -> int:
        await self._pass()
        total = sum(self._leaves.values())
        await self._pass()
        return total

    async def double(self, n: int) -> int:
        await self._pass()
        return 2 * n

    async def put(self, area: str, key: str, n: int) -> str:
        await self._pass()
        self._leaves[area, key] = self._leaves[area, key] * 7 % 1000 + n
        await self._pass()
        return f"put {area}/{key} {n}"

    async def wipe(self, area: str) -> str:
        await self._pass()
        for key in KEYS:
            self._leaves[area, key] += 1
        await self._pass()
        return f"wiped {area}"

    async def poke(self, area: str, key: str) -> int:
        """Nobody has said what this does."""
        await self._pass()
        self._leaves[area, key] += 5
        await self._pass()
        return self._leaves[area, key]


# Programs


def call(chance: random.Random, areas: str, *, undeclared: bool = False) -> Call:
    """A call in one of these areas."""
    area, key, n = chance.choice(areas), chance.choice(KEYS), chance.randrange(4)
    calls: list[Call] = [
        *[("get", {"area": area, "key": key})] * 4,
        *[("peek", {"area": area, "key": key})] * 2,
        ("dump", {"area": area}),
        ("double", {"n": n}),
        *[("put", {"area": area, "key": key, "n": n})] * 2,
        ("wipe", {"area": area}),
        *([("count", {})] if areas == AREAS else []),
        *([("poke", {"area": area, "key": key})] if undeclared else []),
    ]
    return chance.choice(calls)


def steps(chance: random.Random, areas: str, depth: int) -> list[tuple[str, Any]]:
    """What a workflow does: single calls, segments, branches on a value, and parallel parts."""
    found: list[tuple[str, Any]] = []
    for _ in range(chance.randrange(1, 5)):
        kind = chance.choice(("call", "call", "segment", "if", "both"))
        if kind == "segment":
            calls = [call(chance, areas) for _ in range(chance.randrange(2, 5))]
            found.append((kind, calls))
        elif kind == "if" and depth:
            ways = [steps(chance, areas, depth - 1) for _ in range(2)]
            found.append((kind, (call(chance, areas), *ways)))
        elif kind == "both" and depth and len(areas) > 1:
            found.append((kind, [steps(chance, area, depth - 1) for area in areas]))
        else:
            found.append(("call", call(chance, areas, undeclared=True)))
    return found


def plan_text(chance: random.Random) -> str:
    """A plan with references, guards and maps."""
    lines, readable = [], [0]
    for number in range(1, chance.randrange(3, 9)):
        name, arguments = call(chance, AREAS)
        source = chance.choice(readable)
        given = {key: json.dumps(value) for key, value in arguments.items()}
        if source and "key" in given and chance.random() < 0.5:
            given["key"] = f"${source}.next"
        elif "key" in given and chance.random() < 0.2:
            given["key"] = 'each ["x", "z"]'
        guard = f" if ${source}.even" if source and chance.random() < 0.4 else ""
        if name == "get" and "each" not in given["key"] and not guard:
            readable.append(number)
        written = ", ".join(f"{key}={value}" for key, value in given.items())
        lines.append(f"${number} = {name}({written}){guard}")
    return "\n".join([*lines, "join()"])


@workflow
async def wandering(items: list[Any], tools: Any) -> list[Any]:
    return await perform(tools, items)


async def perform(tools: dict[str, Any], items: Sequence[tuple[str, Any]]) -> list[Any]:
    """Do what a workflow does."""
    out: list[Any] = []
    for kind, what in items:
        if kind == "call":
            out.append(await outcome(tools[what[0]](**what[1])))
        elif kind == "segment":
            handles = [tools[name](**arguments) for name, arguments in what]
            out.append([await outcome(handle) for handle in handles])
        elif kind == "if":
            (name, arguments), one, other = what
            value = await outcome(tools[name](**arguments))
            chosen = one if sum(map(ord, str(value))) % 2 else other
            out.append([value, await perform(tools, chosen)])
        else:
            out.append(await asyncio.gather(*(perform(tools, part) for part in what)))
    return out


async def outcome(handle: Any) -> Any:
    try:
        return await handle
    except LookupError as error:
        return str(error)


def is_plan(seed: int) -> bool:
    return seed % 3 == 0


def program(seed: int, engine: Engine) -> Any:
    chance = random.Random(seed)
    return engine.plan(plan_text(chance)) if is_plan(seed) else steps(chance, AREAS, 2)


# Guesses


class Fortune:
    """Guesses at calls such as the program makes, writes too, and at nonsense."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(~seed)
        likely = [call(self._chance, AREAS, undeclared=True) for _ in range(12)]
        self._calls = [*likely, *NONSENSE]

    def candidates(self, trail: Trail, limit: int) -> Sequence[Candidate]:
        chance = self._chance
        calls = chance.choices(self._calls, k=chance.randrange(limit))
        return [
            Candidate(name, dict(arguments), chance.random(), chance.random(), "a whim")
            for name, arguments in calls
        ]

    def learn(self, trail: Trail) -> None:
        pass

    def close(self, trail: Trail) -> None:
        pass


NONSENSE: list[Call] = [
    ("nothing", {}),
    ("get", {"area": "a"}),
    ("get", {"area": ["a"], "key": {"x": 1}}),
    ("get", {"area": "a", "key": "x", "more": 1}),
    ("get", {"area": "nowhere", "key": "x"}),
    ("double", {"n": 10**400}),
    ("double", {"n": "z" * 100_000}),
    *[("peek", {"area": area, "key": key}) for area in AREAS for key in KEYS],
    *[("get", {"area": area, "key": key}) for area in AREAS for key in KEYS],
]


# Running


@dataclass(frozen=True)
class Switches:
    """What is switched on."""

    cache: bool = False
    guesses: bool = False
    hedge: bool = False


MATRIX = [
    Switches(cache, guesses, hedge)
    for cache, guesses in ((False, False), (True, False), (True, True))
    for hedge in (False, True)
    if cache or hedge
]

GUESSING = Switches(cache=True, guesses=True)


class Still(Epochs):
    """Epochs that no write raises."""

    def begin(self, resources: Iterable[Any]) -> None:
        """Nothing changes, whatever is written."""

    def end(self, resources: Iterable[Any]) -> None:
        """Likewise."""

    async def raised(self, resources: Iterable[Any]) -> None:
        pass


class Forgetful(Caching):
    """A cache that does not notice writes."""

    def build(self, spawn: Any, chance: random.Random) -> ToolCache:
        return ToolCache(MemoryStore(), None, Still(), spawn, chance)


@dataclass
class Record:
    """What a program gave, its committed calls with what came of them, and guesses used."""

    values: list[Any]
    calls: Counter[str]
    used: int


def record(seed: int, switches: Switches, cache: Caching | bool) -> Record:
    """Run the program of a seed in a world of its own."""
    told: list[events.Event] = []

    async def main() -> list[Any]:
        # Which calls of a plan have ended when one fails is a matter of time.
        hedge, fragile = 0.3 if switches.hedge else False, not is_plan(seed)
        world = World(f"{seed} {switches}", hedge, fragile=fragile)
        speculation: Speculation | bool = False
        if switches.guesses:
            speculation = Speculation(source=Fortune(seed), load_price=0.0001, depth=3)
        engine = Engine(
            tools=world.tools, subscribers=[told.append], cache=cache, speculation=speculation
        )
        async with engine:
            return [await run(engine, seed, world) for _ in range(PASSES)]

    values = run_virtual(main())
    used = sum(isinstance(event, events.SpeculationUsed) for event in told)
    return Record(values, Counter(committed(told, numbered=is_plan(seed))), used)


async def run(engine: Engine, seed: int, world: World) -> Any:
    target = program(seed, engine)
    try:
        if isinstance(target, Plan):
            return await engine.run(target)
        return await engine.run(wandering, target, {made.name: made for made in world.tools})
    except RunFailed as failed:
        return f"{failed.failures}"


def committed(told: Iterable[events.Event], *, numbered: bool) -> Iterable[str]:
    """The calls that ended, with what came of them, as text."""
    for event in told:
        if isinstance(event, events.NodeFinished | events.NodeFailed | events.NodeSkipped):
            came = getattr(event, "value", getattr(event, "error", "skipped"))
            node = event.node if numbered else ""  # parallel parts are not numbered in one order
            yield f"{node} {event.tool} {event.element} {came!r}"


def differences(seed: int, *matrix: Switches, blind: bool = False) -> list[Switches]:
    """The switches with which a program does what it does not without any."""
    plain, found = record(seed, Switches(), cache=False), []
    for switches in matrix:
        other = record(seed, switches, Forgetful() if blind else switches.cache)
        if (other.values, other.calls) != (plain.values, plain.calls):
            found.append(switches)
    return found


@settings(max_examples=20)
@given(seed=st.integers(0, 1 << 32))
def test_nothing_that_is_switched_on_changes_what_a_program_does(seed: int) -> None:
    assert differences(seed, *MATRIX) == []


def test_without_the_epochs_of_writes_guesses_would_change_it() -> None:
    assert any(differences(seed, GUESSING, blind=True) for seed in range(20))


def test_the_guesses_of_this_test_come_true_often_enough() -> None:
    assert sum(record(seed, GUESSING, cache=True).used for seed in range(10)) > 20
