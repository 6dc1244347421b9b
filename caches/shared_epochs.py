"""Epochs that the processes of one machine share, beside the entries they share.

The counts are rows of a database; raising and folding are transactions. After each a file gets
new random bytes (`Generation`), by which every process sees, without waiting, whether the
epochs it has looked up still hold. The bytes are written after the commit and read before the
rows: whoever has read old rows has old bytes.

Epochs must not come back after a crash. SQLite commits survive the death of processes, but the
last ones may be lost with the machine, so every boot starts a new root count.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from agentflow.caches.database import Busy, Database, Unusable
from agentflow.caches.disk import SafeCache
from agentflow.caches.epochs import (
    PATHS,
    ROOT,
    Count,
    epoch,
    first_count,
    fold,
    known,
    prefixes,
    rise,
)
from agentflow.caches.generation import Generation
from agentflow.caches.worker import Worker
from agentflow.tools.effects import Resource

BOOT = "boot"
"""The key of the row that says since which start of the machine the counts hold."""

TRIES = 8
"""Attempts at a raise that other processes keep out, each waiting for their lock."""

Counts = dict[Resource, Count]


class SharedEpochs:
    """Epochs by the writes of all processes that use a folder.

    Args:
        directory: The folder, the same as the store's.
        patience: Seconds to wait for the database.
        limit: The most paths that are counted one by one.
    """

    def __init__(self, directory: Path, *, patience: float = 1.0, limit: int = PATHS) -> None:
        folder = Path(directory) / "epochs"
        self._boot = boot()
        self._database = Database(
            folder,
            cull_limit=0,
            eviction_policy="none",
            verify=True,
            sqlite_synchronous=1 if self._boot else 2,  # FULL where a boot cannot be told
        )
        self._generation = Generation(folder / "generation")
        self._worker = Worker("agentflow-epochs")
        self._patience = patience
        self._limit = limit
        self._lock = threading.Lock()
        self._owed: set[Resource] = set()
        self._paying: set[Resource] = set()
        self._seen: bytes | None = None  # the bytes under which these were looked up
        self._epochs: dict[Resource, int] = {}

    def now(self, resources: Iterable[Resource]) -> tuple[int, ...] | None:
        """The epochs, if they were looked up and nothing has changed since."""
        if self._seen is None or self._owed or self._paying:
            return None
        if self._generation.now() != self._seen:
            return None
        try:
            return tuple([self._epochs[known(resource)] for resource in resources])
        except KeyError:
            return None

    async def look(self, resources: Iterable[Resource]) -> tuple[int, ...] | None:
        """The epochs, from the database; None when it cannot be reached or a raise is owed."""
        paths = [known(resource) for resource in resources]
        answer = await self._worker.ask(self._patience, self._look, set(paths))
        if answer is None:
            return None
        seen, epochs = answer
        if seen != self._seen or len(self._epochs) > self._limit:
            self._seen = seen
            self._epochs.clear()
        self._epochs |= epochs
        return tuple([epochs[path] for path in paths])

    def owe(self, resources: Iterable[Resource]) -> None:
        """Count a write of each resource as soon as possible."""
        self._owe(resources)
        with suppress(RuntimeError):  # closed
            self._worker.submit(self._pay)

    async def rise(self, resources: Iterable[Resource]) -> bool:
        """Count a write of each resource; False if the database did not take it in time.

        It is owed then: every later raise and look tries again first.
        """
        self._owe(resources)
        if paid := await self._worker.ask(self._patience, self._pay):
            return paid
        self._database.warn("owed", "other processes may not learn of writes in time")
        return False

    async def aclose(self) -> None:
        """Pay what is owed, close the database and let the thread end."""
        await self._worker.ask(self._patience, self._pay)
        await self._worker.ask(self._patience, self._database.close)
        self._worker.shutdown()
        self._generation.close()
        self._seen = None

    def _owe(self, resources: Iterable[Resource]) -> None:
        with self._lock:
            self._owed |= {known(resource) for resource in resources}
            if len(self._owed) > self._limit:
                self._owed = {ROOT}

    # What follows runs in the thread.

    def _look(self, paths: set[Resource]) -> tuple[bytes, dict[Resource, int]] | None:
        """The epochs of paths, and the bytes of before they were read."""
        if not self._pay():
            return None
        try:
            with self._database.used() as cache:
                seen = self._generation.read() or self._generation.renew()
                counts = self._counts(cache, paths)
        except Unusable:
            return None
        return seen, {path: epoch(counts, path) for path in paths}

    def _pay(self) -> bool:
        """Raise what is owed; False if that failed."""
        with self._lock:
            self._paying, self._owed = self._owed, set()
        paid = not self._paying or self._raise(self._paying)
        with self._lock:
            if not paid:
                self._owed |= self._paying
            self._paying = set()
        return paid

    def _raise(self, paths: set[Resource]) -> bool:
        for _ in range(TRIES):
            try:
                with self._database.used() as cache:
                    with cache.transact():
                        counts = self._counts(cache, paths)
                        before = dict(counts)
                        rise(counts, paths)
                        store(cache, before, counts)
                        if len(cache) > self._limit:
                            self._fold(cache)
                    self._generation.renew()
                return True
            except Busy:
                continue
            except Unusable:
                return False
        return False

    def _fold(self, cache: SafeCache) -> None:
        """Fold the oldest half of the paths into their parents."""
        keys = [key for _, key in cache.rows_after(0, self._limit // 2)]
        oldest = [path for key in keys if key != BOOT and (path := from_key(key))]
        before = load(cache, {*oldest, *(path[:-1] for path in oldest)})
        counts = dict(before)
        fold(counts, oldest)
        store(cache, before, counts)

    def _counts(self, cache: SafeCache, paths: set[Resource]) -> Counts:
        """The counts that concern paths; they begin anew when they are of another boot."""
        if (counts := self._load(cache, paths)) is not None:
            return counts
        with cache.transact():
            if (counts := self._load(cache, paths)) is None:
                cache.set(BOOT, self._boot)
                store(cache, {}, {ROOT: first_count()})
                counts = self._load(cache, paths)
        self._generation.renew()
        assert counts is not None  # it was stored just now
        return counts

    def _load(self, cache: SafeCache, paths: set[Resource]) -> Counts | None:
        """The counts that concern paths; None if they do not hold since this boot."""
        needed = {ROOT, *(prefix for path in paths for prefix in prefixes(path))}
        rows = cache.read_rows([BOOT, *map(to_key, needed)])
        if rows.pop(BOOT, None) != self._boot or to_key(ROOT) not in rows:
            return None
        return {from_key(key): to_count(row) for key, row in rows.items()}


def load(cache: SafeCache, paths: Iterable[Resource]) -> Counts:
    """The counts of paths, those that have any."""
    rows = cache.read_rows([to_key(path) for path in paths])
    return {from_key(key): to_count(row) for key, row in rows.items()}


def store(cache: SafeCache, before: Mapping[Resource, Count], after: Counts) -> None:
    """Write what has changed."""
    for path in before.keys() - after.keys():
        cache.delete(to_key(path))
    for path, count in after.items():
        if before.get(path) != count:
            cache.set(to_key(path), json.dumps(count).encode())


def to_key(path: Resource) -> str:
    """The key of a path's row."""
    return json.dumps(path)


def from_key(key: str) -> Resource:
    """The path of a row."""
    return tuple(json.loads(key))


def to_count(row: bytes) -> Count:
    """The count in a row.

    Raises:
        sqlite3.DatabaseError: It is none; the database is damaged.
    """
    try:
        own, below = json.loads(row)
        return int(own), int(below)
    except (ValueError, TypeError) as error:
        raise sqlite3.DatabaseError(f"not a count: {row[:32]!r}") from error


def boot() -> bytes:
    """What tells this start of the machine from others; empty where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        return b""
