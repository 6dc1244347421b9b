"""Where sessions should have gone: a search that knows the whole trace.

Servers evict what was used longest ago; the search only says who goes where. What it finds is a
lower bound on the best assignment: each move is kept if more blocks are found, and others are not
tried.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from affinity_bounds import Access, lru

UNEVEN = 1.25
"""By how much the prompts of one replica may exceed the mean: one that gets all that is never
asked for again would spare the others, and work alone."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of a session, as a cache sees it."""

    session: str
    access: Access


@dataclass
class Search:
    """Moves one session after another between replicas.

    Args:
        visits: All requests in their order.
        replicas: Names of the replicas.
        capacity: Blocks of each.
        home: Where each session is at first.

    Attributes:
        found: Blocks found with the assignment as it is.
    """

    visits: Sequence[Visit]
    replicas: Sequence[str]
    capacity: int
    home: dict[str, str]
    _by_session: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    _size: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _hits: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Count what is found at first."""
        for index, visit in enumerate(self.visits):
            self._by_session[visit.session].append(index)
            self._size[visit.session] += len(visit.access.prompt)
        self._load = dict.fromkeys(self.replicas, 0)
        for session, name in self.home.items():
            self._load[name] += self._size[session]
        self._hits = {name: self._count(name) for name in self.replicas}

    @property
    def found(self) -> int:
        """Blocks found with the assignment as it is."""
        return sum(self._hits.values())

    def improve(self, moves: int, seed: int = 1) -> int:
        """Try so many moves, and return how many blocks are found then."""
        random = Random(seed)
        sessions = sorted(self._by_session)
        talks = [name for name in sessions if len(self._by_session[name]) > 1] or sessions
        for turn in range(moves):
            session = random.choice(talks if turn % 2 else sessions)
            self._try(session, random.choice(self.replicas))
        return self.found

    def _try(self, session: str, there: str) -> None:
        here, size = self.home[session], self._size[session]
        mean = sum(self._load.values()) / len(self.replicas)
        if here == there or self._load[there] + size > UNEVEN * mean:
            return
        self.home[session] = there
        hits = {name: self._count(name) for name in (here, there)}
        if sum(hits.values()) < self._hits[here] + self._hits[there]:
            self.home[session] = here
            return
        self._hits.update(hits)
        self._load[here] -= size
        self._load[there] += size

    def _count(self, name: str) -> int:
        home = self.home
        return lru((v.access for v in self.visits if home[v.session] == name), self.capacity)


def along(
    visits: Sequence[Visit],
    served: Sequence[str],
    capacity: int,
    cache: Callable[[list[Access], int], int] = lru,
) -> int:
    """Blocks found if each request goes where some policy sent it, in the order of the trace."""
    parts: dict[str, list[Access]] = defaultdict(list)
    for visit, name in zip(visits, served, strict=True):
        parts[name].append(visit.access)
    return sum(cache(part, capacity) for part in parts.values())
