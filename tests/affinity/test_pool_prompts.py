"""Requests as prompts: what goes on from what was asked before has the same blocks before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.caches.affinity.dispatcher import FORGET
from agentflow.caches.affinity.prompts import Prompt
from agentflow.executor.affinity import chains
from agentflow.executor.affinity.chains import Chains, prompt_bytes
from agentflow.executor.models.base import ChatRequest

texts = st.text(max_size=400)
messages = st.lists(
    st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from("ua"), texts),
    min_size=1,
    max_size=6,
)


def asking(*contents: str, tools: Any = ()) -> ChatRequest:
    said = [{"role": "user", "content": content} for content in contents]
    return ChatRequest(messages=said, tools=tools)


@given(messages, messages)
def test_a_longer_history_begins_with_the_shorter(first: Any, more: Any) -> None:
    short = prompt_bytes(ChatRequest(messages=first))
    long = prompt_bytes(ChatRequest(messages=first + more))

    assert long.startswith(short)


def test_tools_stand_first_and_calls_are_part_of_the_text() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    spoken: list[Any] = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    tool = {"type": "function", "function": {"name": "f"}}

    text = prompt_bytes(ChatRequest(messages=spoken, tools=[tool])).decode()

    assert text.index('"function": {"name": "f"}}') < text.index("assistant:")
    assert '"arguments": "{}"' in text


def test_half_a_surrogate_pair_is_text_too() -> None:
    assert prompt_bytes(asking("\ud83d"))


@given(st.lists(messages, min_size=1, max_size=5), st.booleans())
def test_what_is_kept_of_a_session_changes_no_prompt(turns: Any, append: bool) -> None:
    kept = Chains()
    history: list[Any] = []
    for turn in turns:
        history = history + turn if append else turn
        request = ChatRequest(messages=list(history))

        assert kept.prompt(request, "s") == Chains().prompt(request, None)


def test_sessions_with_the_same_beginning_share_its_blocks() -> None:
    kept = Chains()
    one, _ = kept.prompt(asking("system " * 200, "one " * 100), "1")
    two, _ = kept.prompt(asking("system " * 200, "two " * 100), "2")

    same = [a == b for a, b in zip(one.blocks, two.blocks, strict=True)]
    assert same == [True] * 5 + [False] * (len(one.blocks) - 5)


def test_the_size_of_a_token_is_learnt() -> None:
    kept = Chains()
    request = asking("x" * 1_000)
    before, size = kept.prompt(request, None)
    for _ in range(3):
        kept.learn(size, size // 2)

    after, _ = kept.prompt(request, None)

    assert before == Prompt(before.blocks, round(size / 4))
    assert after == Prompt(before.blocks, round(size / 2))


def test_no_more_is_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "KEPT_BYTES", 5_000)
    kept = Chains()
    for number in range(20):
        kept.prompt(asking("x" * 1_000), str(number))
    assert list(kept._known) == ["16", "17", "18", "19"]

    for number in range(16, 20):
        kept.forget(str(number))

    assert (kept._kept, len(kept._known)) == (0, 0)


@pytest.mark.virtual
async def test_a_pool_learns_how_many_tokens_its_blocks_have(world: Any) -> None:
    pool = world.pool("a")
    fleet = pool._desk.dispatcher.fleet
    assert fleet.block == pytest.approx(64.0)

    await pool.complete(asking("a b c d e f " * 300))

    assert fleet.block > 80.0


def test_sessions_that_nobody_ends_are_forgotten_beyond_a_number() -> None:
    known = Chains()

    for number in range(FORGET + 5):
        known.prompt(asking("short"), f"s{number}")

    assert len(known._known) == FORGET
