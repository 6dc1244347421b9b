"""How long after its deadline whoever awaits a run is answered, whatever its calls do.

    python benchmarks/deadlines.py [--quick] [--json]

On the real clock, with a model behind a socket. What the loop itself comes too late to the
deadline is told apart: while others keep it, nobody can be answered.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import harness
from harness import Goal

from agentflow import Budget, Engine, Limits, Plan, Task, tool, workflow
from agentflow.errors import DeadlineExceeded
from agentflow.executor.run import Run
from agentflow.planner.plan import Node
from agentflow.testing import ScriptedServer

DEADLINE, PER_CALL = 0.1, 0.00005  # s
PROBE = 0.002  # s before the deadline
ANSWERED = 50.0  # ms
LIMITS = Limits(grace=0.05, run=20_000)


@dataclass
class Lateness:
    """Milliseconds after the deadline, of several runs."""

    answered: list[float] = field(default_factory=list)
    loop: list[float] = field(default_factory=list)

    @property
    def own(self) -> float:
        """The worst, without what the loop was late by."""
        return max(a - b for a, b in zip(self.answered, self.loop, strict=True))


class World:
    """What the cases share: an engine, and the end of what does not end by itself.

    Args:
        url: Of a model that never answers.
    """

    def __init__(self, url: str) -> None:
        self.engine = Engine(base_url=url, model="silent", limits=LIMITS)
        self.stop = asyncio.Event()
        self.over = threading.Event()

    async def deaf(self) -> None:
        """Go on when cancelled."""
        while not self.stop.is_set():
            try:
                await self.stop.wait()
            except asyncio.CancelledError:
                continue

    async def aclose(self) -> None:
        self.stop.set()
        self.over.set()
        await self.engine.aclose()

    def plan(self, work: Any, calls: int = 1) -> Run[Any]:
        """A run of so many calls of a tool."""
        nodes = tuple(Node(work.name, (n,)) for n in range(calls))
        deadline = DEADLINE + PER_CALL * calls
        return self.engine.start(Plan(nodes), tools=[work], deadline=deadline)


def hanging(world: World) -> Run[Any]:
    return crowd(1)(world)


def crowd(calls: int) -> Callable[[World], Run[Any]]:
    """So many calls that never end."""

    def start(world: World) -> Run[Any]:
        @tool(limit=calls)
        async def work(n: int) -> None:
            await asyncio.get_running_loop().create_future()

        return world.plan(work, calls)

    return start


def deaf(world: World) -> Run[Any]:
    @tool
    async def work(n: int) -> None:
        await world.deaf()

    return world.plan(work)


def streaming(world: World) -> Run[Any]:
    @tool
    async def work(n: int) -> AsyncIterator[int]:
        yield n
        await world.deaf()

    return world.plan(work)


def threaded(world: World) -> Run[Any]:
    @tool
    def work(n: int) -> None:
        world.over.wait(5)

    return world.plan(work)


def nested(world: World) -> Run[Any]:
    @workflow
    async def inner() -> None:
        await world.deaf()

    @workflow(budget=Budget(deadline=DEADLINE))
    async def outer() -> None:
        await inner()

    return world.engine.start(outer)


def silent(world: World) -> Run[Any]:
    return world.engine.start(Task("Which?", budget=Budget(deadline=DEADLINE)))


CASES: dict[str, Callable[[World], Run[Any]]] = {
    "a call that hangs": hanging,
    "a call that goes on when it is cancelled": deaf,
    "a stream that does": streaming,
    "a thread": threaded,
    "a workflow in a workflow that does": nested,
    "a model that never answers": silent,
    "1,000 calls": crowd(1_000),
    "10,000 calls": crowd(10_000),
}


async def one(start: Callable[[World], Run[Any]], url: str, lateness: Lateness) -> None:
    """Run a case to its deadline, and note when its caller was answered."""
    loop, world = asyncio.get_running_loop(), World(url)
    model: Any = world.engine.model()
    await model.connect()
    gc.collect()
    run, came = start(world), []
    assert run.deadline is not None, "every case has one"
    loop.call_at(run.deadline - PROBE, lambda: came.append(loop.time()))
    try:
        await run
    except DeadlineExceeded:
        answered = loop.time()
    reached = came[0] if came else answered  # else it had passed before the loop went on
    lateness.answered.append((answered - run.deadline) * 1e3)
    lateness.loop.append(max(0.0, reached - run.deadline) * 1e3)
    await world.aclose()


async def measure(rounds: int) -> dict[str, Lateness]:
    """Every case in turn, so often."""
    found = {name: Lateness() for name in CASES}

    async def never(_call: object) -> str:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async with ScriptedServer(never) as server:
        for _ in range(rounds):
            for name, start in CASES.items():
                await one(start, server.base_url, found[name])
    return found


def main() -> None:
    """Measure, and print."""
    options = harness.parser((__doc__ or "").partition("\n")[0]).parse_args()
    found = asyncio.run(measure(3 if options.quick else 20))
    print(harness.environment() + "\n")
    rows = [
        (name, statistics.median(late.answered), max(late.answered), max(late.loop))
        for name, late in found.items()
    ]
    headings = ("answered after the deadline, ms", "median", "worst", "the loop's own, worst")
    print(harness.table(headings, rows))
    worst = max(late.own for late in found.values())
    goals = [Goal("answered after the deadline, worst, on a loop in time", worst, ANSWERED, "ms")]
    results = {
        name: {"answered_ms": late.answered, "loop_ms": late.loop} for name, late in found.items()
    }
    harness.report("deadlines", results, goals, options.json)


if __name__ == "__main__":
    main()
