"""Prompts as chains of blocks: equal exactly as far as the texts are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentflow.caches.affinity.prompts import BLOCK_BYTES, Chain

pieces = st.sampled_from([b"a", b"b" * 200, b"c" * 256, b"d" * 257, b"e" * 1000])
texts = st.lists(pieces, max_size=8).map(b"".join)


def blocks(text: bytes, salt: str = "") -> tuple[object, ...]:
    chain = Chain(salt)
    chain.extend(text)
    return chain.prompt(0.25).blocks


def common(one: bytes | tuple[object, ...], other: bytes | tuple[object, ...]) -> int:
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


@given(st.lists(texts, min_size=1, max_size=6))
def test_a_chain_that_followed_edits_equals_one_of_the_last_text(edits: list[bytes]) -> None:
    chain = Chain()
    for text in edits:
        chain.extend(text)

    assert chain.prompt(0.25).blocks == blocks(edits[-1])


@given(texts, texts)
def test_blocks_are_equal_exactly_as_far_as_the_texts_are(one: bytes, other: bytes) -> None:
    whole = min(len(one), len(other), common(one, other)) // BLOCK_BYTES

    assert common(blocks(one), blocks(other)) == whole
    assert not set(blocks(one)[whole:]) & set(blocks(other)[whole:])


@given(texts, texts)
def test_it_says_where_a_text_first_differs_from_the_one_before(one: bytes, other: bytes) -> None:
    chain = Chain()
    chain.extend(one)

    broken = chain.extend(other)

    assert broken == (None if other.startswith(one) else common(one, other))


@given(texts, st.data())
def test_one_changed_byte_is_found(text: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(text)))
    chain = Chain()
    chain.extend(text + b"!")

    assert chain.extend(text[:place] + b"?" + text[place:]) == place


def test_salts_have_no_block_in_common() -> None:
    text = b"x" * 4 * BLOCK_BYTES

    assert not set(blocks(text, "one")) & set(blocks(text, "two"))
    assert blocks(text, "one") == blocks(text, "one")


def test_what_fills_no_block_counts_as_tokens_only() -> None:
    chain = Chain()
    chain.extend(b"x" * (2 * BLOCK_BYTES + 100))

    prompt = chain.prompt(0.5)

    assert len(prompt.blocks) == 2
    assert prompt.tokens == BLOCK_BYTES + 50


def test_a_repeated_block_is_another_one_further_on() -> None:
    first, second = blocks(b"x" * 2 * BLOCK_BYTES)

    assert first != second
