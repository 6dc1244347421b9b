"""Programs with declared effects give what they give run line by line, whatever takes how long."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from agentflow import Engine, settled, tool, workflow
from agentflow.planner.builder import Builder
from agentflow.planner.order import EffectOrder
from agentflow.planner.plan import Each, Node, Plan, Ref
from agentflow.testing import run_virtual
from agentflow.tools.toolbox import Toolbox

TOOLS = ("get", "put", "put", "bump", "bump", "dump", "wipe", "count", "fill")


class Failing(Exception):
    """Raised by lines that fail."""


@dataclass(frozen=True)
class Line:
    """One call. `uses` is the line whose result it takes, or None; `fill` bumps many keys."""

    tool: str
    area: str
    key: str
    uses: int | None
    keys: tuple[str, ...]
    fails: bool


def program(seed: int, trouble: float = 0.0) -> list[Line]:
    """Random reads and writes at every level of a small tree; some fail and do nothing."""
    chance = random.Random(seed)
    lines: list[Line] = []
    for _ in range(chance.randrange(2, 14)):
        name = chance.choice(TOOLS)
        uses = chance.randrange(len(lines)) if lines and chance.random() < 0.4 else None
        keys = tuple(chance.choices("xy", k=chance.randrange(4)))
        fails = name != "fill" and chance.random() < trouble
        lines.append(Line(name, chance.choice("ab"), chance.choice("xy"), uses, keys, fails))
    return lines


class World:
    """A tree of values, and tools that take random times to read and change it."""

    def __init__(self, seed: int) -> None:
        self.store: dict[tuple[str, str], Any] = {}
        self._chance = random.Random(seed)
        leaf, area = "tree/{area}/{key}", "tree/{area}"
        self.tools = Toolbox(
            [
                tool(reads=leaf)(self.get), tool(writes=leaf)(self.put), tool(writes=leaf)(self.bump),
                tool(reads=area)(self.dump), tool(writes=area)(self.wipe), tool(reads="tree")(self.count),
            ]
        )  # fmt: skip

    async def _pass(self, fails: bool = False) -> None:
        await asyncio.sleep(self._chance.choice((0, 1, 1, 2, 5, 20)))
        if fails:
            raise Failing

    async def get(self, area: str, key: str, value: Any, fails: bool) -> Any:
        await self._pass(fails)
        return self.store.get((area, key))

    async def put(self, area: str, key: str, value: Any, fails: bool) -> str:
        await self._pass(fails)
        self.store[area, key] = value
        await self._pass()
        return f"{area}{key}"

    async def bump(self, area: str, key: str, value: Any, fails: bool) -> str:
        before = self.store.get((area, key))
        await self._pass(fails)
        self.store[area, key] = f"{before}+{value}"
        return f"{before}"

    async def dump(self, area: str, key: str, value: Any, fails: bool) -> list[Any]:
        await self._pass(fails)
        return sorted([k, str(v)] for (a, k), v in self.store.items() if a == area)

    async def wipe(self, area: str, key: str, value: Any, fails: bool) -> int:
        gone = [place for place in self.store if place[0] == area]
        await self._pass(fails)
        for place in gone:
            self.store.pop(place, None)
        return len(gone)

    async def count(self, area: str, key: str, value: Any, fails: bool) -> int:
        await self._pass(fails)
        return len(self.store)


Outcome = tuple[dict[tuple[str, str], Any], list[Any]]
"""What is left in the tree, and the value of every line; LOST of those that have none."""

LOST = "lost"


async def line_by_line(lines: list[Line]) -> Outcome:
    world = World(0)
    results: list[Any] = []
    for number, line in enumerate(lines):
        value = number if line.uses is None else results[line.uses]
        if line.tool == "fill":
            done: Any = [await world.bump(line.area, key, number, False) for key in line.keys]
        elif line.fails or (line.uses is not None and value is LOST):
            done = LOST
        else:
            done = await world.tools[line.tool].fn(line.area, line.key, value, False)
        results.append(done)
    return world.store, results


async def as_plan(lines: list[Line], seed: int) -> Outcome:
    world = World(seed)
    builder = Builder(world.tools.spec)
    ids: list[int] = []
    for number, line in enumerate(lines):
        value = number if line.uses is None else Ref(ids[line.uses])
        args = (line.area, line.key, value, line.fails)
        node = Node(line.tool, args)
        if line.tool == "fill":
            node = Node("bump", (line.area, Each(line.keys), number, False))
        ids.append(builder.add(node))
    async with Engine(tools=world.tools.values()) as engine:
        results = await engine.run(Plan(builder.cut().nodes, [Ref(index) for index in ids]))
    return world.store, results


@tool(pure=True)
async def echo(value: Any) -> Any:
    return value


async def as_workflow(lines: list[Line], seed: int) -> Outcome:
    world, chance = World(seed), random.Random(seed)

    def call(number: int, line: Line, handles: list[Any]) -> Any:
        if line.tool == "fill":
            keys = echo(list(line.keys)).each
            return world.tools["bump"].map(line.area, key=keys, value=number, fails=False)
        value = number if line.uses is None else handles[line.uses].ref
        return world.tools[line.tool](line.area, line.key, value, line.fails)

    @workflow
    async def flow() -> list[Any]:
        handles: list[Any] = []
        for number, line in enumerate(lines):
            handles.append(call(number, line, handles))
            if chance.random() < 0.2:
                await asyncio.sleep(chance.randrange(3))
            elif chance.random() < 0.2:
                await settled(chance.choice(handles))
        outcomes = await settled(*handles)
        return [outcome.value if outcome.ok else LOST for outcome in outcomes]

    async with Engine() as engine:
        results = await engine.run(flow)
    return world.store, results


Runner = Callable[[list[Line], int], Coroutine[Any, Any, Outcome]]
WAYS = pytest.mark.parametrize(
    ("run", "trouble"), [(as_plan, 0.0), (as_workflow, 0.0), (as_workflow, 0.3)]
)


@WAYS
@pytest.mark.parametrize("batch", range(8))
def test_every_parallel_run_gives_the_result_of_the_sequential_one(
    run: Runner, trouble: float, batch: int
) -> None:
    for seed in range(batch * 20, batch * 20 + 20):
        lines = program(seed, trouble)
        assert run_virtual(run(lines, seed)) == run_virtual(line_by_line(lines)), (seed, lines)


@WAYS
def test_without_the_order_they_differ(
    run: Runner, trouble: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("read", "write"):
        monkeypatch.setattr(EffectOrder, name, lambda *_: ())
    differing = 0
    for seed in range(40):
        lines = program(seed, trouble)
        differing += run_virtual(run(lines, seed)) != run_virtual(line_by_line(lines))
    assert differing > 5
