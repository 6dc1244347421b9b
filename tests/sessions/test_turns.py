"""Turns of a session: each goes on from those before, byte by byte, and one at a time."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from agentflow import Budget, Engine, Session, Task, events, gather, workflow
from agentflow.errors import DefinitionError, RunCancelled, RunFailed, SessionBusy
from tests.sessions.conftest import Clerk, check_sound

pytestmark = pytest.mark.virtual


async def test_a_turn_goes_on_from_those_before(
    clerk: Clerk, engine: Engine, chat: Session
) -> None:
    assert await engine.run(chat, "hello") == "you said hello"
    assert (await engine.run(chat, "find tea")).startswith("found: tea")
    assert await engine.run(chat, "bye") == "you said bye"

    for before, after in pairwise(clerk.prompts()):
        assert after[: len(before)] == before
    assert [message["role"] for message in chat.messages] == [
        *("user", "assistant"),
        *("user", "assistant", "tool", "assistant"),
        *("user", "assistant"),
    ]
    assert clerk.server.requests[0].body["messages"][0]["content"] == "You are a clerk."
    assert clerk.told(events.PrefixBroken) == []


async def test_a_task_may_say_its_session(engine: Engine, chat: Session) -> None:
    assert await engine.run(Task("hello", "react", session=chat)) == "you said hello"
    assert len(chat.messages) == 2


@pytest.mark.parametrize("fields", [{"tools": ()}, {"model": "other"}])
async def test_a_session_says_its_tools_and_its_model(
    engine: Engine, chat: Session, fields: dict[str, Any]
) -> None:
    with pytest.raises(DefinitionError, match="says its tools"):
        await engine.run(chat, "hello", **fields)
    with pytest.raises(DefinitionError, match="what the user says"):
        await engine.run(chat)  # type: ignore[call-overload]  # nothing is said


async def test_without_tools_it_is_a_conversation(clerk: Clerk, engine: Engine) -> None:
    chat = Session(tools=())
    await engine.run(chat, "hello")
    assert "tools" not in clerk.server.requests[0].body


async def test_a_plan_and_a_loop_share_what_was_said(
    clerk: Clerk, engine: Engine, chat: Session
) -> None:
    assert await engine.run(chat, "plan tea", strategy="plan") == "planned"
    assert await engine.run(chat, "and now", strategy="react") == "you said and now"
    assert await engine.run(chat, "plan honey", strategy="plan") == "planned"

    said = clerk.server.requests[2].body["messages"]
    assert [message["role"] for message in said[1:]] == [
        *("user", "assistant", "tool", "assistant"),
        "user",
    ]
    assert said[2]["tool_calls"][0]["function"]["arguments"] == '{"key": "tea"}'
    assert said[3]["content"].startswith("tea is here.")
    planner = clerk.server.requests[3].body["messages"]
    assert planner[1:-1] == list(chat.messages[:6])
    assert planner[-1]["content"] == "plan honey"
    joiner = clerk.server.requests[4].body["messages"]
    assert joiner[1:-1] == list(chat.messages[:6])
    check_sound(chat.messages)


# One at a time


async def test_a_session_has_one_turn_at_a_time(engine: Engine, chat: Session) -> None:
    first = engine.start(chat, "hello")
    with pytest.raises(RunFailed) as caught:
        await engine.run(chat, "me too")
    assert isinstance(caught.value.__cause__, SessionBusy)
    assert "fork() the session" in str(caught.value.__cause__)
    with pytest.raises(SessionBusy):
        chat.fork()
    assert await first == "you said hello"
    assert len(chat.messages) == 2


async def test_forks_go_on_by_themselves(clerk: Clerk, engine: Engine, chat: Session) -> None:
    await engine.run(chat, "find tea")
    twin = chat.fork()
    one, two = await asyncio.gather(engine.run(chat, "cheap"), engine.run(twin, "good"))

    assert (one, two) == ("you said cheap", "you said good")
    assert chat.id != twin.id
    assert chat.messages[:4] == twin.messages[:4]
    assert [chat.messages[4]["content"], twin.messages[4]["content"]] == ["cheap", "good"]
    first, second = clerk.prompts()[-2:]
    assert first[:-1] == second[:-1]


# What goes wrong


async def test_what_was_not_answered_is_said_to_be_so(
    clerk: Clerk, engine: Engine, chat: Session
) -> None:
    clerk.status = 401
    with pytest.raises(RunFailed):
        await engine.run(chat, "hello")
    clerk.status = 200

    last = chat.messages[-1]
    assert last["role"] == "assistant"
    assert last["content"].startswith("(no answer: BackendRejected")
    assert await engine.run(chat, "again") == "you said again"
    check_sound(chat.messages)


async def test_calls_of_a_turn_that_was_stopped_are_not_forgotten(
    clerk: Clerk, chat: Session
) -> None:
    engine = await clerk.engine()
    clerk.takes = 60.0
    run = engine.start(chat, "find tea honey")
    await asyncio.sleep(1)
    run.cancel(reason="changed my mind")
    with pytest.raises(RunCancelled, match="changed my mind"):
        await run
    await run.ended()

    check_sound(chat.messages)
    assert [message["role"] for message in chat.messages] == [
        *("user", "assistant", "tool", "tool", "assistant")
    ]
    assert chat.messages[2]["content"].startswith("tea is here.")
    assert chat.messages[3]["content"] == "not known: it was stopped"


async def test_a_call_of_a_plan_that_was_stopped_is_not_forgotten(
    clerk: Clerk, chat: Session
) -> None:
    engine = await clerk.engine()
    clerk.takes = 60.0
    run = engine.start(chat, "plan honey", strategy="plan")
    await asyncio.sleep(1)
    run.cancel()
    with pytest.raises(RunCancelled):
        await run
    await run.ended()

    check_sound(chat.messages)
    _, asked, given, last = chat.messages
    assert asked["tool_calls"][0]["function"]["arguments"] == '{"key": "honey"}'
    assert given["content"].startswith("not known: ")
    assert last["content"].startswith("(no answer: ")


async def test_an_empty_answer_is_none(clerk: Clerk, engine: Engine, chat: Session) -> None:
    clerk.summary = ""
    with pytest.raises(RunFailed):
        await engine.run(chat, "it is replaced by your summary")
    assert chat.messages[-1]["content"].startswith("(no answer: AnswerInvalid")


async def test_an_error_that_repeats_everything_is_cut(
    clerk: Clerk, engine: Engine, chat: Session
) -> None:
    clerk.error = "x" * 100_000
    with pytest.raises(RunFailed):
        await engine.run(chat, "hello")
    assert len(chat.messages[-1]["content"]) < 1_000


# In workflows


async def test_a_workflow_asks(clerk: Clerk, engine: Engine) -> None:
    @workflow
    async def talk(topic: str) -> list[str]:
        chat = Session(tools=clerk.tools)
        await chat.ask(f"find {topic}")
        other = chat.fork()
        return await gather(chat.ask("cheap", strategy="react"), other.ask("good"))

    assert await engine.run(talk, "tea") == ["you said cheap", "you said good"]
    assert clerk.looked == ["tea"]
    names = [event.name for event in clerk.told(events.RunStarted)]
    assert names == ["talk", "ask", "ask", "ask"]


async def test_fields_of_a_turn_in_a_workflow_are_checked_where_they_are_given(
    chat: Session,
) -> None:
    with pytest.raises(DefinitionError, match="says its tools"):
        chat.ask("hello", tools=[])
    with pytest.raises(DefinitionError, match="no strategy"):
        chat.ask("hello", strategy="guess")


async def test_a_turn_in_a_workflow_keeps_within_its_own_budget(
    clerk: Clerk, engine: Engine
) -> None:
    @workflow
    async def talk() -> str:
        chat = Session(tools=clerk.tools)
        return await chat.ask("find tea", budget=Budget(tokens=10))

    with pytest.raises(RunFailed, match="tokens"):
        await engine.run(talk)
