"""Where to wait for a disk: on the loop, in a pool of threads, or in the store's own thread.

A probe notes how late the loop runs its timers while values are stored and read. The store's
own steps on the loop are timed too: what one of them takes, it blocks the loop for.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import thread_time
from typing import Any, TypeVar

import cache_hammer
from diskcache import Timeout  # type: ignore[import-untyped]  # it has no types
from harness import Goal, monotonic, table

from agentflow.caches.disk import SafeCache, open_cache
from agentflow.caches.diskstore import DiskStore
from agentflow.caches.envelope import pack, unpack
from agentflow.caches.store import Entry

T = TypeVar("T")

TICK = 0.001
WRITERS = 3
ENTRY = Entry(b"x" * 2000, 0.5, None, (), "search")

Put = Callable[[str], Awaitable[object]]
Get = Callable[[str], Awaitable[object]]
Settle = Callable[[], Awaitable[object]]
Way = tuple[Put, Get, Settle]


@dataclass
class Steps:
    """The longest steps of coroutines on the loop, in seconds."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def timed(self, awaitable: Awaitable[T]) -> Timed[T]:
        return Timed(awaitable, self)


class Timed(Awaitable[T]):
    """Awaits something, and notes how long each of its steps keeps the loop."""

    def __init__(self, awaitable: Awaitable[T], steps: Steps) -> None:
        self.awaitable = awaitable
        self.steps = steps

    def __await__(self) -> Generator[Any, Any, T]:
        inner = self.awaitable.__await__()
        wall = cpu = 0.0
        try:
            while True:
                began, worked = monotonic(), thread_time()
                try:
                    waits_for = next(inner)
                except StopIteration as end:
                    result: T = end.value
                    return result
                finally:
                    wall = max(wall, monotonic() - began)
                    cpu = max(cpu, thread_time() - worked)
                yield waits_for
        finally:
            self.steps.wall.append(wall)
            self.steps.cpu.append(cpu)


@asynccontextmanager
async def on_the_loop(folder: Path) -> AsyncIterator[Way]:
    """diskcache, called where the event loop runs."""
    with closing(opened(folder)) as cache:

        async def put(key: str) -> None:
            store(cache, key)

        async def get(key: str) -> None:
            read(cache, key)

        yield put, get, settled


@asynccontextmanager
async def in_a_pool(folder: Path) -> AsyncIterator[Way]:
    """diskcache, each call through ``asyncio.to_thread``."""
    with closing(opened(folder)) as cache:

        async def put(key: str) -> None:
            await asyncio.to_thread(store, cache, key)

        async def get(key: str) -> None:
            await asyncio.to_thread(read, cache, key)

        yield put, get, settled


@asynccontextmanager
async def in_its_own_thread(folder: Path) -> AsyncIterator[Way]:
    """`DiskStore`: one thread, writes behind in groups."""
    disk = DiskStore(folder)

    async def put(key: str) -> None:
        disk.put(key, ENTRY)

    async def get(key: str) -> None:
        await disk.get([key])

    yield put, get, disk.flush
    await disk.aclose()


async def settled() -> None:
    """Nothing is left to be written."""


WAYS = {
    "diskcache on the loop": on_the_loop,
    "diskcache, asyncio.to_thread": in_a_pool,
    "agentflow, own thread": in_its_own_thread,
}


def opened(folder: Path) -> SafeCache:
    (folder / "values").mkdir(parents=True, exist_ok=True)
    return open_cache(folder / "values")


def store(cache: SafeCache, key: str) -> None:
    with suppress(Timeout):
        cache.set(key, pack(key, ENTRY))


def read(cache: SafeCache, key: str) -> None:
    found = cache.get(key)
    if found is not None:
        unpack(key, found)


