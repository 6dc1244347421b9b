"""A prompt that goes on from one that was counted is bounded by that, and by what is new."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.executor.models.base import ChatRequest, Message, SessionTag, Usage
from agentflow.executor.models.bounds import PromptBounds
from agentflow.executor.models.usage import PER_MESSAGE, prompt_bound

TOOLS: list[dict[str, Any]] = [{"type": "function", "function": {"name": "look", "parameters": {}}}]


def asked(*texts: str, session: str = "s", **fields: Any) -> ChatRequest:
    """A request in which user and assistant take turns."""
    messages: list[Message] = [
        {"role": "assistant" if place % 2 else "user", "content": text}
        for place, text in enumerate(texts)
    ]
    return ChatRequest(messages=messages, session=SessionTag(session), **fields)


def told(tokens: int) -> Usage:
    return Usage(tokens, 5)


def test_only_what_is_new_counts_by_its_bytes() -> None:
    bounds = PromptBounds()
    first = asked("a" * 1_000)
    assert bounds.most(first) == prompt_bound(first)

    bounds.learn(first, told(250))

    grown = asked("a" * 1_000, "b" * 100, "c" * 100)
    assert 250 + 200 < bounds.most(grown) <= 250 + 200 + 4 * PER_MESSAGE
    bounds.learn(grown, told(300))
    assert bounds.most(asked("a" * 1_000, "b" * 100, "c" * 100, "d", "e")) < 300 + 5 * PER_MESSAGE


@pytest.mark.parametrize(
    "other",
    [
        asked("a" * 1_000, "more", session="another"),
        asked("b" * 1_000, "more"),
        asked("a" * 1_000, "more", tools=TOOLS),
        asked("a" * 1_000, "more", response_format={"type": "json_object"}),
        asked("a" * 1_000, "more", tool_choice="required"),
        replace(asked("a" * 1_000, "more"), session=None),
    ],
    ids=["session", "beginning", "tools", "format", "choice", "none"],
)
def test_what_is_no_continuation_counts_by_all_of_its_bytes(other: ChatRequest) -> None:
    bounds = PromptBounds()
    bounds.learn(asked("a" * 1_000), told(250))

    assert bounds.most(other) == prompt_bound(other)


def test_the_last_turn_may_be_without_tools_but_not_the_one_before() -> None:
    with_tools, without = asked("a" * 999, tools=TOOLS), asked("a" * 999, tools=TOOLS)
    without.tool_choice = "none"
    bounds = PromptBounds()
    bounds.learn(with_tools, told(250))
    assert bounds.most(without) < 300

    bounds.learn(without, told(200))
    assert bounds.most(with_tools) == prompt_bound(with_tools)


def test_what_was_only_estimated_bounds_nothing() -> None:
    bounds = PromptBounds()
    bounds.learn(asked("a" * 1_000), Usage(10, 5, estimated=True))
    grown = asked("a" * 1_000, "b")
    assert bounds.most(grown) == prompt_bound(grown)


def test_messages_that_are_added_to_the_same_list_are_new() -> None:
    bounds, messages = PromptBounds(), [{"role": "user", "content": "a" * 1_000}]
    request = ChatRequest(messages=messages, session=SessionTag("s"))
    bounds.learn(request, told(250))
    messages.append({"role": "assistant", "content": "b" * 500})
    assert bounds.most(request) > 250 + 500


texts = st.lists(st.text(max_size=60), min_size=1, max_size=6)


@given(texts, texts, st.text(max_size=40), st.integers(1, 4))
def test_it_is_never_below_what_a_tokenizer_counts(
    begun: list[str], new: list[str], closing: str, bytes_per_token: int
) -> None:
    """The prompt before may have ended in something of the moment, which is gone."""

    def count(request: ChatRequest) -> int:
        sizes = [len(message["content"].encode()) for message in request.messages]
        return sum(-(-size // bytes_per_token) + PER_MESSAGE for size in sizes)

    bounds = PromptBounds()
    first = asked(*begun[:-1], begun[-1] + closing)
    bounds.learn(first, told(count(first)))

    grown = asked(*begun, *new)
    assert count(grown) <= bounds.most(grown) <= prompt_bound(grown)
