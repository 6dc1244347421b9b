"""Which sessions come back after a reply: it is learnt of each kind of conversation."""

from __future__ import annotations

from collections import OrderedDict

KINDS = 128
"""Kinds that are remembered; those that ended last stay."""

SUPPOSED = 4.0
"""Replies after which sessions are taken to have come back before anything is known of a kind."""

MEMORY = 0.95
"""Weight of earlier sessions beside each that ends."""

MOSTLY = 0.5
"""Share of its replies from which a kind is taken to come back."""


class Returns:
    """How often sessions came back after a reply, by kind.

    A loop of tool calls does after all replies but one; a planner, a joiner or a question that is
    answered at once hardly ever. For who does not come back nothing has to be kept. Sessions of
    which nobody says what they are about are always taken to come back.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def expected(self, kind: str) -> bool:
        """Whether a session of a kind will probably be back after its next reply."""
        back, replies = self._seen.get(kind, (SUPPOSED, SUPPOSED))
        return back >= MOSTLY * replies

    def ended(self, kind: str, turns: int) -> None:
        """A session of a kind has ended after so many replies."""
        if not kind:
            return
        back, replies = self._seen.pop(kind, (SUPPOSED, SUPPOSED))
        self._seen[kind] = (MEMORY * back + turns - 1, MEMORY * replies + turns)
        if len(self._seen) > KINDS:
            self._seen.popitem(last=False)
