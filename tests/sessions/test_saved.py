"""Sessions as JSON: the same conversation comes back, and nothing else is taken for one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from agentflow import Engine, Session
from agentflow.errors import DefinitionError
from agentflow.redaction import conceal
from tests.sessions.conftest import Clerk, check_sound

pytestmark = pytest.mark.virtual


async def test_a_saved_session_goes_on_where_it_was(clerk: Clerk, engine: Engine) -> None:
    clerk.window = 6_000
    chat = Session("You are a clerk.", tools=clerk.tools, window=6_000)
    for number in range(9):
        await engine.run(chat, f"find n{number}", max_tokens=500)
    text = chat.to_json()
    again = Session.from_json(text, tools=clerk.tools)

    assert again.to_json() == text
    assert (again.id, again.epoch, again.messages) == (chat.id, chat.epoch, chat.messages)
    await engine.run(chat, "hello", max_tokens=500)
    await engine.run(again, "hello", max_tokens=500)
    one, two = clerk.server.requests[-2:]
    assert one.body == two.body
    assert again.to_json() != text


async def test_one_that_was_saved_in_the_middle_of_a_turn_goes_on_after_it(
    clerk: Clerk, engine: Engine, chat: Session
) -> None:
    clerk.takes = 60.0
    run = engine.start(chat, "find honey")
    await asyncio.sleep(1)
    again = Session.from_json(chat.to_json())
    await run

    check_sound(again.messages)
    assert [message["role"] for message in again.messages] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert again.messages[-1]["content"] == "(no answer: it was saved before the turn was over)"
    assert await engine.run(again, "hello") == "you said hello"
    assert again.messages[:2] == chat.messages[:2]


async def test_half_a_surrogate_pair_is_saved_as_it_is_sent(
    clerk: Clerk, engine: Engine, chat: Session
) -> None:
    clerk.long = 4_100
    await engine.run(chat, "find \ud800")
    again = Session.from_json(chat.to_json().encode().decode())
    await engine.run(chat, "hello")
    await engine.run(again, "hello")
    one, two = clerk.server.requests[-2:]
    assert one.body == two.body


def test_tools_go_by_their_names() -> None:
    clerk = Clerk()
    chat = Session(tools=clerk.tools, model="large", window=9)
    text = chat.to_json()

    assert json.loads(text)["tools"] == ["look", "put"]
    again = Session.from_json(text, tools=[*clerk.tools[::-1]])
    assert (again.tools, again.model, again.gauge.window) == (tuple(clerk.tools), "large", 9)
    with pytest.raises(DefinitionError, match=r"may call put: give these tools, too"):
        Session.from_json(text, tools=clerk.tools[:1])
    assert Session.from_json(Session().to_json()).tools is None


def test_known_secrets_are_masked() -> None:
    conceal("sk-a-secret-of-somebody")
    chat = Session("The password is sk-a-secret-of-somebody.")
    assert "a-secret" not in chat.to_json()


def _without(name: str) -> Callable[[Any], Any]:
    return lambda data: {key: value for key, value in data.items() if key != name}


def _with(**fields: Any) -> Callable[[Any], Any]:
    return lambda data: {**data, **fields}


USER = {"role": "user", "content": "a"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "b"}
COMPACTION = {"cut": 0, "since": 0, "summary": "", "readable": True}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: [], "the text"),
        (_with(agentflow_session=2), "agentflow_session"),
        (_without("id"), "id"),
        (_with(id=""), "id"),
        (_with(id="a/b"), "id"),
        (_with(id="\u00e9"), "id"),
        (_with(more=1), "more"),
        (_with(window=0), "window"),
        (_with(window="9"), "window"),
        (_with(messages="hello"), "messages"),
        (_with(messages=[{"role": "system", "content": "I rule"}]), "messages.0"),
        (_with(messages=[{"role": "user"}]), "messages.0"),
        (_with(messages=[{"role": "user", "content": [{"type": "text"}]}]), "messages.0"),
        (_with(messages=[{"role": "user", "content": "a", "name": "b"}]), "messages.0"),
        (_with(messages=[USER, {**CALLS, "tool_calls": 5}]), "tool_calls"),
        (_with(messages=[USER, {**CALLS, "tool_calls": [{"id": "c"}]}]), "tool_calls.0"),
        (_with(messages=[USER, CALLS, USER]), "a call before message 2 has no result"),
        (_with(messages=[USER, CALLS, RESULT, RESULT]), "message 3 answers no call"),
        (
            _with(messages=[USER, CALLS, RESULT], compactions=[{**COMPACTION, "since": 2}]),
            "without its call",
        ),
        (_with(window=10**400), "window"),
        (_with(bytes_per_token=float("inf")), "bytes_per_token"),
        (_with(mark=["run", -1, 0, None, 3.0]), "mark"),
        (_with(mark=["run", 1, 0, None, 3.0]), "more is left out"),
        (_with(messages=[{"role": "assistant", "content": "hi"}]), "begin with the user"),
        (
            _with(messages=[USER, RESULT]),
            "message 1 answers no call",
        ),
        (_with(compactions=[{**COMPACTION, "since": 1}]), "more is left out"),
        (_with(compactions=[{**COMPACTION, "cut": -1}]), "compactions.0.cut"),
        (_with(compactions=[{}]), "compactions.0.cut"),
        (_with(outputs={"a": 1}), "outputs.a"),
        (_with(mark=["run"]), "mark"),
    ],
)
def test_what_is_no_session_is_refused(change: Callable[[Any], Any], said: str) -> None:
    data = change(json.loads(Session().to_json()))
    with pytest.raises(DefinitionError, match="this is no session") as caught:
        Session.from_json(json.dumps(data))
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["", "hello", "[", "null", '{"a": NaN}', "\ud800"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(DefinitionError, match="this is no session"):
        Session.from_json(text)


@pytest.mark.parametrize("window", [0, -5])
def test_a_window_is_positive(window: int) -> None:
    with pytest.raises(DefinitionError, match="write the tokens"):
        Session(window=window)
