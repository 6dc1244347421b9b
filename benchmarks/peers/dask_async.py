"""Dask: an async client and a cluster in the same process; futures are the edges."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from distributed import Client, LocalCluster
from shapes import Run, Shape, merge, nap, source, step


@asynccontextmanager
async def engine(shape: Shape) -> AsyncIterator[Run]:
    """As many threads as can be of use: in Dask an async task occupies one, too."""
    tools = {0: nap if shape.nap else source, 1: step, 3: merge}
    async with (
        LocalCluster(
            processes=False,
            n_workers=1,
            threads_per_worker=max(map(len, shape.levels)),
            asynchronous=True,
            dashboard_address=None,
        ) as cluster,
        Client(cluster, asynchronous=True) as client,
    ):

        async def run() -> int:
            futures: dict[int, Any] = {}
            for wave in shape.levels:
                needs = [shape.needs[node] or (node,) for node in wave]
                taken = [
                    [futures.get(other, other) for other in row] for row in zip(*needs, strict=True)
                ]
                tool = tools[len(shape.needs[wave[0]])]
                futures.update(zip(wave, client.map(tool, *taken, pure=False), strict=True))
            return sum(await client.gather([futures[node] for node in shape.ends]))

        yield run
