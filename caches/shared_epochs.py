"""Epochs that the processes of one machine share, beside the entries they share.

The counts are rows of a database; raising and folding are transactions. After each a file gets
new random bytes (`Generation`), by which every process sees, without waiting, whether the
epochs it has looked up still hold. The bytes are written after the commit and read before the
rows: whoever has read old rows has old bytes.

Epochs must not come back after a crash. SQLite commits survive the death of processes, but the
last ones may be lost with the machine, so every boot starts a new root count. A process that
dies between the beginning and the end of a write leaves a row that says so; whoever looks
next counts the end for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

from agentflow.caches.database import Busy, Database, Unusable
from agentflow.caches.disk import SafeCache
from agentflow.caches.epoch_rows import (
    OPEN,
    Counts,
    oldest_paths,
    owner_of,
    read_counts,
    read_open,
    to_count,
    to_key,
    to_path,
    write_counts,
    write_open,
)
from agentflow.caches.epochs import PATHS, ROOT, epoch, first_count, fold, known, prefixes, rise
from agentflow.caches.generation import Generation
from agentflow.caches.owners import Owner
from agentflow.caches.worker import Worker
from agentflow.tools.effects import Resource, conflict

BOOT = "boot"
"""The key of the row that says since which start of the machine the counts hold."""

TRIES = 8
"""Attempts at a raise that other processes keep out, each waiting for their lock."""

CLOSING = 5.0
"""Seconds to wait for the last raises when it is closed."""

Paths = frozenset[Resource]


class Seen(NamedTuple):
    """What a look has found.

    Attributes:
        generation: The bytes of before.
        epochs: By path.
        passing: Paths that somebody else is writing to, so that nobody can tell what is there.
    """

    generation: bytes
    epochs: dict[Resource, int]
    passing: Paths


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
        self._owner = Owner(folder / "owners")
        self._worker = Worker("agentflow-epochs")
        self._patience = patience
        self._limit = limit
        self._numbers = count()
        self._lock = threading.Lock()
        self._owed: Paths = frozenset()
        self._open: dict[str, Paths | None] = {}  # rows to write, or to delete
        self._settled = True  # nothing is owed, and nothing is being paid
        self._generation_seen: bytes | None = None  # under which these were looked up
        self._epochs: dict[Resource, int] = {}

    def now(self, resources: Iterable[Resource]) -> tuple[int, ...] | None:
        """The epochs, if they were looked up and nothing has changed since."""
        if self._generation_seen is None or not self._settled:
            return None
        if self._generation.now() != self._generation_seen:
            return None
        try:
            return tuple([self._epochs[known(resource)] for resource in resources])
        except KeyError:
            return None

    async def look(self, resources: Iterable[Resource]) -> tuple[int, ...] | None:
        """The epochs, from the database.

        None while another process writes to one of the resources, when the database cannot be
        reached, and when a raise is owed.
        """
        paths = [known(resource) for resource in resources]
        seen = await self._worker.ask(self._patience, self._look, frozenset(paths))
        if seen is None:
            return None
        if seen.generation != self._generation_seen or len(self._epochs) > self._limit:
            self._generation_seen = seen.generation
            self._epochs.clear()
        for path in seen.epochs.keys() - seen.passing:
            self._epochs[path] = seen.epochs[path]
        if seen.passing:
            return None
        return tuple([seen.epochs[path] for path in paths])

    def begin(self, resources: Iterable[Resource]) -> str:
        """A write of each resource begins, which `settle` counts; gives its name, for `end`."""
        name = f"{OPEN}{self._owner.name} {next(self._numbers)}"
        paths = frozenset(map(known, resources))
        self._owe(paths, {name: paths})
        return name

    async def end(self, name: str, resources: Iterable[Resource]) -> None:
        """Count a write of each resource that has ended."""
        self._owe(frozenset(map(known, resources)), {name: None})
        await self.settle()

    def begin_soon(self, resources: Iterable[Resource]) -> str:
        """Count a write of each resource that begins, as soon as possible; gives its name."""
        name = self.begin(resources)
        self._pay_soon()
        return name

    def end_soon(self, name: str, resources: Iterable[Resource]) -> None:
        """Count a write of each resource that has ended, as soon as possible."""
        self._owe(frozenset(map(known, resources)), {name: None})
        self._pay_soon()

    async def rise(self, resources: Iterable[Resource]) -> bool:
        """Count a write of each resource; False if the database did not take it in time.

        It is owed then: every later raise and look tries again first.
        """
        self._owe(frozenset(map(known, resources)))
        return await self.settle()

    async def settle(self) -> bool:
        """Wait until what is owed is paid, for a while; False if it was not."""
        if await self._worker.ask(self._patience, self._pay):
            return True
        self._database.warn("owed", "other processes may not learn of writes in time")
        return False

    async def aclose(self) -> None:
        """Pay what is owed, close the database and let the thread end."""
        await self._worker.aclose(CLOSING, self._finish)
        self._generation.close()
        self._generation_seen = None

    def _pay_soon(self) -> None:
        with suppress(RuntimeError):  # closed
            self._worker.submit(self._pay)

    def _owe(self, paths: Paths, writes: Mapping[str, Paths | None] | None = None) -> None:
        with self._lock:
            self._settled = False
            self._owed |= paths
            if len(self._owed) > self._limit:
                self._owed = frozenset([ROOT])
            if writes:
                self._open.update(writes)

    # What follows runs in the thread.

    def _look(self, paths: Paths) -> Seen | None:
        if not self._pay():
            return None
        try:
            with self._database.used() as cache:
                generation = self._generation.read() or self._generation.renew()
                passing = self._written_elsewhere(cache)
                counts = self._counts(cache, paths)
        except Unusable:
            return None
        return Seen(
            generation,
            {path: epoch(counts, path) for path in paths},
            frozenset(path for path in paths if any(conflict(path, one) for one in passing)),
        )

    def _written_elsewhere(self, cache: SafeCache) -> set[Resource]:
        """The paths other processes are writing to; those of dead ones are counted."""
        writes = read_open(cache)
        owners = {name: owner_of(name) for name in writes}
        alive = {owner for owner in owners.values() if self._owner.lives(owner)}
        dead = [name for name, owner in owners.items() if owner not in alive]
        if dead:
            paths = frozenset(path for name in dead for path in writes[name])
            self._count(cache, paths, dict.fromkeys(dead))
        others = alive - {self._owner.name}
        return {path for name in writes if owners[name] in others for path in writes[name]}

    def _pay(self) -> bool:
        """Count what is owed; False if that failed."""
        with self._lock:
            paths, self._owed = self._owed, frozenset()
            writes, self._open = self._open, {}
        paid = not paths or self._raise(paths, writes)
        with self._lock:
            if not paid:
                self._owed |= paths
                self._open = {**writes, **self._open}
            self._settled = not self._owed
        return paid

    def _raise(self, paths: Paths, writes: Mapping[str, Paths | None]) -> bool:
        for _ in range(TRIES):
            try:
                with self._database.used() as cache:
                    if writes:
                        self._owner.appear()
                    self._count(cache, paths, writes)
                return True
            except Busy:
                continue
            except Unusable:
                return False
        return False

    def _count(self, cache: SafeCache, paths: Paths, writes: Mapping[str, Paths | None]) -> None:
        """Count writes of paths, and note which writes have begun or ended."""
        with cache.transact():
            counts = self._counts(cache, paths)
            before = dict(counts)
            rise(counts, paths)
            write_counts(cache, before, counts)
            write_open(cache, writes)
            if len(cache) > self._limit:
                self._fold(cache)
        self._generation.renew()

    def _fold(self, cache: SafeCache) -> None:
        """Fold the oldest half of the paths into their parents."""
        oldest = oldest_paths(cache, self._limit // 2)
        before = read_counts(cache, {*oldest, *(path[:-1] for path in oldest)})
        counts = dict(before)
        fold(counts, oldest)
        write_counts(cache, before, counts)

    def _counts(self, cache: SafeCache, paths: Paths) -> Counts:
        """The counts that concern paths; they begin anew when they are of another boot."""
        if (counts := self._of_this_boot(cache, paths)) is not None:
            return counts
        with cache.transact():
            if (counts := self._of_this_boot(cache, paths)) is None:
                cache.set(BOOT, self._boot)
                write_counts(cache, {}, {ROOT: first_count()})
                counts = self._of_this_boot(cache, paths)
        self._generation.renew()
        assert counts is not None  # it was stored just now
        return counts

    def _of_this_boot(self, cache: SafeCache, paths: Paths) -> Counts | None:
        """The counts that concern paths; None if they do not hold since this boot."""
        needed = {ROOT, *(prefix for path in paths for prefix in prefixes(path))}
        rows = cache.read_rows([BOOT, *map(to_key, needed)])
        if rows.pop(BOOT, None) != self._boot or to_key(ROOT) not in rows:
            return None
        return {to_path(key): to_count(row) for key, row in rows.items()}

    def _finish(self) -> None:
        self._pay()
        self._database.close()
        self._owner.vanish()


def boot() -> bytes:
    """What tells this start of the machine from others; empty where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        return b""
