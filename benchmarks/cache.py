"""What caching costs and saves: memory, disk, the loop, eviction, and crashes.

    python benchmarks/cache.py [--quick] [--json]

Costs are medians over rounds of many operations on real stores. The traces of the eviction
table are synthetic and say so; all else is run as it is used.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import cache_chain
import cache_hammer
import cache_loop
import cache_policies
import harness
from harness import monotonic

from agentflow.caches.diskstore import DiskStore
from agentflow.caches.epochs import Epochs
from agentflow.caches.memory import MemoryStore
from agentflow.caches.shared_epochs import SharedEpochs
from agentflow.caches.store import Entry

FOR_EVER = 4e9  # a wall time: the entry has one, so that it is looked at
RESOURCE = [("orders", "17")]


def entry(size: int) -> Entry:
    return Entry(b"x" * size, 0.5, FOR_EVER, (2**62,), "search")


def keys(number: int) -> list[str]:
    """Keys as long as a tool call's."""
    return [f"{n:064x}" for n in range(number)]


class Costs:
    """What operations cost, over rounds; the first round of each only warms up."""

    def __init__(self) -> None:
        self.samples: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)

    @contextmanager
    def of(self, name: str, operations: int) -> Iterator[None]:
        """Time a block that does something so many times."""
        wall, cpu = monotonic(), process_time()
        yield
        spent = monotonic() - wall, process_time() - cpu
        self.samples[name].append((spent[0] / operations, spent[1] / operations))

    def medians(self) -> dict[str, dict[str, float]]:
        """Microseconds of processor time and of wall time, by operation."""
        return {
            name: {
                "cpu_us": 1e6 * median(cpu for _, cpu in samples[1:]),
                "wall_us": 1e6 * median(wall for wall, _ in samples[1:]),
            }
            for name, samples in self.samples.items()
        }


async def memory(costs: Costs, rounds: int) -> None:
    """A hit, a miss, and a store with and without eviction."""
    names = keys(1000)
    empty, full = MemoryStore(), MemoryStore(1000 * len(names))
    for size, label in ((100, "100 B"), (1000, "1 kB"), (10_000, "10 kB")):
        store = MemoryStore()
        for key in names:
            store.put(key, entry(size))
        for _ in range(rounds):
            with costs.of(f"memory hit, {label}", len(names)):
                for key in names:
                    store.get_now(key)
    value = entry(1000)
    for n in range(rounds):
        with costs.of("memory miss", len(names)):
            for key in names:
                empty.get_now(key)
        fresh = MemoryStore()
        with costs.of("memory store, 1 kB", len(names)):
            for key in names:
                fresh.put(key, value)
        others = [f"{n} {key}" for key in names]
        with costs.of("memory store that evicts, 1 kB", len(names)):
            for key in others:
                full.put(key, value)


async def disk(costs: Costs, rounds: int, folder: Path) -> None:
    """Hits one by one and together, misses, and stores: on the loop, and until committed."""
    names = keys(500)
    others = [f"no {key}" for key in names]
    async with aclosing(DiskStore(folder)) as store:
        for n in range(rounds):
            value = entry(1000 + n)
            with costs.of("disk store, 1 kB, until committed", len(names)):
                with costs.of("disk store, 1 kB, until put returns", len(names)):
                    for key in names:
                        store.put(key, value)
                await store.flush()
            with costs.of("disk hit, 1 kB, one by one", len(names)):
                for key in names:
                    await store.get([key])
            with costs.of("disk hit, 1 kB, 500 at once", len(names)):
                await store.get(names)
            with costs.of("disk miss, one by one", len(names)):
                for key in others:
                    await store.get([key])


async def epochs(costs: Costs, rounds: int, folder: Path) -> None:
    """Knowing that nothing was written, asking, and telling that something is."""
    local, shared = Epochs(), Epochs(SharedEpochs(folder))
    for _ in range(rounds):
        await shared.look(RESOURCE)
        await shared.look(RESOURCE)
        for name, known in (("one process", local), ("shared", shared)):
            assert known.now(RESOURCE) is not None
            with costs.of(f"epoch known, {name}", 1000):
                for _ in range(1000):
                    known.now(RESOURCE)
        with costs.of("write counted, one process", 1000):
            for _ in range(1000):
                local.begin(RESOURCE)
                local.end(RESOURCE)
        with costs.of("write counted, shared", 100):
            for _ in range(100):
                await shared.raised(RESOURCE)
        with costs.of("epoch asked for, shared", 100):
            for _ in range(100):
                await shared.look(RESOURCE)
    await shared.aclose()


async def measure_costs(rounds: int) -> dict[str, dict[str, float]]:
    """Every operation, in rounds."""
    costs = Costs()
    await memory(costs, rounds)
    with tempfile.TemporaryDirectory() as folder:
        await disk(costs, rounds, Path(folder, "cache"))
        await epochs(costs, rounds, Path(folder, "cache"))
    return costs.medians()


def main() -> None:
    """Measure, print the tables and the goals."""
    given = harness.parser((__doc__ or "").partition("\n")[0]).parse_args()
    print(f"caches; {harness.environment()}\n")
    costs = asyncio.run(measure_costs(6 if given.quick else 22))
    rows = [(name, cost["cpu_us"], cost["wall_us"]) for name, cost in costs.items()]
    print(harness.table(("median of an operation", "us CPU", "us wall"), rows) + "\n")
    chain = asyncio.run(cache_chain.measure(8 if given.quick else 32))
    print(cache_chain.show(chain) + "\n")
    loop = cache_loop.measure(given.quick)
    print(cache_loop.show(loop) + "\n")
    policies = cache_policies.measure(given.quick)
    print(cache_policies.show(policies) + "\n")
    hammer = cache_hammer.measure(given.quick)
    print(cache_hammer.show(hammer))
    results: dict[str, Any] = {
        "costs": costs, "chain": chain, "loop": loop, "saved": policies, "hammer": hammer,
    }  # fmt: skip
    reached = [
        *cache_chain.goals(chain),
        *cache_loop.goals(loop),
        *cache_policies.goals(policies),
        *cache_hammer.goals(hammer),
    ]
    harness.report("cache", results, reached, given.json)


if __name__ == "__main__":
    main()
