"""What one replica probably still holds: a model of its prefix cache, kept right by its replies."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from itertools import takewhile

from agentflow.caches.affinity.prompts import Prompt

LEAST = 16
"""Blocks below which no capacity is believed to be."""

MOST = 65_536
"""Blocks that are followed where nothing is known of the capacity."""

RESTARTED = 0.25
"""A block that was used within this share of the capacity and is gone was not evicted: the cache
was emptied. If that seems to happen again before so much was used, the capacity is smaller."""

GROWTH = 1.1
"""By how much a capacity was too small when something is there that should not be."""


class Residency:
    """The chained blocks of one replica, least recently used first.

    Servers free the blocks of a request last block first and evict what was used longest ago,
    so of any prompt a beginning is resident. What replies say about it corrects the model: if a
    block is gone that was used at some time, so is all that was not used since; and how much was
    used since bounds the capacity.

    Args:
        capacity: Blocks it can hold at most; None if that is not known.

    Attributes:
        capacity: Blocks it seems to hold: what it can hold at most, less what others take.
    """

    def __init__(self, capacity: float | None = None) -> None:
        self._ceiling = capacity
        self._learnt = self._alone = self.capacity = capacity
        self._taken = 0.0
        self._blocks: OrderedDict[Hashable, int] = OrderedDict()  # to the touch that used it last
        self._touches = 0
        self._emptied = False

    def __len__(self) -> int:
        return len(self._blocks)

    def limit(self, capacity: float) -> None:
        """The replica says how many blocks it can hold."""
        capacity = max(float(LEAST), capacity)
        if self._ceiling is None or not math.isclose(capacity, self._ceiling, rel_tol=1e-6):
            self._ceiling = self._learnt = self._alone = capacity
            self._fit()
            self._evict()

    def share(self, taken: float) -> None:
        """Others hold so many blocks now, which are not there for what is followed here.

        What replies say of the capacity while they do is forgotten when they do no more.
        """
        if not self._taken:
            self._alone = self._learnt
        if not taken:
            self._learnt = self._alone
        self._taken = taken
        self._fit()
        self._evict()

    def relearn(self) -> None:
        """It was started anew: only what it says itself of its capacity is believed."""
        self._learnt = self._alone = self._ceiling
        self._fit()

    def rescale(self, scale: float) -> None:
        """Blocks hold so many times fewer tokens than was thought, so there are more of them."""
        known = (self._ceiling, self._learnt, self._alone)
        scaled = (None if blocks is None else blocks * scale for blocks in known)
        self._ceiling, self._learnt, self._alone = scaled
        self._taken *= scale
        self._fit()
        self._evict()

    def depth(self, prompt: Prompt) -> int:
        """How many of a prompt's leading blocks are resident."""
        return prompt.within(self._blocks)

    def newer(self, prompt: Prompt) -> int:
        """How many blocks were used since a prompt was; what is older is evicted before it."""
        if not prompt.blocks or prompt.blocks[-1] not in self._blocks:
            return len(self._blocks)
        touched = self._blocks[prompt.blocks[-1]]
        return sum(
            1 for _ in takewhile(lambda used: used > touched, reversed(self._blocks.values()))
        )

    def touch(self, prompt: Prompt) -> int:
        """A prompt is being computed: it is resident from now on.

        Returns:
            What `confirm` needs to know of how it was before.
        """
        known = self.depth(prompt)
        before = self._blocks[prompt.blocks[known - 1]] if known else 0
        self._touches += 1
        for block in reversed(prompt.blocks):
            self._blocks[block] = self._touches
            self._blocks.move_to_end(block)
        self._evict()
        return before

    def confirm(self, expected: int, actual: int, touched: int) -> None:
        """A reply said how many leading blocks of its prompt were cached.

        Args:
            expected: As `depth` said before.
            actual: As the replica says.
            touched: As `touch` said.
        """
        if actual < expected:
            self._lost(touched, expected)
        elif actual > expected and self._learnt is not None:
            grown = max(self._learnt, (len(self._blocks) + actual - expected) * GROWTH)
            self._learnt = grown if self._ceiling is None else min(grown, self._ceiling)
            self._fit()

    def forget(self) -> None:
        """Nothing is there any more."""
        self._blocks.clear()

    def _lost(self, touched: int, again: int) -> None:
        """Something is gone that was last used by that touch; of it, so much was used again."""
        newer = sum(touch > touched for touch in self._blocks.values()) - again
        capacity = self.capacity if self.capacity is not None else 0.0
        few = capacity * RESTARTED
        if newer < few and (len(self._blocks) >= few or not self._emptied):
            self._emptied = True
            self._drop(self._touches - 1)
            return
        self._drop(touched)
        if newer > LEAST:
            self._learnt = min(capacity or newer, newer)
            self._fit()

    def _drop(self, touched: int) -> None:
        """What was last used by that touch, or before, is gone."""
        while self._blocks and next(iter(self._blocks.values())) <= touched:
            self._blocks.popitem(last=False)

    def _fit(self) -> None:
        self.capacity = self._learnt
        if self._taken and self._ceiling is not None and self._learnt is not None:
            self.capacity = max(float(LEAST), min(self._learnt, self._ceiling - self._taken))

    def _evict(self) -> None:
        most = MOST if self.capacity is None else self.capacity
        while len(self._blocks) > most:
            self._blocks.popitem(last=False)
