"""What a hit costs above the call chain: the same workflow with a cache and without.

The tool returns 1 kB at once, so without a cache this is what the chain costs around any call.
Pairs of runs are compared, one after the other, so that a busy machine slows both.
"""

from __future__ import annotations

import gc
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from time import process_time

from harness import Goal, table

from agentflow import Engine, tool, workflow
from agentflow.workflows import Workflow

CALLS = 500
PAGE = "x" * 1000


@tool(pure=True)
async def pure_page(number: int) -> str:
    """A page that is always the same."""
    return PAGE


@tool(reads="pages/{number}", ttl="10m")
async def page(number: int) -> str:
    """A page that somebody may write to."""
    return PAGE


@workflow
async def pure_pages() -> int:
    """Read pages that never change."""
    handles = [pure_page(number) for number in range(CALLS)]
    return sum([len(await handle) for handle in handles])


@workflow
async def pages() -> int:
    """Read pages that may change."""
    handles = [page(number) for number in range(CALLS)]
    return sum([len(await handle) for handle in handles])


async def spent(engine: Engine, work: Workflow[[], int]) -> float:
    """Microseconds of processor time for each call of a run."""
    gc.collect()
    began = process_time()
    got = await engine.run(work)
    seconds = process_time() - began
    assert got == CALLS * len(PAGE)
    return seconds * 1e6 / CALLS


async def measure(rounds: int) -> dict[str, dict[str, float]]:
    """What each way costs for a call, and how much more than without a cache."""
    found: dict[str, dict[str, float]] = {}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bare = await stack.enter_async_context(Engine(cache=False))
        memory = await stack.enter_async_context(Engine())
        shared = await stack.enter_async_context(Engine(cache=folder / "cache"))
        for name, engine, work in (
            ("pure tool, memory hit", memory, pure_pages),
            ("tool that reads, memory hit", memory, pages),
            ("tool that reads, memory hit, disk tier shared", shared, pages),
        ):
            pairs = [(await spent(bare, work), await spent(engine, work)) for _ in range(rounds)][
                2:
            ]
            found[name] = {
                "without_us": median(without for without, _ in pairs),
                "with_us": median(cached for _, cached in pairs),
                "above_us": median(cached - without for without, cached in pairs),
            }
    return found


def show(found: dict[str, dict[str, float]]) -> str:
    """The table."""
    headings = ("a call in a workflow, us CPU", "without cache", "hit", "above")
    rows = [(name, *costs.values()) for name, costs in found.items()]
    return table(headings, rows)


def goals(found: dict[str, dict[str, float]]) -> list[Goal]:
    """A hit in memory costs next to nothing above the chain."""
    return [
        Goal(f"{name} of 1 kB, above no cache", cost["above_us"], 5.0, "us CPU")
        for name, cost in found.items()
    ]
