"""LangGraph's functional API: tasks inside an entrypoint; a gather for each wave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from langgraph.func import entrypoint, task
from shapes import Run, Shape, call


@asynccontextmanager
async def engine(shape: Shape) -> AsyncIterator[Run]:
    """Futures cannot be passed to tasks, so layers have a barrier between them."""

    @task
    async def work(node: int, values: list[int]) -> int:
        return await call(shape, node, values)

    @entrypoint()
    async def program(_: int) -> int:
        values: dict[int, int] = {}
        for wave in shape.levels:
            done = await asyncio.gather(
                *[work(node, [values[other] for other in shape.needs[node]]) for node in wave]
            )
            values.update(zip(wave, done, strict=True))
        return sum(values[node] for node in shape.ends)

    async def run() -> int:
        total: int = await program.ainvoke(1)
        return total

    yield run
