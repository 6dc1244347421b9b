"""What a store of cached values is: entries by key, and the methods every store has.

A store holds encoded values and knows nothing of tools, effects or flights. It never fails a
caller: what it cannot read is a miss, what it cannot write is lost and counted.
`agentflow.testing.StoreContract` tests a store of your own against this page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

SMALLEST_DISK = 4 << 20
"""The least bytes a store on disk may be limited to."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A cached result.

    Attributes:
        value: JSON in UTF-8.
        cost: Seconds it took to obtain; what eviction weighs.
        expires: Wall time after which it is a miss, in seconds since 1970; None for never.
        epochs: Epochs of the resources it was read from; empty for pure tools.
        tool: Name of the tool that gave it.
    """

    value: bytes
    cost: float = 0.0
    expires: float | None = None
    epochs: tuple[int, ...] = ()
    tool: str = ""


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What a store holds and what it has done since it was made.

    Attributes:
        entries: Entries held, as far as the store knows without asking a disk.
        bytes: What they take, keys and overhead included.
        limit: The most bytes they may take.
        hits: Keys that were found.
        misses: Keys that were not, the expired ones included.
        stored: Entries that were kept.
        evicted: Entries that made room for others.
        lost: Entries that could not be kept, and reads that failed.
    """

    entries: int
    bytes: int
    limit: int
    hits: int = 0
    misses: int = 0
    stored: int = 0
    evicted: int = 0
    lost: int = 0


class Store(Protocol):
    """Keeps entries by key. No method raises because of a disk, a file or another process."""

    async def get(self, keys: Sequence[str]) -> list[Entry | None]:
        """The entry of each key, in order; None for a miss."""
        ...

    def put(self, key: str, entry: Entry) -> None:
        """Keep an entry. Returns at once; the next `get` of the key finds it."""
        ...

    async def delete(self, keys: Iterable[str]) -> None:
        """Forget some keys."""
        ...

    async def clear(self) -> None:
        """Forget everything."""
        ...

    async def flush(self) -> None:
        """Wait until what was put is kept as safely as the store can."""
        ...

    async def aclose(self) -> None:
        """Flush, and let go of files and threads. Closing twice is allowed."""
        ...

    def stats(self) -> StoreStats:
        """What it holds and has done; never waits."""
        ...
