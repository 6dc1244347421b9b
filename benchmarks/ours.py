"""The rows of agentflow in `overhead.py`: the only module here that knows its API.

bare: a plan of untyped tools without timeout or retries, and nobody listens.
armed: a plan of typed tools with timeout, retries and limits, validated, and a listener;
    without the cache, which would answer the second round.
handles: the same tools called from a workflow; handles are the edges.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FunctionType
from typing import Any

import shapes
from shapes import Run, Shape

from agentflow import Engine, tool, workflow
from agentflow.planner.plan import Node, Plan, Ref

TOOLS = {0: "source", 1: "step", 3: "merge"}


def untyped(fn: Callable[..., Any]) -> Any:
    """A tool that nothing is known of and nothing is asked of."""
    assert isinstance(fn, FunctionType)
    plain = FunctionType(fn.__code__, fn.__globals__, fn.__name__)  # without its annotations
    return tool(timeout=None)(plain)


def typed(fn: Callable[..., Any]) -> Any:
    """A tool whose arguments and results are checked, with everything that can be set."""
    return tool(pure=True, timeout="30s", retries=2, limit=1_000)(fn)


def plan(shape: Shape) -> Plan:
    """The shape in agentflow's terms."""
    nodes = []
    for number, needed in enumerate(shape.needs):
        name = "nap" if shape.nap else TOOLS[len(needed)]
        nodes.append(Node(name, tuple(map(Ref, needed)) or (number,)))
    return Plan(tuple(nodes), [Ref(node) for node in shape.ends])


def functions() -> list[Callable[..., Any]]:
    """What the tools do."""
    return [shapes.source, shapes.step, shapes.merge, shapes.nap]


@asynccontextmanager
async def bare(shape: Shape) -> AsyncIterator[Run]:
    """A plan, as little as possible around each call."""
    prepared = plan(shape)
    tools = [untyped(fn) for fn in functions()]
    async with Engine() as engine:

        async def run() -> int:
            return sum(await engine.run(prepared, tools=tools))

        yield run


@asynccontextmanager
async def armed(shape: Shape) -> AsyncIterator[Run]:
    """A plan, with everything around each call."""
    prepared = plan(shape)
    tools = [typed(fn) for fn in functions()]
    seen: list[Any] = []
    async with Engine(cache=False) as engine:  # or no second round would call anything
        engine.subscribe(seen.append)

        async def run() -> int:
            seen.clear()
            return sum(await engine.run(prepared, tools=tools))

        yield run


@asynccontextmanager
async def handles(shape: Shape) -> AsyncIterator[Run]:
    """A workflow of plain typed tools that draws every edge by passing a handle on."""
    source, step, merge, nap = (tool(fn) for fn in functions())
    tools = {0: nap if shape.nap else source, 1: step, 3: merge}

    @workflow
    async def program() -> int:
        made: list[Any] = []
        for number, needed in enumerate(shape.needs):
            values = [made[other].ref for other in needed] or [number]
            made.append(tools[len(needed)](*values))
        return sum(await asyncio.gather(*(made[node] for node in shape.ends)))

    async with Engine() as engine:

        async def run() -> int:
            return await engine.run(program)

        yield run
