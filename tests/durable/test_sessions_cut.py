"""Turns that broke off go on, with the session that was given or with the one that was kept."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentflow import Engine, Session, _http, workflow
from agentflow.errors import HistoryMismatch, RunCancelled
from agentflow.executor.models.client import OpenAIBackend
from agentflow.testing import replay
from agentflow.testing.clock import run_virtual
from tests.durable.conftest import Desk, records, rows
from tests.durable.test_replay import recorded
from tests.sessions.conftest import Clerk, check_sound

SAID = "find n0 n1 n2"


def chat_before() -> Session:
    """A session that is about to be too long; the server says so only when it is asked."""
    chat = Session("You are a clerk.")
    for number in range(8):
        text = f"old {number}. " * 200
        chat.history.say(
            {"role": "user", "content": f"find o{number}"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": f"o{number}",
                        "type": "function",
                        "function": {"name": "look", "arguments": "{}"},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": f"o{number}", "content": text},
            {"role": "assistant", "content": "found"},
        )
    return chat


def contents(chat: Session) -> list[Any]:
    """What was said, but for the ids of calls: a reply that is asked for again has others."""
    said = []
    for message in chat.messages:
        calls = [call["function"] for call in message.get("tool_calls", ())]
        said.append((message["role"], message["content"], calls))
    return said


def go(clerk: Clerk, path: Path, chat: Session, resumed: str = "", given: bool = True) -> str:
    """Take a turn, or go on with it."""

    async def main() -> str:
        http = _http.client(transport=clerk.server.transport())
        model = OpenAIBackend("http://scripted/v1", "tiny", http=http)
        await model.connect()
        async with Engine(model=model, tools=clerk.tools, journal=path, seed=1) as engine:
            if not resumed:
                value = await engine.run(chat, SAID, max_tokens=500)
            elif given:
                value = await engine.resume(resumed, chat)
            else:
                value = await engine.resume(resumed)
        await http.aclose()
        return str(value)

    return run_virtual(main())


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(("window", "summarised"), [(8_000, False), (2_400, True)])
def test_a_turn_that_broke_off_anywhere_ends_as_it_would_have(
    desk: Desk, given: bool, window: int, summarised: bool
) -> None:
    clerk, whole, chat = Clerk(), desk.path(), chat_before()
    clerk.window = window
    answer = go(clerk, whole, chat)
    kept, before = records(whole), chat_before().messages
    assert answer.startswith("found: n2")
    assert any(made.summary for made in chat.history.compactions) is summarised
    assert chat.epoch > 0
    assert clerk.refused == 1 + summarised, "nobody has said yet what such texts take"
    looked = list(clerk.looked)
    for count in range(1, len(kept), 3):
        cut = desk.cut(whole, count)
        where = f"after {count} records, the last of them {kept[count - 1]}"
        again, twin = Clerk(), chat_before()
        again.window = window
        twin.id = chat.id

        assert go(again, cut, twin, rows(cut)[0].id, given) == answer, where

        ended = {r["step"] for r in kept[:count] if r["event"] == "node_finished"}
        assert len(again.looked) == len(looked) - len(ended), where
        if given:
            assert contents(twin) == contents(chat), where
            assert twin.history.compactions == chat.history.compactions, where
        else:
            assert twin.messages == before, "what was kept went on, and not this one"


@pytest.mark.parametrize("window", [8_000, 2_400])
def test_a_turn_that_was_made_to_fit_is_replayed(desk: Desk, window: int) -> None:
    clerk, path = Clerk(), desk.path()
    clerk.window = window
    go(clerk, path, chat_before())
    asked = len(clerk.server.requests)

    seen = replay(recorded(path), tools=clerk.tools)

    assert seen.whole
    assert len(seen.calls) == 3
    assert len(clerk.server.requests) == asked


def test_a_session_that_holds_the_broken_turn_goes_on_from_before_it(desk: Desk) -> None:
    path, chat = desk.path(), Session()
    clerk = Clerk()
    clerk.takes = 60.0

    async def main() -> tuple[str, str]:
        http = _http.client(transport=clerk.server.transport())
        model = OpenAIBackend("http://scripted/v1", "tiny", http=http)
        await model.connect()
        async with Engine(model=model, tools=clerk.tools, journal=path) as engine:
            await engine.run(chat, "hello")
            run = engine.start(chat, "find tea honey")
            await asyncio.sleep(1)
            run.cancel()
            with pytest.raises(RunCancelled):
                await run
            await run.ended()
            assert "(no answer" in chat.messages[-1]["content"]
            saved = chat.to_json()
            twin = Session.from_json(saved)
            value = await engine.resume(run.id, twin)
            other = Session()
            await engine.run(other, "hi")
            broken = engine.start(chat, "find honey")
            await asyncio.sleep(1)
            broken.cancel()
            with pytest.raises(RunCancelled):
                await broken
            await broken.ended()
            with pytest.raises(HistoryMismatch, match="another conversation"):
                await engine.resume(broken.id, other)
        await http.aclose()
        check_sound(twin.messages)
        assert not [m for m in twin.messages if "(no answer" in str(m["content"])]
        assert len(twin.messages) == 7
        return str(value), twin.messages[-1]["content"]

    value, last = run_virtual(main())
    assert value == last
    assert value.startswith("found: ")
    assert clerk.looked == ["tea", "honey", "honey", "honey"]


async def played(clerk: Clerk, flow: Any, path: Path, resumed: str) -> Any:
    """What a workflow gives, from its beginning or from where a run of it broke off."""
    http = _http.client(transport=clerk.server.transport())
    model = OpenAIBackend("http://scripted/v1", "tiny", http=http)
    await model.connect()
    async with Engine(model=model, journal=path, seed=1) as engine:
        value = await (engine.resume(resumed, flow) if resumed else engine.run(flow))
    await http.aclose()
    return value


def test_a_workflow_that_asks_goes_on(desk: Desk) -> None:
    clerk, whole = Clerk(), desk.path()
    shared = Session(tools=clerk.tools)

    @workflow
    async def talk() -> list[str]:
        chat = Session(tools=clerk.tools)
        return [await chat.ask("find n0"), await shared.ask("find n1"), await shared.ask("bye")]

    def run(path: Path, resumed: str = "") -> Any:
        return run_virtual(played(clerk, talk, path, resumed))

    answers = run(whole)
    kept, said = records(whole), contents(shared)
    assert answers[2] == "you said bye"
    for count in range(1, len(kept), 3):
        cut = desk.cut(whole, count)
        assert run(cut, rows(cut)[0].id) == answers, count
        assert contents(shared) == said, count


def test_a_fork_of_what_a_broken_run_had_added_to_begins_before_that(desk: Desk) -> None:
    clerk, whole = Clerk(), desk.path()
    shared = Session(tools=clerk.tools)

    @workflow
    async def compare() -> list[str]:
        bold = shared.fork()
        said = [await shared.ask("find n0"), await bold.ask("bye")]
        return [*said, *(str(message["content"]) for message in bold.messages)]

    def run(path: Path, resumed: str = "") -> Any:
        return run_virtual(played(clerk, compare, path, resumed))

    answers, kept = run(whole), records(whole)
    assert answers[2:] == ["bye", "you said bye"]
    for count in range(1, len(kept), 5):
        cut = desk.cut(whole, count)
        assert run(cut, rows(cut)[0].id) == answers, count


def test_a_workflow_that_asks_is_replayed(desk: Desk) -> None:
    clerk, path = Clerk(), desk.path()

    @workflow
    async def talk() -> list[str]:
        chat = Session(tools=clerk.tools)
        return [await chat.ask("find n0"), await chat.ask("find n1")]

    async def main() -> None:
        http = _http.client(transport=clerk.server.transport())
        model = OpenAIBackend("http://scripted/v1", "tiny", http=http)
        await model.connect()
        async with Engine(model=model, journal=path, seed=1) as engine:
            await engine.run(talk)
        await http.aclose()

    run_virtual(main())
    looked = list(clerk.looked)

    assert replay(recorded(path), talk).whole
    assert clerk.looked == looked == ["n0", "n1"]
