"""A run of 10,000 calls that dies in its last one: how long it takes to be there again."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import shapes
from harness import Goal, monotonic, table

from agentflow import Engine, Journal, tool, workflow
from agentflow.executor.journal.store import JournalStore

DEPTH, WIDTH = 100, 100

source, step, merge = (tool(pure=True)(fn) for fn in (shapes.source, shapes.step, shapes.merge))
reached: list[float] = []
"""When the last call was made, on the machine's clock; it kills whoever has not said `survive`."""

survive: list[bool] = []


@tool(writes="nothing", idempotent=True)
async def last(total: int) -> int:
    """The last call: as it may write, all before it is kept when it is made."""
    reached.append(monotonic())
    if not survive:
        os.kill(os.getpid(), signal.SIGKILL)
    return total


@workflow
async def program(depth: int, width: int) -> int:
    """Layers, and one call that takes what comes of them."""
    shape = shapes.layers(depth, width)
    made: list[Any] = []
    for number, needed in enumerate(shape.needs):
        values = [made[other].ref for other in needed]
        made.append(merge(*values) if values else source(number))
    return await last(sum(await asyncio.gather(*(made[node] for node in shape.ends))))


def measure(folder: Path, quick: bool) -> dict[str, float]:
    """Seconds of the first execution and of the second, and what is kept."""
    depth = DEPTH // 10 if quick else DEPTH
    journal = folder / "recovery.db"
    began = monotonic()
    _in_a_process(journal, "", depth)
    first = monotonic() - began
    store = JournalStore(journal)
    [row] = store.runs()
    store.close()
    found = _in_a_process(journal, row.id, depth)
    assert found is not None and found.pop("value") == shapes.layers(depth, WIDTH).expected
    return {"calls": depth * WIDTH + 1.0, "first_s": first, "bytes": float(row.size), **found}


def _in_a_process(journal: Path, run: str, depth: int) -> dict[str, float] | None:
    """Begin a run, which kills its process, or go on with one; what came of the latter."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["durability_recovery"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(journal, run, depth, theirs))
    process.start()
    theirs.close()
    try:
        found: dict[str, float] = ours.recv()
    except EOFError:
        assert not run, "the process that went on died"
        return None
    finally:
        process.join()
    return found


def _main(journal: Path, run: str, depth: int, connection: Connection) -> None:
    connection.send(asyncio.run(_run(journal, run, depth)))


async def _run(journal: Path, run: str, depth: int) -> dict[str, float]:
    async with Engine(journal=Journal(journal)) as engine:
        if not run:
            await engine.run(program, depth, WIDTH)
            raise AssertionError("the last call did not kill this process")
        survive.append(True)
        began = monotonic()
        value: float = await engine.resume(run, in_doubt="retry")
        return {"value": value, "last_s": reached[-1] - began, "again_s": monotonic() - began}


def told(found: dict[str, float]) -> str:
    """The table."""
    rows = [
        ("calls", f"{found['calls']:,.0f}"),
        ("first execution, until it dies in the last call, s", found["first_s"]),
        ("second execution: until the last call is made again, s", found["last_s"]),
        ("second execution: until its value, s", found["again_s"]),
        ("records, MB", found["bytes"] / 1e6),
    ]
    return table(("going on with a long run", ""), rows)


def goals(found: dict[str, float]) -> list[Goal]:
    """Going on with a long run takes no time to speak of."""
    return [Goal("a run goes on from its last record", found["again_s"], 2, "s")]
