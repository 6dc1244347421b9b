"""What is left of a task's limits, as its model is told.

After Timely Machine (2026) and its finding that a model seldom asks how much time there is: the
last message of a request says so. It is in no message that is kept, so that what requests have in
common stays as it was, byte by byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_DOWN, Context, Decimal

from agentflow.budgets.ledger import Ledger, Left
from agentflow.executor.models.base import Message

BINDS = 0.5
"""A limit binds when no more than this share of it is left: work grows to fill what it is given."""


class Remaining:
    """Tells a model what is left.

    Args:
        ledger: Of the task.
        shown: In every request, in none, or (None) once a limit binds.
    """

    def __init__(self, ledger: Ledger, shown: bool | None) -> None:
        self._ledger = ledger
        self._shown = shown
        self._given = ledger.left

    def told(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages of a request, the last of which says what is left if it is to be shown."""
        left = self._ledger.left
        if self._shown is False or not (said := _line(left)):
            return tuple(messages)
        if self._shown is None and not self._binds(left):
            return tuple(messages)
        last = messages[-1]
        if last["role"] != "user":
            return (*messages, {"role": "user", "content": said})
        # Some backends refuse two messages of the user in a row.
        return (*messages[:-1], {**last, "content": f"{last['content']}\n\n{said}"})

    def _binds(self, left: Left) -> bool:
        given = self._given
        pairs = ((left.usd, given.usd), (left.tokens, given.tokens), (left.seconds, given.seconds))
        return any(
            now is not None and first is not None and float(now) <= BINDS * float(first)
            for now, first in pairs
        )


def _line(left: Left) -> str:
    """What is left, in one line; empty without a limit."""
    parts = []
    if left.seconds is not None:
        parts.append(f"{left.seconds:.0f} s" if left.seconds >= 10 else f"{left.seconds:.1f} s")
    if left.usd is not None:
        parts.append(f"${_rounded(left.usd):f}")
    if left.tokens is not None:
        parts.append(f"{max(0, left.tokens)} tokens")
    return f"Remaining: {', '.join(parts)}. Finish within it." if parts else ""


def _rounded(usd: Decimal) -> Decimal:
    """Two digits of an amount, rounded down."""
    usd = max(usd, Decimal(0))
    unit = Decimal(1).scaleb(min(usd.adjusted() - 1, -2)) if usd else Decimal("0.01")
    return usd.quantize(unit, ROUND_DOWN, Context(prec=100))
