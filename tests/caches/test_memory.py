"""The memory tier beyond the contract: time, limits and counts."""

from __future__ import annotations

import asyncio

import pytest

from agentflow.caches.memory import OVERHEAD, MemoryStore
from agentflow.caches.store import Entry

WALL = 1_800_000_000.0


def store(limit: int = 1 << 20, quota: float | None = None) -> MemoryStore:
    return MemoryStore(limit, quota=quota, wall=lambda: WALL)


@pytest.mark.virtual
async def test_an_entry_lives_as_long_on_the_loops_clock_as_its_wall_time_left_it() -> None:
    memory = store()
    memory.put("a", Entry(b"1", expires=WALL + 60))

    await asyncio.sleep(59.9)
    before = memory.get_now("a")
    await asyncio.sleep(0.1)

    assert before is not None
    assert memory.get_now("a") is None
    assert memory.stats().entries == 0


@pytest.mark.virtual
async def test_an_entry_without_an_end_stays() -> None:
    memory = store()
    memory.put("a", Entry(b"1"))

    await asyncio.sleep(30 * 86400)

    assert memory.get_now("a") == Entry(b"1")


async def test_an_entry_that_has_expired_takes_the_earlier_one_with_it() -> None:
    memory = store()
    memory.put("a", Entry(b"1"))
    memory.put("a", Entry(b"2", expires=WALL))

    assert memory.get_now("a") is None
    assert memory.stats().bytes == 0


@pytest.mark.virtual
async def test_to_peek_is_no_use() -> None:
    memory = store(limit=2 * (OVERHEAD + 2))
    for key in ("a", "b"):
        memory.put(key, Entry(b"x", cost=1.0, expires=WALL + 60))
    before = memory.stats()

    assert [memory.peek("a") for _ in range(9)] == [Entry(b"x", cost=1.0, expires=WALL + 60)] * 9
    assert memory.peek("c") is None
    assert memory.stats() == before
    memory.put("c", Entry(b"x", cost=1.0))
    assert memory.peek("a") is None, "it was the first, and never used"
    await asyncio.sleep(60)
    assert memory.peek("b") is None


async def test_the_limit_counts_keys_values_and_overhead() -> None:
    memory = store(limit=3 * (OVERHEAD + 11))
    for key in ("a", "b", "c", "d"):
        memory.put(key, Entry(b"x" * 10, cost=1.0))

    stats = memory.stats()

    assert (stats.entries, stats.evicted, stats.stored) == (3, 1, 4)
    assert stats.bytes == stats.limit
    assert memory.get_now("a") is None


async def test_what_took_long_to_obtain_stays() -> None:
    memory = store(limit=2 * (OVERHEAD + 11))
    memory.put("a", Entry(b"x" * 10, cost=4.5))
    for key in ("b", "c", "d"):
        memory.put(key, Entry(b"x" * 10, cost=0.1))

    assert memory.get_now("a") is not None


async def test_of_entries_that_cost_nothing_the_used_ones_stay() -> None:
    memory = store(limit=2 * (OVERHEAD + 11))
    memory.put("a", Entry(b"x" * 10))
    memory.put("b", Entry(b"x" * 10))
    memory.get_now("a")
    memory.put("c", Entry(b"x" * 10))

    assert memory.get_now("a") is not None
    assert memory.get_now("b") is None


async def test_one_tool_cannot_take_more_than_its_quota() -> None:
    memory = store(limit=4 * (OVERHEAD + 11), quota=0.5)
    memory.put("other", Entry(b"x" * 10, tool="other"))
    for key in ("a", "b", "c", "d"):
        memory.put(key, Entry(b"x" * 10, cost=9.0, tool="greedy"))

    assert memory.get_now("other") is not None
    assert memory.stats().entries == 3


async def test_an_entry_larger_than_the_store_is_lost_with_the_one_it_replaces() -> None:
    memory = store(limit=OVERHEAD + 100)
    memory.put("a", Entry(b"1"))
    memory.put("a", Entry(b"x" * 1000))

    stats = memory.stats()

    assert memory.get_now("a") is None
    assert (stats.entries, stats.bytes, stats.lost, stats.evicted) == (0, 0, 1, 0)
