"""What a journal costs: a node in layers, a step in a chain, and beside them one commit a step."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import harness
import shapes
from harness import Goal
from shapes import Run, Shape

from agentflow import Engine, Journal, tool, workflow

Kept: TypeAlias = Literal["", "process", "power"]
"""What the journal survives; empty for no journal."""

PEERS = {"LangGraph, published": 1_500.0, "DBOS, published": 2_700.0}
"""Microseconds a step with a checkpoint each, as others have measured elsewhere."""

CHAIN = 200


@asynccontextmanager
async def ours(shape: Shape, folder: Path, kept: Kept, effect: str) -> AsyncIterator[Run]:
    """A workflow of tools that do nothing, whose handles are the edges."""
    declared: dict[str, Any] = {"pure": True} if effect == "pure" else {"writes": "w"}
    source, step, merge = (
        tool(**declared)(fn) for fn in (shapes.source, shapes.step, shapes.merge)
    )
    tools: Mapping[int, Callable[..., Any]] = {0: source, 1: step, 3: merge}

    @workflow
    async def program() -> int:
        made: list[Any] = []
        for number, needed in enumerate(shape.needs):
            values = [made[other].ref for other in needed] or [number]
            made.append(tools[len(needed)](*values))
        return sum(await asyncio.gather(*(made[node] for node in shape.ends)))

    journal = Journal(folder / f"{effect}-{kept}.db", durability=kept) if kept else False
    async with Engine(cache=False, journal=journal) as engine:  # or no second round would call

        async def run() -> int:
            return await engine.run(program)

        yield run


@asynccontextmanager
async def floor(shape: Shape, folder: Path, kept: Kept) -> AsyncIterator[Run]:
    """The steps of a chain by hand, and one commit of SQLite after each."""
    with closing(sqlite3.connect(folder / f"floor-{kept}.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if kept == 'power' else 'NORMAL'}")
        db.execute("CREATE TABLE IF NOT EXISTS steps (id INTEGER PRIMARY KEY, body TEXT)")

        async def run() -> int:
            value = 0
            for number in range(len(shape.needs)):
                value = await shapes.step(value) if number else await shapes.source(number)
                body = json.dumps({"step": number, "value": value})
                db.execute("INSERT INTO steps (body) VALUES (?)", (body,))  # its own transaction
            return value

        yield run


async def measure(folder: Path, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Microseconds a node, by shape and engine; those of a shape take turns."""
    layers, chain = shapes.layers(), shapes.chain(CHAIN)
    engines = {
        "layers": {
            "without": partial(ours, layers, folder, "", "pure"),
            "with": partial(ours, layers, folder, "process", "pure"),
        },
        "pure chain": {
            "without": partial(ours, chain, folder, "", "pure"),
            "with": partial(ours, chain, folder, "process", "pure"),
            "power": partial(ours, chain, folder, "power", "pure"),
        },
        "chain of writes": {
            "without": partial(ours, chain, folder, "", "writes"),
            "with": partial(ours, chain, folder, "process", "writes"),
            "power": partial(ours, chain, folder, "power", "writes"),
            "floor": partial(floor, chain, folder, "process"),
            "power floor": partial(floor, chain, folder, "power"),
        },
    }
    shape_of = {"layers": layers, "pure chain": chain, "chain of writes": chain}
    return {name: await _together(ways, shape_of[name], rounds) for name, ways in engines.items()}


async def _together(
    ways: Mapping[str, Callable[[], Any]], shape: Shape, rounds: int
) -> dict[str, dict[str, float]]:
    async with AsyncExitStack() as stack:
        runs = {name: await stack.enter_async_context(way()) for name, way in ways.items()}
        found = await harness.interleave(runs, rounds, shape.expected)
    return {name: samples.as_dict(len(shape.needs)) for name, samples in found.items()}


NAMES = {
    "without": "no journal",
    "with": "journal",
    "power": 'journal, durability="power"',
    "floor": "SQLite alone, a commit a step",
    "power floor": "SQLite alone, a commit a step, synced",
}


def told(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The tables."""
    rows: list[list[object]] = []
    for shape, ways in found.items():
        for way, figures in ways.items():
            names = ("wall_us", "wall_us_worst", "cpu_us", "cpu_us_worst")
            rows.append([f"{shape}: {NAMES[way]}", *(figures[name] for name in names)])
    rows += [[name, value, None, None, None] for name, value in PEERS.items()]
    headings = ("microseconds a node", "median", "worst", "CPU, median", "CPU, worst")
    return harness.table(headings, rows)


def added(found: Mapping[str, Mapping[str, Mapping[str, float]]], shape: str, which: str) -> float:
    """What the journal adds to a node."""
    return found[shape]["with"][which] - found[shape]["without"][which]


def goals(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Goal]:
    """The limit of a node."""
    return [
        Goal("a journal adds to a node of layers", added(found, "layers", "wall_us"), 20, "us"),
        Goal("the same, processor time", added(found, "layers", "cpu_us"), 20, "us"),
    ]
