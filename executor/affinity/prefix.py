"""Whether a conversation goes on from what was asked before, and where it does not.

What servers keep of a conversation is of use exactly as far as the next prompt begins alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentflow.caches.affinity.prompts import Chain
from agentflow.executor.affinity.chains import prompt_bytes
from agentflow.executor.models.base import ChatRequest

AROUND = 24
"""Bytes that are shown before the first that differs, and after it."""


@dataclass(frozen=True, slots=True)
class Break:
    """Where a prompt is no extension of the one before.

    Attributes:
        at: The first byte that differs.
        before: What stood around there.
        after: What stands there now.
    """

    at: int
    before: str
    after: str


class Prefix:
    """What a conversation has asked so far, which is what its next request should begin with."""

    def __init__(self) -> None:
        self._chain = Chain()
        self._text = b""

    def extend(self, request: ChatRequest) -> Break | None:
        """Take the next request, without what is volatile in it; None if it goes on."""
        text = prompt_bytes(request)
        before, self._text = self._text, text
        at = self._chain.extend(text)
        if at is None:
            return None
        return Break(at, _around(before, at), _around(text, at))


def _around(text: bytes, at: int) -> str:
    """What stands around a byte."""
    start, end = max(0, at - AROUND), at + AROUND
    shown = text[start:end].decode("utf-8", "replace")
    return f"{'…' if start else ''}{shown}{'…' if end < len(text) else ''}"
