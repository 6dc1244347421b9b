"""``--session FILE``: questions that go on with a conversation."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agentflow.cli import codes
from agentflow.testing import Call, Fault, ScriptedServer

Cli: TypeAlias = Callable[..., Any]
Serve: TypeAlias = Callable[..., ScriptedServer]

SEND = '''
from agentflow import tool


@tool(writes="mail", approve=True)
async def send(to: str) -> str:
    """Send a mail."""
    return f"sent to {to}"
'''


@pytest.fixture
def kept(project: Path) -> Callable[[], Any]:
    def read() -> Any:
        return json.loads((project / "chat.json").read_text())

    return read


def roles(data: Any) -> list[str]:
    return [message["role"] for message in data["messages"]]


def test_a_question_goes_on_with_the_ones_before(
    cli: Cli, serve: Serve, kept: Callable[[], Any], project: Path
) -> None:
    server = serve(["It is blue.", Call("double", {"n": 2}), "four", "$1 = double(n=3)\nreturn $1"])
    ask = ("--base-url", server.base_url, "--session", "chat.json", "--tools", "flow.py", "-q")

    assert cli("run", "What colour?", *ask).out == "It is blue.\n"
    assert cli("run", "And twice two?", *ask).out == "four\n"
    assert cli("run", "And three?", *ask, "--strategy", "plan").out == "6\n"

    first, second, third, planner = (request.body["messages"] for request in server.requests)
    for before, after in pairwise([first, second, third]):
        assert after[: len(before)] == before
    assert planner[1:-1] == kept()["messages"][:6]
    assert roles(kept()) == [
        *("user", "assistant"),
        *("user", "assistant", "tool", "assistant"),
        *("user", "assistant", "tool", "assistant"),
    ]
    assert (project / "chat.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in project.iterdir() if "chat" in path.name] == ["chat.json"]


def test_what_failed_is_kept_too(cli: Cli, serve: Serve, kept: Callable[[], Any]) -> None:
    server = serve([Fault.status(401), "fine"])
    ask = ("--base-url", server.base_url, "--session", "chat.json", "-q")

    assert cli("run", "What colour?", *ask).code == codes.BACKEND
    assert kept()["messages"][-1]["content"].startswith("(no answer: ")
    assert cli("run", "And now?", *ask).code == codes.OK
    assert roles(kept()) == ["user", "assistant"] * 2


def test_a_turn_that_waits_for_a_yes_goes_on_in_its_session(
    cli: Cli, serve: Serve, kept: Callable[[], Any], project: Path
) -> None:
    (project / "mail.py").write_text(SEND)
    server = serve(["hello", Call("send", {"to": "a@x"}), "It is sent.", "Yes."])
    ask = ("--base-url", server.base_url, "--session", "chat.json", "--tools", "mail.py")
    cli("run", "Hi", *ask, "-q")
    waits = cli("run", "Send it", *ask, "--json", "-q")
    assert waits.code == codes.WAITING

    run = waits.json["run"]
    assert cli("approve", run).code == codes.OK
    done = cli("resume", run, "-q")

    assert (done.code, done.out) == (codes.OK, "It is sent.\n")
    assert [m["content"] for m in kept()["messages"]] == [
        *("Hi", "hello"),
        *("Send it", None, "sent to a@x", "It is sent."),
    ]
    assert cli("run", "Is it?", *ask, "-q").out == "Yes.\n"


MEDDLE = '''
from pathlib import Path

from agentflow import Session, tool


@tool(writes="chat")
async def meddle() -> str:
    """Another process goes on with the conversation."""
    other = Session.from_json(Path("chat.json").read_text())
    other.history.say({"role": "user", "content": "Me first"}, {"role": "assistant", "content": "Yes."})
    Path("chat.json").write_text(other.to_json())
    return "done"
'''


def test_a_turn_of_another_process_is_not_overwritten(
    cli: Cli, serve: Serve, kept: Callable[[], Any], project: Path
) -> None:
    (project / "meddle.py").write_text(MEDDLE)
    server = serve(["hello", Call("meddle", {}), "Done."])
    ask = ("--base-url", server.base_url, "--session", "chat.json", "--tools", "meddle.py", "-q")
    cli("run", "Hi", *ask)

    done = cli("run", "Go", *ask)

    assert (done.code, done.out) == (codes.USAGE, "Done.\n")
    assert "another process has gone on with it" in done.err
    assert [message["content"] for message in kept()["messages"]][2:] == ["Me first", "Yes."]
    [beside] = project.glob("chat.json.*")
    assert json.loads(beside.read_text())["messages"][-1]["content"] == "Done."


BREAK = '''
from pathlib import Path

from agentflow import tool


@tool(writes="chat")
async def damage() -> str:
    """Another process writes something else there."""
    Path("chat.json").write_text("{")
    return "done"
'''


def test_a_turn_is_kept_beside_a_file_that_cannot_be_read_any_more(
    cli: Cli, serve: Serve, project: Path
) -> None:
    (project / "damage.py").write_text(BREAK)
    server = serve(["hello", Call("damage", {}), "Done."])
    ask = ("--base-url", server.base_url, "--session", "chat.json", "--tools", "damage.py", "-q")
    cli("run", "Hi", *ask)

    done = cli("run", "Go", *ask)

    assert (done.code, done.out) == (codes.USAGE, "Done.\n")
    [beside] = project.glob("chat.json.*")
    assert f"this conversation is in {beside.name}" in done.err
    assert "this is no session" in done.err
    assert (project / "chat.json").read_text() == "{"
    assert json.loads(beside.read_text())["messages"][-1]["content"] == "Done."


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "--session chat.json: this is no session"), (None, "it cannot be read")],
)
def test_what_is_no_session_is_left_alone(
    cli: Cli, serve: Serve, project: Path, text: str | None, said: str
) -> None:
    where = project / "chat.json"
    where.mkdir() if text is None else where.write_text(text)
    server = serve(["hello"])

    done = cli("run", "Hi", "--base-url", server.base_url, "--session", "chat.json", "-q")

    assert (done.code, server.requests) == (codes.USAGE, [])
    assert said in done.err
    assert text is None or where.read_text() == text


def test_only_a_question_has_one(cli: Cli) -> None:
    done = cli("run", "flow.py:total", "3", "--session", "chat.json")
    assert done.code == codes.USAGE
    assert "a workflow has sessions of its own" in done.err


def test_where_nothing_can_be_kept_nothing_is_asked(cli: Cli, serve: Serve) -> None:
    server = serve(["hello"])

    done = cli("run", "Hi", "--base-url", server.base_url, "--session", "none/chat.json", "-q")

    assert (done.code, done.out, server.requests) == (codes.USAGE, "", [])
    assert "there is no such folder" in done.err
