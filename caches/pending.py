"""What waits to be written, readable until it is."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TypeAlias

from agentflow.caches.store import Entry

Write: TypeAlias = Entry | None
"""An entry to keep, or None for a key to forget."""

_NOTHING: Mapping[str, Write] = {}


class Pending:
    """Writes between the loop, which puts them, and the thread, which takes them in batches.

    Args:
        limit: The most bytes of values that may wait.
        batch: The most writes of a batch.
        batch_bytes: The most bytes of a batch; a larger value goes alone.
    """

    def __init__(self, limit: int, batch: int, batch_bytes: int) -> None:
        self._limit = limit
        self._batch = batch
        self._batch_bytes = batch_bytes
        self._lock = threading.Lock()
        self._waiting: dict[str, Write] = {}
        self._taken = _NOTHING
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._taken)

    def find(self, keys: Iterable[str]) -> dict[str, Write]:
        """What the keys will be, those of them that a write is known of."""
        with self._lock:
            both = {**self._taken, **self._waiting} if self._taken else self._waiting
            return {key: both[key] for key in keys if key in both}

    def put(self, key: str, write: Write) -> bool:
        """Let a write wait, in place of an earlier one; False if there is no room for it."""
        with self._lock:
            more = size(write) - size(self._waiting.get(key))
            if more > 0 and self._bytes + more > self._limit:
                return False
            self._bytes += more
            self._waiting[key] = write
            return True

    def put_older(self, writes: Mapping[str, Write]) -> None:
        """Let writes wait, except where a newer one does."""
        with self._lock:
            for key, write in writes.items():
                if key not in self._waiting:
                    self._waiting[key] = write
                    self._bytes += size(write)

    def take(self) -> Mapping[str, Write]:
        """The next batch; it stays readable until `done`."""
        with self._lock:
            batch: dict[str, Write] = {}
            total = 0
            for key in list(islice(self._waiting, self._batch)):
                total += size(self._waiting[key])
                if batch and total > self._batch_bytes:
                    break
                batch[key] = self._waiting.pop(key)
                self._bytes -= size(batch[key])
            self._taken = batch
            return batch

    def done(self) -> None:
        """The batch that was taken is written, given up, or waits again."""
        self._taken = _NOTHING

    def clear(self) -> None:
        """Forget what waits."""
        with self._lock:
            self._waiting.clear()
            self._bytes = 0


def size(write: Write) -> int:
    """Bytes that a write counts for."""
    return 0 if write is None else len(write.value)
