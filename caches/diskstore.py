"""The disk tier: entries that outlive the process, shared by the processes of one machine.

Writes wait in memory and are committed in groups by a thread of the store, which alone speaks
to SQLite. Whatever goes wrong there is a miss, a warning, and a database that starts anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from agentflow import clock
from agentflow.caches.database import Busy, Database, Unusable
from agentflow.caches.disk import SafeCache
from agentflow.caches.envelope import Damaged, pack, unpack
from agentflow.caches.pending import Pending, Write
from agentflow.caches.store import SMALLEST_DISK, Entry, StoreStats
from agentflow.caches.worker import Worker
from agentflow.errors import DefinitionError

IN_DATABASE = 128 << 10
"""Bytes from which a value has a file of its own."""

LOG = 2 << 20
"""Bytes of the limit that are left to SQLite's log."""

GATHER = 0.01
"""Seconds in which writes are gathered into one transaction."""

BATCH = 256
"""Writes in one transaction."""

BATCH_BYTES = 1 << 20
"""Bytes in one transaction, which the log grows by; a larger value goes alone."""

WAITING_BYTES = 32 << 20
"""Bytes that may wait to be written; what comes on top is lost."""

TRIES = 10
"""Attempts at a transaction that other processes keep out."""

CLOSING = 10.0
"""Seconds to wait for the last writes when a store is closed."""

ORPHANED = 3600.0
"""Seconds after which a value file that no row names is removed."""

PAGE = 64
"""Entries read at once for an export."""


