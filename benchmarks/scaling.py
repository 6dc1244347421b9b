"""How time and memory of a node grow with the size of the program."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import harness
from harness import Goal
from shapes import Engine, Shape, chain, fan_out, layers

SIZES = (1_000, 10_000, 100_000)


def programs(nodes: int) -> tuple[Shape, ...]:
    """The three shapes with about so many nodes."""
    return chain(nodes), fan_out(nodes), layers(nodes // 100, 100)


async def measure(engine: Engine, quick: bool) -> dict[str, dict[str, dict[str, float]]]:
    """By shape and size: microseconds of processor time, and bytes, a node."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for nodes in SIZES[:2] if quick else SIZES:
        for shape in programs(nodes):
            async with engine(shape) as run:
                samples = (await harness.interleave({"": run}, 3, shape.expected))[""]
            cell = {"cpu_us": samples.as_dict(len(shape.needs))["cpu_us"]}
            if nodes == SIZES[1]:
                cell["bytes"] = await memory(engine, shape)
            found.setdefault(shape.name, {})[str(nodes)] = cell
    return found


async def memory(engine: Engine, shape: Shape) -> float:
    """Peak bytes a node of preparing and running a program, its nodes included."""
    shape.expected, shape.followers, shape.levels, shape.ends  # noqa: B018  # not ours to count
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        async with engine(shape) as run:
            await run()
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (peak - before) / len(shape.needs)


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Time by size, growth from the smallest to the largest, memory."""
    sizes = list(next(iter(found.values())))
    rows: list[list[Any]] = [
        [
            shape,
            *(cells[size]["cpu_us"] for size in sizes),
            f"{growth(cells):.2f}x",
            cells[str(SIZES[1])]["bytes"],
        ]
        for shape, cells in found.items()
    ]
    headings = ["agentflow bare, us CPU a node", *(f"{int(size):,}" for size in sizes)]
    return harness.table([*headings, "growth", "bytes a node"], rows)


def growth(cells: dict[str, dict[str, float]]) -> float:
    """Time a node in the largest program over that in the smallest."""
    times = [cell["cpu_us"] for cell in cells.values()]
    return times[-1] / times[0]


def goals(found: dict[str, dict[str, dict[str, float]]]) -> list[Goal]:
    """Linear time, and memory of a live node."""
    largest = max(map(int, next(iter(found.values()))))
    grown = max(growth(cells) for cells in found.values())
    held = max(cells[str(SIZES[1])]["bytes"] for cells in found.values())
    return [
        Goal(f"time a node at {largest:,} nodes over 1,000", grown, 1.5, "x"),
        Goal("live memory a node", held, 2048, "bytes"),
    ]
