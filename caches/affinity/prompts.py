"""Prompts as chains of prefix blocks, the unit in which servers keep what they have computed."""

from __future__ import annotations

from collections.abc import Container, Hashable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

BLOCK_BYTES = 256
"""Bytes of text in one block, some 64 tokens: small beside a prompt, and cheap to follow."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a server computes once, if it sees it again before it has forgotten it.

    Attributes:
        blocks: Each stands for its block and for everything before it, so that two prompts
            begin alike exactly as far as their blocks are equal.
        tokens: Length of the whole, what fills no block included; an estimate until the
            server has counted.
    """

    blocks: tuple[Hashable, ...]
    tokens: int

    def within(self, known: Container[Hashable]) -> int:
        """How many of its leading blocks are known: where one is not, none behind it is."""
        low, high = 0, len(self.blocks)
        while low < high:
            middle = (low + high) // 2
            if self.blocks[middle] in known:
                low = middle + 1
            else:
                high = middle
        return low


class Chain:
    """The text of a conversation as it grows, cut into chained blocks.

    What was hashed for one prompt is not hashed again for the next that begins with it.

    Args:
        salt: Prompts of different salts have no block in common.
    """

    __slots__ = ("_blocks", "_salt", "_text")

    def __init__(self, salt: str = "") -> None:
        self._salt = salt.encode()
        self._text = b""
        self._blocks: list[bytes] = []

    def extend(self, text: bytes) -> int | None:
        """Take the next prompt's text.

        Returns:
            Where it first differs from the one before, in bytes; None if it goes on from it.
        """
        broken = None if text.startswith(self._text) else alike(self._text, text)
        if broken is not None:
            del self._blocks[broken // BLOCK_BYTES :]
        last = self._blocks[-1] if self._blocks else self._salt
        for start in range(
            len(self._blocks) * BLOCK_BYTES, len(text) - BLOCK_BYTES + 1, BLOCK_BYTES
        ):
            last = blake2b(last + text[start : start + BLOCK_BYTES], digest_size=12).digest()
            self._blocks.append(last)
        self._text = text
        return broken

    def prompt(self, tokens_per_byte: float) -> Prompt:
        """The text so far as a prompt."""
        return Prompt(tuple(self._blocks), round(len(self._text) * tokens_per_byte))


def alike(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many leading items of two sequences are the same, by halves: slices compare quickly."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
