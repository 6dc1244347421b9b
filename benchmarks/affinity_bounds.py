"""What no policy can exceed: a cache that forgets nothing, and one that knows the future."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

Key = Hashable


@dataclass(frozen=True, slots=True)
class Access:
    """One request as a cache sees it.

    Attributes:
        prompt: Keys of its prompt's full blocks; those it may find are all but the last token's.
        written: Keys of the blocks that it fills beyond them.
    """

    prompt: Sequence[Key]
    written: Sequence[Key] = ()


def ceiling(accesses: Iterable[Access]) -> int:
    """Blocks found if nothing is ever evicted."""
    seen: set[Key] = set()
    hits = 0
    for access in accesses:
        hits += _leading(access.prompt, seen)
        seen.update(access.prompt)
        seen.update(access.written)
    return hits


def belady(accesses: Sequence[Access], capacity: int) -> int:
    """Blocks found by a cache that evicts what is needed last, and keeps nothing that never is.

    Whoever needs a block needs all before it, so these are needed no later; between equals the
    deeper one goes, and what is kept is always whole prefixes.
    """
    uses = _uses(accesses)
    cached: dict[Key, tuple[float, int]] = {}
    order: list[tuple[float, int, int, Key]] = []  # furthest and deepest first; lazily cleaned
    hits = serial = 0
    for access in accesses:
        hits += _leading(access.prompt, cached)
        for key in access.prompt:
            uses[key].popleft()
        for depth, key in enumerate((*access.prompt, *access.written)):
            after = uses.get(key)
            if not after:
                cached.pop(key, None)
                continue
            serial += 1
            cached[key] = (after[0], serial)
            heappush(order, (-after[0], -depth, serial, key))
        while len(cached) > capacity:
            _, _, stamp, key = heappop(order)
            if key in cached and cached[key][1] == stamp:
                del cached[key]
    return hits


def lru(accesses: Iterable[Access], capacity: int) -> int:
    """Blocks found by a cache that evicts what was used longest ago, the deepest first."""
    cached: dict[Key, None] = {}
    hits = 0
    for access in accesses:
        hits += _leading(access.prompt, cached)
        for key in reversed((*access.prompt, *access.written)):
            cached.pop(key, None)
            cached[key] = None
        while len(cached) > capacity:
            del cached[next(iter(cached))]
    return hits


def _uses(accesses: Sequence[Access]) -> dict[Key, deque[int]]:
    """When each block will be asked for."""
    uses: dict[Key, deque[int]] = defaultdict(deque)
    for index, access in enumerate(accesses):
        for key in access.prompt:
            uses[key].append(index)
    return uses


def _leading(keys: Sequence[Key], cached: Iterable[Key]) -> int:
    for count, key in enumerate(keys):
        if key not in cached:
            return count
    return len(keys)
