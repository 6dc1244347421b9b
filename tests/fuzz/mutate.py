"""Turns texts that can be read into ones that perhaps cannot, the same ones for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

LONGEST = 100_000

TOKENS = tuple(
    token.encode("utf-8", "surrogatepass")
    for token in (
        '"', "'", "\\", '\\"', "\\u", "\\ud800", "\ud800", "\udfff", "\x00", "\ufeff", "\u2028",
        "\r", "\n", "\r\n", "\n\n", "$", "$1", "$0", "${", "${1.x}", "$1[*]", "$99999999999999999999",
        "(", ")", "[", "]", "{", "}", "[[[[[[[[", "))))", ",", ":", "=", "each ", " if $1", "#",
        "null", "true", "NaN", "Infinity", "-", "-0", "1e999", "9" * 400, "0x10", "1_000", "0.1.2",
        "join()", "return $1", "```", "**", "Thought:", "data: ", "data:", "data: [DONE]\n\n",
        "event: ", ": ping\n\n", "error: {}\n\n", "é", "\u202e", "\U0001f600", "%00", "%2e%2e/",
        "//", "@", "://", "[::1]", "http://", "..", "~", "`", "|", "&", ";", "<", ">", "\t", " " * 40,
    )
)  # fmt: skip
"""What readers look for, and what has broken readers before."""

Mutation = Callable[[bytearray, random.Random], None]


def _flip(data: bytearray, chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _insert(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.choice(TOKENS) * chance.choice((1, 1, 1, 2, 30))


def _replace(data: bytearray, chance: random.Random) -> None:
    start, end = _span(data, chance, 8)
    data[start:end] = chance.choice(TOKENS)


def _delete(data: bytearray, chance: random.Random) -> None:
    start, end = _span(data, chance, 40)
    del data[start:end]


def _repeat(data: bytearray, chance: random.Random) -> None:
    start, end = _span(data, chance, 60)
    data[end:end] = data[start:end] * chance.choice((1, 2, 50))


def _move(data: bytearray, chance: random.Random) -> None:
    start, end = _span(data, chance, 60)
    part = bytes(data[start:end])
    del data[start:end]
    at = chance.randrange(len(data) + 1)
    data[at:at] = part


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _nest(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.choice((b"[", b"{", b'{"a":', b"(", b"f(", b"${", b"'")) * 500


def _noise(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.randbytes(chance.randrange(1, 9))


MUTATIONS: tuple[Mutation, ...] = (
    _flip, _flip, _insert, _insert, _insert, _replace, _replace, _delete, _repeat, _move, _cut,
    _nest, _noise,
)  # fmt: skip


def mutated(corpus: Sequence[bytes], chance: random.Random) -> bytes:
    """A member of the corpus, or two of them joined, changed in a few places."""
    data = bytearray(chance.choice(corpus))
    if chance.random() < 0.1:
        other = chance.choice(corpus)
        data[chance.randrange(len(data) + 1) :] = other[chance.randrange(len(other) + 1) :]
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        chance.choice(MUTATIONS)(data, chance)
    return bytes(data[:LONGEST])


def _span(data: bytearray, chance: random.Random, longest: int) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + chance.randrange(1, longest))
