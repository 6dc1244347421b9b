"""The memory tier: entries of this process, the cheapest to lose evicted first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from agentflow import clock
from agentflow.caches.gdsf import Gdsf
from agentflow.caches.store import Entry, StoreStats

OVERHEAD = 600
"""Bytes an entry takes beside its key and its value."""

LEAST_COST = 1e-5
"""Seconds that a call is taken to cost at least, so that use tells free ones apart."""


class MemoryStore:
    """Keeps entries in memory; what is cheap to obtain again goes first (GDSF).

    An entry lives for a duration of the loop's clock: what its wall time left when it was put.

    Args:
        limit_bytes: The most bytes entries may take, keys and overhead included.
        quota: The share of them that the entries of one tool may take, or None.
        wall: Wall time, in seconds since 1970.
    """

    def __init__(
        self,
        limit_bytes: int = 64 << 20,
        *,
        quota: float | None = None,
        wall: Callable[[], float] = clock.wall,
    ) -> None:
        self._policy: Gdsf[str] = Gdsf(limit_bytes, quota)
        self._held: dict[str, tuple[Entry, float | None]] = {}
        self._wall = wall
        self._hits = self._misses = self._stored = self._evicted = self._lost = 0

    def get_now(self, key: str) -> Entry | None:
        """The entry of a key, without waiting; None for a miss."""
        held = self._held.get(key)
        if held is not None:
            entry, until = held
            if until is None or clock.now() < until:
                self._policy.hit(key)
                self._hits += 1
                return entry
            self._forget(key)
        self._misses += 1
        return None

    def peek(self, key: str) -> Entry | None:
        """The same, but it does not count as use."""
        entry, until = self._held.get(key, (None, None))
        return entry if until is None or clock.now() < until else None

    async def get(self, keys: Sequence[str]) -> list[Entry | None]:
        """The entry of each key, in order; None for a miss."""
        return [self.get_now(key) for key in keys]

    def put(self, key: str, entry: Entry) -> None:
        """Keep an entry, if it is not larger than the store and has not expired."""
        until = None
        if entry.expires is not None:
            left = entry.expires - self._wall()
            if left <= 0:
                self._forget(key)
                return
            until = clock.now() + left
        size = len(key) + len(entry.value) + OVERHEAD
        out = self._policy.add(key, size, max(entry.cost, LEAST_COST), entry.tool)
        self._held[key] = (entry, until)
        for evicted in out:
            self._held.pop(evicted, None)
        refused = key in out
        self._lost += refused
        self._stored += not refused
        self._evicted += len(out) - refused

    async def delete(self, keys: Iterable[str]) -> None:
        """Forget some keys."""
        for key in keys:
            self._forget(key)

    async def clear(self) -> None:
        """Forget everything."""
        for key in list(self._held):
            self._forget(key)

    async def flush(self) -> None:
        """Nothing to do: memory is as safe as it gets."""

    async def aclose(self) -> None:
        """Forget everything."""
        await self.clear()

    def stats(self) -> StoreStats:
        """What it holds and has done."""
        return StoreStats(
            entries=len(self._held),
            bytes=self._policy.used,
            limit=self._policy.limit,
            hits=self._hits,
            misses=self._misses,
            stored=self._stored,
            evicted=self._evicted,
            lost=self._lost,
        )

    def _forget(self, key: str) -> None:
        self._held.pop(key, None)
        self._policy.remove(key)
