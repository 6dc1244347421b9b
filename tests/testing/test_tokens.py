"""The tokenizer loses nothing, and the prefix cache counts what a server would find."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentflow.testing.tokens import PrefixCache, tokens


@given(st.text())
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(tokens(text)) == text


def test_tokens_are_about_four_characters() -> None:
    assert tokens('$1 = f("ab cd")\n') == ["$", "1", " ", "=", " f", '("', "ab", " cd", '")', "\n"]
    assert tokens(" population") == [" popu", "lati", "on"]


@given(st.text(), st.text(), st.text())
def test_the_cached_prefix_is_what_was_seen_before(start: str, one: str, other: str) -> None:
    cache = PrefixCache()
    assert cache.cached(start + one) == 0
    cached = cache.cached(start + other)
    assert cached >= min(len(tokens(start)), len(tokens(start + other))) - 1
    assert cached < max(1, len(tokens(start + other)))


def test_only_the_last_prompts_are_remembered() -> None:
    cache = PrefixCache(size=1)
    cache.cached("aaaa bbbb cccc")
    cache.cached("xxxx")
    assert cache.cached("aaaa bbbb cccc") == 0
