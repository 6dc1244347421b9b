"""The KV memory of one serving engine: blocks that are held, kept, found again and evicted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence


class BlockPool:
    """Counts blocks of KV as vLLM does: shared by reference, kept until their room is needed.

    A block with a key can be found again. Keys are chained: each stands for its block and all
    before it, so the same key is the same block. Whoever holds a block holds all before it and
    lets go of the last one first, which is why what is kept is always whole prefixes.

    Args:
        total: Blocks there are.

    Attributes:
        total: Blocks there are.
        private: Blocks held that have no key (yet).
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._holders: dict[Hashable, int] = {}
        self._kept: OrderedDict[Hashable, None] = OrderedDict()  # held by nobody; oldest first
        self.private = 0

    @property
    def held(self) -> int:
        """Blocks somebody holds; the others are free or can be."""
        return self.private + len(self._holders)

    @property
    def available(self) -> int:
        """Blocks that are free, or kept for nobody but the next who asks for them."""
        return self.total - self.held

    @property
    def resident(self) -> int:
        """Blocks that can be found by their key, held or not."""
        return len(self._holders) + len(self._kept)

    def found(self, keys: Sequence[Hashable]) -> int:
        """How many of the first blocks are there."""
        for count, key in enumerate(keys):
            if key not in self._holders and key not in self._kept:
                return count
        return len(keys)

    def shared(self, keys: Sequence[Hashable]) -> int:
        """How many of these somebody holds already, so that they cost no room."""
        return sum(key in self._holders for key in keys)

    def hold(self, keys: Sequence[Hashable]) -> None:
        """Hold blocks that are there."""
        for key in keys:
            self._holders[key] = self._holders.get(key, 0) + 1
            self._kept.pop(key, None)

    def take(self, count: int) -> None:
        """Take that many blocks without a key; what was kept longest makes room."""
        self.private += count
        for _ in range(self.held + len(self._kept) - self.total):
            self._kept.popitem(last=False)

    def name(self, key: Hashable) -> None:
        """Give a private block its key; if that block is there already, it is held instead."""
        self.private -= 1
        self.hold((key,))

    def release(self, keys: Sequence[Hashable], private: int) -> None:
        """Let go of a request's blocks: those with a key are kept, the last of them first to go."""
        self.private -= private
        for key in reversed(keys):
            self._holders[key] -= 1
            if not self._holders[key]:
                del self._holders[key]
                self._kept[key] = None

    def load(self, keys: Sequence[Hashable]) -> None:
        """Keep blocks that were computed elsewhere, as far as there is room."""
        there = self.found(keys)
        self.hold(keys[:there])
        fitting = keys[: there + self.available]
        self.take(len(fitting) - there)
        for key in fitting[there:]:
            self.name(key)
        self.release(fitting, 0)

    def forget(self, keys: Iterable[Hashable] | None = None) -> None:
        """Forget these, or everything, as far as nobody holds them."""
        for key in [*self._kept] if keys is None else keys:
            self._kept.pop(key, None)
