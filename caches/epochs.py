"""Epochs: numbers of resources that change with every write, so that no stale read is served.

A resource is a path in segments. Two counters are kept by path: how often the path itself was
written, which concerns it and everything below it, and how often something below it was, which
concerns it alone. The epoch of a resource is the sum of what concerns it::

    epoch(r) = sum(own[p] for every prefix p of r, the empty one and r included) + below[r]

It rises with every write that touches the resource and with no other, as long as the paths
are few; beyond a limit the oldest ones are folded into their parents, which makes
some entries old that are not, never the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from secrets import randbits

from agentflow.tools.effects import Resource

Counts = Mapping[Resource, tuple[int, int]]
"""``own`` and ``below`` by path."""

PATHS = 4096
"""Paths that are counted one by one."""


def known(resource: Resource) -> Resource:
    """The part of a path before the first segment that is not known."""
    return resource[: resource.index("*")] if "*" in resource else resource


def epoch(counts: Counts, resource: Resource) -> int:
    """The epoch of a known resource."""
    zero = (0, 0)
    total = sum(counts.get(resource[:n], zero)[0] for n in range(len(resource) + 1))
    return total + counts.get(resource, zero)[1]


def incarnation() -> int:
    """Where the root's count starts: epochs of different origin are never equal."""
    return randbits(62)


class LocalEpochs:
    """Epochs of the writes of one process.

    Args:
        limit: The most paths that are counted one by one.
    """

    def __init__(self, limit: int = PATHS) -> None:
        self._limit = limit
        self._counts: dict[Resource, tuple[int, int]] = {(): (incarnation(), 0)}

    def __len__(self) -> int:
        return len(self._counts)

    def now(self, resources: Iterable[Resource]) -> tuple[int, ...]:
        """The epoch of each resource."""
        return tuple([epoch(self._counts, known(resource)) for resource in resources])

    def rise(self, resources: Iterable[Resource]) -> None:
        """Count a write of each resource."""
        for resource in resources:
            path = known(resource)
            self._add(path, 1, 0)
            for n in range(len(path)):
                self._add(path[:n], 0, 1)
        if len(self._counts) > self._limit:
            self._fold(len(self._counts) - self._limit // 2)

    def _add(self, path: Resource, own: int, below: int) -> None:
        """Add to the counts of a path, which becomes the youngest."""
        had_own, had_below = self._counts.pop(path, (0, 0))
        self._counts[path] = (had_own + own, had_below + below)

    def _fold(self, number: int) -> None:
        """Fold the oldest paths into their parents.

        What a path counted, its parent's own count takes over, so no epoch falls.
        """
        for path in [path for path in self._counts if path][:number]:
            own, below = self._counts.pop(path)
            self._add(path[:-1], own + below, 0)


class Epochs:
    """The epochs an engine goes by."""

    def __init__(self) -> None:
        self._local = LocalEpochs()

    def here(self, resources: Iterable[Resource]) -> tuple[int, ...]:
        """The epochs by the writes of this process alone."""
        return self._local.now(resources)

    def now(self, resources: Iterable[Resource]) -> tuple[int, ...] | None:
        """The epochs, without waiting; None when only `look` can tell."""
        return self._local.now(resources)

    async def look(self, resources: Iterable[Resource]) -> tuple[int, ...] | None:
        """The epochs; None when the shared store cannot be reached."""
        return self._local.now(resources)

    def raise_now(self, resources: Iterable[Resource]) -> None:
        """Count a write of each resource, in this process alone."""
        self._local.rise(resources)

    async def raised(self, resources: Iterable[Resource]) -> None:
        """Count a write of each resource, everywhere, before it returns."""
        self._local.rise(resources)
