"""Where a prompt is no extension of the one before."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentflow.executor.affinity.chains import prompt_bytes
from agentflow.executor.affinity.prefix import Prefix
from agentflow.executor.models.base import ChatRequest, Message

TEXTS = st.text(st.characters(exclude_categories=()), max_size=400)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool"]), "content": TEXTS},
        optional={"tool_call_id": TEXTS},
    ),
    min_size=1,
    max_size=8,
)


def asked(*messages: Message, tools: Any = ()) -> ChatRequest:
    return ChatRequest(messages=messages, tools=tools)


def user(text: str) -> Message:
    return {"role": "user", "content": text}


@given(MESSAGES)
def test_a_history_that_grows_goes_on(messages: list[Message]) -> None:
    prefix = Prefix()

    found = [prefix.extend(asked(*messages[:end])) for end in range(1, len(messages) + 1)]

    assert found == [None] * len(messages)


@given(MESSAGES, st.data())
def test_the_first_byte_that_differs_is_found(messages: list[Message], data: Any) -> None:
    place = data.draw(st.integers(0, len(messages) - 1))
    changed = [*messages]
    changed[place] = {**messages[place], "content": data.draw(TEXTS)}
    old, new = prompt_bytes(asked(*messages)), prompt_bytes(asked(*changed))
    prefix = Prefix()
    prefix.extend(asked(*messages))

    found = prefix.extend(asked(*changed))

    if new.startswith(old):
        assert found is None
    else:
        assert found is not None
        assert old[: found.at] == new[: found.at]
        assert old[found.at : found.at + 1] != new[found.at : found.at + 1]


def test_what_stood_there_and_what_stands_there_now_are_shown() -> None:
    prefix = Prefix()
    prefix.extend(asked(user("a" * 100 + " it is ten o'clock " + "b" * 100)))

    found = prefix.extend(asked(user("a" * 100 + " it is two o'clock " + "b" * 100)))

    assert found is not None
    assert found.at == len("user:\n" + "a" * 100 + " it is t")
    assert found.before == "…" + "a" * 16 + " it is ten o'clock " + "b" * 13 + "…"
    assert found.after == found.before.replace("ten", "two")


def test_a_message_that_was_shorter_breaks_at_its_end() -> None:
    prefix = Prefix()
    prefix.extend(asked(user("tell me all")))

    found = prefix.extend(asked(user("tell me")))

    assert found is not None
    assert (found.before, found.after) == ("user:\ntell me all", "user:\ntell me")


def test_tools_in_another_order_break_at_the_beginning() -> None:
    one, two = ({"type": "function", "function": {"name": name}} for name in ("one", "two"))
    prefix = Prefix()
    prefix.extend(asked(user("go"), tools=[one, two]))

    found = prefix.extend(asked(user("go"), tools=[two, one]))

    assert found is not None
    assert found.before.startswith("…") and '"name": "on' in found.before


def test_what_comes_after_a_break_goes_on_from_there() -> None:
    prefix = Prefix()
    prefix.extend(asked(user("one")))
    prefix.extend(asked(user("two")))

    assert prefix.extend(asked(user("two"), user("three"))) is None
