"""What every store of cached values has to do, as a test class to subclass."""

# ruff: noqa: D102  # the names of tests say what they are for

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from agentflow import clock
from agentflow.caches.store import Entry, Store

_Test = Callable[[Any, Store], Awaitable[None]]


def _on_a_loop(test: _Test) -> Callable[[Any], None]:
    """Run an async test with a store of its own, under any test runner."""

    async def main(contract: StoreContract) -> None:
        store = contract.make()
        try:
            await test(contract, store)
        finally:
            await store.aclose()

    def run(contract: StoreContract) -> None:
        asyncio.run(main(contract))

    # Not functools.wraps: a test runner would see the parameter and look for a fixture.
    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


class StoreContract:
    """The tests that a store has to pass. Subclass it, and say how a store is made.

    Attributes:
        persistent: Whether a store made later finds what an earlier one has flushed.
    """

    persistent = False

    def make(self) -> Store:
        """A new store; when `persistent`, over the same storage each time within a test."""
        raise NotImplementedError

    @_on_a_loop
    async def test_a_key_that_was_never_put_is_a_miss(self, store: Store) -> None:
        assert await store.get(["a"]) == [None]
        assert await store.get([]) == []

    @_on_a_loop
    async def test_an_entry_is_found_as_soon_as_it_is_put(self, store: Store) -> None:
        store.put("a", Entry(b"1"))

        assert await store.get(["a"]) == [Entry(b"1")]

    @_on_a_loop
    async def test_keys_are_answered_in_order(self, store: Store) -> None:
        store.put("a", Entry(b"1"))
        await store.flush()
        store.put("b", Entry(b"2"))

        found = await store.get(["b", "x", "a", "b"])

        assert found == [Entry(b"2"), None, Entry(b"1"), Entry(b"2")]

    @_on_a_loop
    async def test_every_field_is_kept(self, store: Store) -> None:
        late = clock.wall() + 3600.5
        entries = {
            "full": Entry(b'{"a":1}', 1.25, late, (0, 7, 2**62), "search"),
            "empty": Entry(b""),
            "any bytes": Entry(bytes(range(256)), tool="große Brücke"),
            "large": Entry(b"x" * 300_000),
            "": Entry(b"the empty key"),
            "ключ/\n'\"": Entry(b"an odd key"),
        }
        for key, entry in entries.items():
            store.put(key, entry)
        await store.flush()

        assert await store.get(list(entries)) == list(entries.values())

    @_on_a_loop
    async def test_a_later_entry_takes_the_place_of_an_earlier_one(self, store: Store) -> None:
        store.put("a", Entry(b"1"))
        await store.flush()
        store.put("a", Entry(b"2"))
        unflushed = await store.get(["a"])
        await store.flush()

        assert unflushed == await store.get(["a"]) == [Entry(b"2")]

    @_on_a_loop
    async def test_an_entry_is_a_miss_after_its_time(self, store: Store) -> None:
        store.put("old", Entry(b"1", expires=clock.wall() - 1))
        store.put("young", Entry(b"2", expires=clock.wall() + 3600))
        unflushed = await store.get(["old", "young"])
        await store.flush()

        for found in (unflushed, await store.get(["old", "young"])):
            assert [entry and entry.value for entry in found] == [None, b"2"]

    @_on_a_loop
    async def test_an_expired_entry_does_not_bring_back_an_earlier_one(self, store: Store) -> None:
        store.put("a", Entry(b"1"))
        await store.flush()
        store.put("a", Entry(b"2", expires=clock.wall() - 1))
        await store.flush()

        assert await store.get(["a"]) == [None]

    @_on_a_loop
    async def test_a_deleted_key_is_a_miss(self, store: Store) -> None:
        for key in ("a", "b", "c"):
            store.put(key, Entry(b"1"))
        await store.flush()
        store.put("d", Entry(b"1"))

        await store.delete(["a", "d", "never put"])

        assert await store.get(["a", "b", "c", "d"]) == [None, Entry(b"1"), Entry(b"1"), None]

    @_on_a_loop
    async def test_a_deleted_key_may_be_put_again(self, store: Store) -> None:
        store.put("a", Entry(b"1"))
        await store.delete(["a"])
        store.put("a", Entry(b"2"))
        await store.flush()

        assert await store.get(["a"]) == [Entry(b"2")]

    @_on_a_loop
    async def test_after_clear_everything_is_a_miss(self, store: Store) -> None:
        store.put("a", Entry(b"1"))
        await store.flush()
        store.put("b", Entry(b"2"))

        await store.clear()
        empty = await store.get(["a", "b"])
        store.put("c", Entry(b"3"))
        await store.flush()

        assert empty == [None, None]
        assert await store.get(["a", "c"]) == [None, Entry(b"3")]

    @_on_a_loop
    async def test_clear_reaches_what_is_being_written(self, store: Store) -> None:
        keys = [f"key {n}" for n in range(2000)]
        for key in keys:
            store.put(key, Entry(b"1"))
        flushing = asyncio.ensure_future(store.flush())
        await asyncio.sleep(0)

        await store.clear()
        await flushing
        await store.flush()

        assert set(await store.get(keys)) == {None}

    @_on_a_loop
    async def test_many_tasks_may_use_it_at_once(self, store: Store) -> None:
        async def use(n: int) -> list[Entry | None]:
            store.put(f"key {n}", Entry(b"%d" % n))
            if n % 7 == 0:
                await store.flush()
            return await store.get([f"key {n}"])

        found = await asyncio.gather(*(use(n) for n in range(100)))

        assert found == [[Entry(b"%d" % n)] for n in range(100)]

    @_on_a_loop
    async def test_what_it_did_is_counted(self, store: Store) -> None:
        store.put("a", Entry(b"1"))
        await store.flush()
        await store.get(["a", "b", "a"])

        stats = store.stats()

        assert (stats.entries, stats.stored, stats.hits, stats.misses) == (1, 1, 2, 1)
        assert 0 < stats.bytes <= stats.limit
        assert stats.lost == 0

    @_on_a_loop
    async def test_a_closed_store_keeps_nothing_and_raises_nothing(self, store: Store) -> None:
        store.put("a", Entry(b"1"))
        await store.aclose()
        await store.aclose()

        store.put("b", Entry(b"2"))
        await store.flush()
        await store.delete(["a"])
        await store.clear()
        assert await store.get(["b"]) == [None]

    @_on_a_loop
    async def test_what_was_flushed_is_there_for_the_next_store(self, store: Store) -> None:
        store.put("a", Entry(b"1", 1.5, None, (3,), "search"))
        store.put("b", Entry(b"2"))
        await store.flush()
        await store.delete(["b"])
        store.put("c", Entry(b"3"))  # closing flushes too
        await store.aclose()

        later = self.make()
        found = await later.get(["a", "b", "c"])
        await later.aclose()

        kept = [Entry(b"1", 1.5, None, (3,), "search"), None, Entry(b"3")]
        assert found == (kept if self.persistent else [None] * 3)