async def lateness(late: list[float]) -> None:
    """Note how late the loop is, for ever."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + TICK
        await asyncio.sleep(TICK)
        late.append(loop.time() - due)


async def one_way(way: Any, folder: Path, number: int) -> dict[str, float]:
    """What storing and reading that many values costs in one way, and how late the loop gets."""
    late: list[float] = []
    puts, gets = Steps(), Steps()
    async with way(folder) as (put, get, settle):
        await put("warm")
        await get("warm")
        probe = asyncio.create_task(lateness(late))
        began = monotonic()
        for n in range(number):
            await puts.timed(put(f"{n}"))
            if n % 50 == 0:
                await asyncio.sleep(0)
        stored = monotonic() - began
        await settle()
        began = monotonic()
        for n in range(number):
            await gets.timed(get(f"{n}"))
            if n % 50 == 0:
                await asyncio.sleep(0)
        read = monotonic() - began
        probe.cancel()
    return {
        "put_us": stored / number * 1e6,
        "get_us": read / number * 1e6,
        "late_ms_p99": 1e3 * sorted(late)[len(late) * 99 // 100],
        "late_ms_max": 1e3 * max(late),
        "step_ms_max": 1e3 * max(*puts.wall, *gets.wall),
        "hit_step_ms_p99": 1e3 * sorted(gets.wall)[number * 99 // 100],
        "hit_step_ms_max": 1e3 * max(gets.wall),
        "hit_step_cpu_ms_max": 1e3 * max(gets.cpu),
    }


async def idle(seconds: float) -> dict[str, float]:
    """How late the loop gets when nothing is done: what the machine adds to every row."""
    late: list[float] = []
    probe = asyncio.create_task(lateness(late))
    await asyncio.sleep(seconds)
    probe.cancel()
    return {
        "late_ms_p99": 1e3 * sorted(late)[len(late) * 99 // 100],
        "late_ms_max": 1e3 * max(late),
    }


def measure(quick: bool) -> dict[str, dict[str, float]]:
    """Every way, alone and beside other writers."""
    number = 1000 if quick else 5000
    found: dict[str, dict[str, float]] = {"nothing": asyncio.run(idle(1.0))}
    for name, way in WAYS.items():
        with tempfile.TemporaryDirectory() as made:
            found[name] = asyncio.run(one_way(way, Path(made, "cache"), number))
    beside: dict[str, Any] = {"nothing": None, **WAYS}
    for name, way in beside.items():
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            writers = [cache_hammer.start(folder, f"w{n}", 60) for n in range(WRITERS)]
            try:
                wait_for_writers(folder)
                found[f"{name}, {WRITERS} writers"] = asyncio.run(
                    one_way(way, folder / "cache", number) if way else idle(1.0)
                )
            finally:
                stop(writers)
    return found


def wait_for_writers(folder: Path) -> None:
    """Wait until every writer has written."""
    while len([p for p in folder.glob("*.acknowledged") if p.stat().st_size]) < WRITERS:
        with suppress(subprocess.TimeoutExpired):
            subprocess.run([sys.executable, "-c", "pass"], timeout=1, check=False)


def stop(writers: list[subprocess.Popen[bytes]]) -> None:
    for writer in writers:
        writer.kill()
        writer.wait()


def show(found: dict[str, dict[str, float]]) -> str:
    """The table."""
    headings = (
        "2 kB values, stored and read", "put us", "get us", "loop late ms, p99", "max",
        "longest step ms, of a hit p99", "max", "CPU max",
    )  # fmt: skip
    columns = (
        "put_us", "get_us", "late_ms_p99", "late_ms_max", "hit_step_ms_p99", "hit_step_ms_max",
        "hit_step_cpu_ms_max",
    )  # fmt: skip
    rows = [(name, *(row.get(column) for column in columns)) for name, row in found.items()]
    return table(headings, rows)


def goals(found: dict[str, dict[str, float]]) -> list[Goal]:
    """A hit on disk does not block the loop."""
    rows = [row for name, row in found.items() if name.startswith("agentflow")]
    return [
        Goal(
            "longest step of a disk hit on the loop, p99",
            max(row["hit_step_ms_p99"] for row in rows), 1.0, "ms",
        ),
        Goal(
            "longest step of a disk hit on the loop, CPU",
            max(row["hit_step_cpu_ms_max"] for row in rows), 1.0, "ms",
        ),
    ]  # fmt: skip
