"""What the same programs cost in asyncio written by hand: the floor of every engine.

Nothing here knows failures, limits, events or plans.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shapes import Run, Shape, call


@asynccontextmanager
async def waves(shape: Shape) -> AsyncIterator[Run]:
    """A TaskGroup for each wave: the simplest way, with a barrier between layers."""

    async def run() -> int:
        values: dict[int, int] = {}
        for wave in shape.levels:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(call(shape, node, [values[n] for n in shape.needs[node]]))
                    for node in wave
                ]
            values.update(zip(wave, (task.result() for task in tasks), strict=True))
        return sum(values[node] for node in shape.ends)

    yield run


@asynccontextmanager
async def dataflow(shape: Shape) -> AsyncIterator[Run]:
    """A task for each node, started the moment its inputs exist: what an engine has to do."""
    needs, followers = shape.needs, shape.followers

    async def run() -> int:
        missing = [len(needed) for needed in needs]
        values = [0] * len(needs)

        async with asyncio.TaskGroup() as group:
            spawn = group.create_task

            async def node(number: int) -> None:
                values[number] = await call(
                    shape, number, [values[other] for other in needs[number]]
                )
                for follower in followers[number]:
                    missing[follower] -= 1
                    if not missing[follower]:
                        spawn(node(follower))

            for number in shape.levels[0]:
                spawn(node(number))
        return sum(values[number] for number in shape.ends)

    yield run
