"""What is fuzzed: a reader, texts that it is known to read, and what it may raise."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Read = Callable[[bytes, random.Random], object]


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        name: Of the reader.
        read: Reads some bytes; it is given chance for how they are cut.
        corpus: What it is known to read, and what it has been found to misread.
        raises: What it may raise.
        grows: Texts of a length, which are read in time that grows with it.
        texts: How many mutated ones are read where time is short.
    """

    name: str
    read: Read
    corpus: Sequence[bytes]
    raises: tuple[type[Exception], ...] = ()
    grows: Sequence[Callable[[int], bytes]] = ()
    texts: int = 400


class Misread(AssertionError):
    """A reader did not raise, and is wrong all the same."""


def text(data: bytes) -> str:
    """Bytes as a text, lone surrogates included."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def times(part: str, before: str = "", after: str = "") -> Callable[[int], bytes]:
    """A text of about so many characters, most of which are repetitions of a part."""
    return lambda size: (before + part * (size // len(part)) + after).encode()


TEXTS = tuple(map(times, ('"', "\\", '\\"', "[", "{", "9", "é", "\0", " ", "\n", "a=", '"a":')))
"""Texts of one kind that no reader should choke on."""

NESTED = (times("["), times('{"a":'), times('{"a":1},', "[", "null]"), times("9"), times('"'))
"""JSON, or nearly."""
