"""What waits to be written, readable until it is."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from agentflow.caches.store import Entry

Write: TypeAlias = Entry | None
"""An entry to keep, or None for a key to forget."""

_UNKNOWN = Entry(b"")


class Pending:
    """Writes between the loop, which puts them, and the thread, which takes them in batches.

    The loop shares a lock with the thread for a few instructions at most.

    Args:
        limit: The most bytes of values that may wait, besides those that are being written.
        batch: The most writes of a batch.
        batch_bytes: The most bytes of a batch; a larger value goes alone.
    """

    def __init__(self, limit: int, batch: int, batch_bytes: int) -> None:
        self._limit = limit
        self._batch = batch
        self._batch_bytes = batch_bytes
        self._lock = threading.Lock()
        self._waiting: dict[str, Write] = {}
        self._taken: dict[str, Write] = {}
        self._bytes = 0  # of what waits

    def __len__(self) -> int:
        return len(self._waiting) + len(self._taken)

    def find(self, keys: Iterable[str]) -> dict[str, Write]:
        """What the keys will be, those of them that a write is known of."""
        # In this order: what leaves the one is in the other before. The thread may remove a key
        # at any moment, when it is in the database.
        waiting, taken = self._waiting, self._taken
        found = {}
        for key in keys:
            write = waiting.get(key, _UNKNOWN)
            if write is _UNKNOWN:
                write = taken.get(key, _UNKNOWN)
            if write is not _UNKNOWN:
                found[key] = write
        return found

    def put(self, key: str, write: Write) -> bool:
        """Let a write wait, in place of an earlier one; False if there is no room for it."""
        with self._lock:
            more = size(write) - size(self._waiting.get(key))
            if more > 0 and self._bytes + more > self._limit:
                return False
            self._bytes += more
            self._waiting[key] = write
            return True

    def forget(self, key: str) -> None:
        """Let a deletion wait, unless a newer write does."""
        with self._lock:
            self._waiting.setdefault(key)

    def clear(self) -> None:
        """Forget what waits."""
        with self._lock:
            self._waiting = {}
            self._bytes = 0

    # What follows is for the thread.

    def take(self) -> Mapping[str, Write]:
        """The next batch, the same one until it is `done`."""
        if not self._taken:
            with self._lock:
                self._taken, self._waiting = self._waiting, {}
                self._bytes = 0
        batch: dict[str, Write] = {}
        total = 0
        for key, write in self._taken.items():
            total += size(write)
            if batch and (total > self._batch_bytes or len(batch) == self._batch):
                break
            batch[key] = write
        return batch

    def done(self, batch: Iterable[str]) -> None:
        """A batch is written, or given up."""
        for key in batch:
            del self._taken[key]

    def clear_taken(self) -> None:
        """Forget what was taken."""
        self._taken = {}


def size(write: Write) -> int:
    """Bytes that a write counts for."""
    return 0 if write is None else len(write.value)
