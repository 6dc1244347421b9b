"""Epochs: numbers of resources that change with every write, so that no stale read is served.

A resource is a path in segments. Two counters are kept by path: how often the path itself was
written, which concerns it and everything below it, and how often something below it was, which
concerns it alone. The epoch of a resource is the sum of what concerns it::

    epoch(r) = sum(own[p] for every prefix p of r, the empty one and r included) + below[r]

It rises with every write that touches the resource and with no other, as long as the paths
are few; beyond a limit the oldest ones are folded into their parents, which makes some
entries old that are not, never the other way round. The root's count starts at a random
number, so epochs of different origin, as after the loss of a file, are never equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from secrets import randbits
from typing import TYPE_CHECKING, TypeAlias

from agentflow.tools.effects import Resource, conflict

if TYPE_CHECKING:
    from agentflow.caches.shared_epochs import SharedEpochs

Count = tuple[int, int]
"""``own`` and ``below`` of a path."""

Epoch: TypeAlias = tuple[int, ...]
"""Of what a call reads, each resource's."""

ROOT: Resource = ()

PATHS = 4096
"""Paths that are counted one by one."""


def known(resource: Resource) -> Resource:
    """The part of a path before the first segment that is not known."""
    return resource[: resource.index("*")] if "*" in resource else resource


def prefixes(path: Resource) -> Iterator[Resource]:
    """The path and everything above it, the root first."""
    return (path[:n] for n in range(len(path) + 1))


def first_count() -> Count:
    """What the root starts with."""
    return randbits(62), 0


def epoch(counts: Mapping[Resource, Count], path: Resource) -> int:
    """The epoch of a known resource."""
    total = sum(counts[prefix][0] for prefix in prefixes(path) if prefix in counts)
    return total + counts[path][1] if path in counts else total


def rise(counts: dict[Resource, Count], paths: Iterable[Resource]) -> None:
    """Count a write of each path; the paths counted last come last."""
    for path in paths:
        for prefix in prefixes(path):
            own, below = counts.pop(prefix, (0, 0))
            counts[prefix] = (own + 1, below) if prefix == path else (own, below + 1)


def fold(counts: dict[Resource, Count], paths: Iterable[Resource]) -> None:
    """Fold paths into their parents: what they counted, the parent's own count takes over.

    So no epoch falls.
    """
    for path in paths:
        own, below = counts.pop(path)
        above = counts.pop(path[:-1], (0, 0))
        counts[path[:-1]] = (above[0] + own + below, above[1])


class LocalEpochs:
    """Epochs by the writes of one process.

    Args:
        limit: The most paths that are counted one by one.
    """

    def __init__(self, limit: int = PATHS) -> None:
        self._limit = limit
        self._counts: dict[Resource, Count] = {ROOT: first_count()}
        self._epochs: dict[Resource, int] = {}  # those computed since the last write

    def __len__(self) -> int:
        return len(self._counts)

    def now(self, resources: Iterable[Resource]) -> tuple[int, ...]:
        """The epoch of each resource."""
        return tuple([self._epochs.get(path) or self._epoch(path) for path in resources])

    def rise(self, resources: Iterable[Resource]) -> None:
        """Count a write of each resource."""
        self._epochs.clear()
        rise(self._counts, map(known, resources))
        if len(self._counts) > self._limit:
            oldest = [path for path in self._counts if path]
            fold(self._counts, oldest[: len(oldest) - self._limit // 2])

    def _epoch(self, resource: Resource) -> int:
        if len(self._epochs) > self._limit:
            self._epochs.clear()
        found = self._epochs[resource] = epoch(self._counts, known(resource))
        return found


class Epochs:
    """The epochs an engine goes by.

    Args:
        shared: Where processes tell each other of their writes, if they share a cache.
    """

    def __init__(self, shared: SharedEpochs | None = None) -> None:
        self._shared = shared
        self._local = LocalEpochs()
        self._writing: Counter[Resource] = Counter()  # by this process, and not ended

    def here(self, resources: Iterable[Resource]) -> tuple[int, ...]:
        """The epochs by the writes of this process alone."""
        return self._local.now(resources)

    def begin(self, resources: Sequence[Resource]) -> None:
        """A write begins here: until it has ended nobody can tell what is there."""
        self._local.rise(resources)
        self._writing.update(map(known, resources))

    def end(self, resources: Sequence[Resource]) -> None:
        """A write that began has ended."""
        self._local.rise(resources)
        self._writing.subtract(map(known, resources))
        self._writing = +self._writing

    def written(self, resources: Iterable[Resource]) -> bool:
        """Whether one of the resources is being written in this process."""
        return any(conflict(known(r), path) for r in resources for path in self._writing)

    def now(self, resources: Iterable[Resource]) -> tuple[int, ...] | None:
        """The epochs, without waiting; None while one is written, or only `look` can tell."""
        if self._writing and self.written(resources):
            return None
        if self._shared is None:
            return self._local.now(resources)
        return self._shared.now(resources)

    async def look(self, resources: Iterable[Resource]) -> tuple[int, ...] | None:
        """The epochs; None while one is written, or if the shared store cannot tell."""
        if self._writing and self.written(resources):
            return None
        if self._shared is None:
            return self._local.now(resources)
        return await self._shared.look(resources)

    def left(self, resources: Sequence[Resource]) -> Callable[[], None]:
        """A write goes on although nobody waits for it; call what this gives when it has ended.

        Other processes are told as soon as possible, and of the end as well.
        """
        resources = tuple(resources)
        self.begin(resources)
        name = None if self._shared is None else self._shared.begin_soon(resources)

        def ended() -> None:
            self.end(resources)
            if self._shared is not None and name is not None:
                self._shared.end_soon(name, resources)

        return ended

    async def raised(self, resources: Iterable[Resource]) -> None:
        """Count a write of each resource, everywhere before it returns.

        When the shared store does not take it in time, this returns all the same; until it
        has, `look` gives None.
        """
        resources = tuple(resources)
        self._local.rise(resources)
        if self._shared is not None:
            await self._shared.rise(resources)

    @asynccontextmanager
    async def writing(self, resources: Sequence[Resource]) -> AsyncIterator[None]:
        """Tell other processes of a write when it begins and when it ends, whatever the outcome.

        They know of it before this is entered. Should the process die inside, they count
        its end themselves. Here, `begin` and `end` count it.
        """
        if self._shared is None:
            yield
            return
        name = self._shared.begin(resources)
        try:
            await self._shared.settle()
            yield
        finally:
            await self._shared.end(name, resources)

    async def aclose(self) -> None:
        """Close what is shared."""
        if self._shared is not None:
            await self._shared.aclose()