class DiskStore:
    """Keeps entries in a folder, for this process, later ones and others at the same time.

    The folder has to be on a local disk and the user's own. Nothing in it is ever unpickled.

    Args:
        directory: The folder; made when first needed.
        limit_bytes: The most bytes it may take; the entries stored first make room.
        wall: Wall time, in seconds since 1970.
        patience: Seconds a `get` waits for the disk before it is a miss.

    Raises:
        DefinitionError: The limit is too small to keep anything.
    """

    def __init__(
        self,
        directory: Path,
        *,
        limit_bytes: int = 1 << 30,
        wall: Callable[[], float] = clock.wall,
        patience: float = 2.0,
    ) -> None:
        if limit_bytes < SMALLEST_DISK:
            raise DefinitionError(
                f"limit_bytes has to be {SMALLEST_DISK} or more, not {limit_bytes}"
            )
        self._limit = limit_bytes
        self._wall = wall
        self._patience = patience
        self._worker = Worker("agentflow-cache")
        self._pending = Pending(WAITING_BYTES, BATCH, BATCH_BYTES)
        self._database = Database(
            Path(directory) / "values",
            size_limit=limit_bytes - LOG,
            cull_limit=0,  # after the commit instead: pages are free only then
            eviction_policy="least-recently-stored",
            disk_min_file_size=IN_DATABASE,
        )
        self._tries = 0
        self._closed = False
        self._swept = False
        self._entries = self._bytes = 0
        self._hits = self._misses = self._stored = self._evicted = self._lost = 0

    async def get(self, keys: Sequence[str]) -> list[Entry | None]:
        """The entry of each key, in order; None for a miss. The disk is asked once for all."""
        known = self._pending.find(keys)
        if asked := [key for key in keys if key not in known]:
            known |= await self._worker.ask(self._patience, self._read, asked) or {}
        found = [self._unless_expired(key, known.get(key)) for key in keys]
        hits = len(found) - found.count(None)
        self._hits += hits
        self._misses += len(found) - hits
        return found

    def put(self, key: str, entry: Entry) -> None:
        """Keep an entry: readable at once, on disk soon after."""
        if self._closed or len(entry.value) > self._limit or not self._pending.put(key, entry):
            self._lost += 1
        else:
            self._worker.later(GATHER, self._write)

    async def delete(self, keys: Iterable[str]) -> None:
        """Forget some keys."""
        for key in keys:
            self._pending.put(key, None)
        await self.flush()

    async def clear(self) -> None:
        """Forget everything, in every process that uses the folder."""
        self._pending.clear()
        await self._worker.ask(self._patience, self._clear)

    async def flush(self) -> None:
        """Wait until what was put is committed, or known to be lost."""
        while len(self._pending) and await self._worker.ask(self._patience, self._write):
            pass

    async def aclose(self) -> None:
        """Flush, close the database and let the thread end."""
        self._closed = True
        await self._worker.aclose(CLOSING, self._finish)

    async def export(self) -> AsyncIterator[tuple[str, Entry]]:
        """Every entry with its key, oldest first; what cannot be read is left out."""
        await self.flush()
        after = 0
        while found := await self._worker.ask(self._patience, self._page, after):
            after, page = found
            for key, entry in page:
                if not self._has_expired(entry):
                    yield key, entry

    async def measured(self) -> StoreStats:
        """What it holds, looked up for this, and what it has done."""
        await self.flush()
        await self._worker.ask(self._patience, self._measure)
        return self.stats()

    def stats(self) -> StoreStats:
        """What it held after its last write, and what it has done."""
        return StoreStats(
            entries=self._entries,
            bytes=self._bytes,
            limit=self._limit,
            hits=self._hits,
            misses=self._misses,
            stored=self._stored,
            evicted=self._evicted,
            lost=self._lost,
        )

    def _unless_expired(self, key: str, entry: Entry | None) -> Entry | None:
        """The entry, or None after its time, when it is forgotten too."""
        if entry is not None and self._has_expired(entry):
            self._forget(key)
            return None
        return entry

    def _has_expired(self, entry: Entry) -> bool:
        return entry.expires is not None and entry.expires <= self._wall()

    def _forget(self, key: str) -> None:
        self._pending.forget(key)
        self._worker.later(GATHER, self._write)

    # What follows runs in the thread.

    def _read(self, keys: Sequence[str]) -> dict[str, Entry]:
        """What the database has of some keys."""
        found = {}
        try:
            with self._database.used() as cache:
                for key in keys:
                    packed = cache.get(key)
                    if packed is not None and (entry := self._unpacked(key, packed)):
                        found[key] = entry
        except Unusable:
            self._lost += 1
        return found

    def _unpacked(self, key: str, packed: bytes) -> Entry | None:
        try:
            return unpack(key, packed)
        except Damaged as error:
            self._lost += 1
            self._database.warn("entry", "an entry is damaged and forgotten", error)
            self._forget(key)
            return None

    def _write(self) -> bool:
        """Commit a batch; True, so that it can be told from no answer."""
        batch = self._pending.take()
        try:
            if batch:
                self._commit(batch)
            self._tries = 0
        except Busy:
            self._tries += 1
            if self._tries == TRIES:
                self._give_up(batch, "other processes keep the cache locked; results are lost")
        except Unusable:
            self._give_up(batch)
        else:
            self._pending.done(batch)
        if len(self._pending):
            self._worker.later(GATHER * self._tries, self._write)
        return True

    def _commit(self, batch: Mapping[str, Write]) -> None:
        packed = {key: self._packed(key, write) for key, write in batch.items()}
        with self._database.used() as cache:
            with cache.transact():
                for key, value in packed.items():
                    if value is None:
                        cache.delete(key)
                    else:
                        cache.set(key, value)
            cache.disk.written.clear()
        self._stored += sum(value is not None for value in packed.values())
        with suppress(Unusable), self._database.used() as cache:
            self._make_room(cache)
            self._sweep(cache)
        self._measure()

    def _packed(self, key: str, write: Write) -> bytes | None:
        """The bytes of an entry; None to forget the key, also for what cannot be packed."""
        try:
            return None if write is None else pack(key, write)
        except (TypeError, ValueError) as error:
            self._lost += 1
            self._database.warn("unfit", "an entry cannot be stored", error)
            return None

    def _make_room(self, cache: SafeCache) -> None:
        """Keep the limit."""
        if cache.volume() > cache.size_limit:
            held = len(cache)
            cache.cull()
            self._evicted += held - len(cache)

    def _measure(self) -> None:
        """Note what is held."""
        with suppress(Unusable), self._database.used() as cache:
            self._entries, self._bytes = len(cache), cache.volume()

    def _finish(self) -> None:
        while len(self._pending):
            self._write()
        self._database.close()

    def _give_up(self, batch: Mapping[str, Write], warning: str = "") -> None:
        self._tries = 0
        self._lost += len(batch)
        self._pending.done(batch)
        if warning:
            self._database.warn("busy", warning)

    def _clear(self) -> bool:
        self._pending.clear_taken()
        self._database.clear()
        self._entries = self._bytes = 0
        return True

    def _page(self, after: int) -> tuple[int, list[tuple[str, Entry]]] | None:
        """The entries of the next rows and the last of these rows; None after the last."""
        try:
            with self._database.used() as cache:
                rows = cache.rows_after(after, PAGE)
        except Unusable:
            self._lost += 1
            return None
        found = self._read([key for _, key in rows])
        return (rows[-1][0], list(found.items())) if rows else None

    def _sweep(self, cache: SafeCache) -> None:
        """Once, remove value files that no row names: of transactions that never ended."""
        if self._swept:
            return
        self._swept = True
        folder = self._database.folder
        files = {path.relative_to(folder).as_posix(): path for path in folder.glob("??/??/*.val")}
        for name in files.keys() - cache.value_files():
            with suppress(OSError):
                if files[name].stat().st_mtime < self._wall() - ORPHANED:
                    cache.disk.remove(name)
