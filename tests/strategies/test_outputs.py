"""Results that are too long to be shown: cut, or put by where the model can read on."""

from __future__ import annotations

import asyncio
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest

from agentflow import Limits, tool
from agentflow.errors import DefinitionError
from agentflow.executor.outputs import Outputs
from agentflow.testing import Call
from agentflow.tools.builtin import default_tools, read_output

TEXT = "".join(f"[{number:05}]" for number in range(2_000))
"""14,000 characters that say where they stand."""


@tool(pure=True)
async def book() -> str:
    """A long text."""
    return TEXT


@tool(pure=True)
async def length(text: str) -> int:
    """How long a text is."""
    return len(text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def results(lab: Any) -> list[str]:
    """What the last request says of calls."""
    messages = lab.server.requests[-1].body["messages"]
    return [message["content"] for message in messages if message["role"] == "tool"]


async def react(lab: Any, *script: Any, tools: Any, **options: Any) -> list[str]:
    await lab.run(*script, "Done.", strategy="react", tools=tools, **options)
    return results(lab)


async def test_a_model_sees_the_beginning_and_the_end_and_how_long_it_is(lab: Any) -> None:
    [said] = await react(lab, Call("book"), tools=[book])

    assert said == f"{TEXT[:3000]} ... (10000 of 14000 characters were cut) ... {TEXT[-1000:]}"


async def test_a_tool_says_how_much_of_it_is_shown(lab: Any) -> None:
    [said] = await react(lab, Call("book"), tools=[book.with_(max_output=8)])

    assert said == f"{TEXT[:6]} ... (13992 of 14000 characters were cut) ... {TEXT[-2:]}"


async def test_an_engine_says_how_much_of_all_others_is_shown(lab: Any) -> None:
    tools = [book.with_(max_output=20_000), length]
    calls = Call("book"), Call("length", {"text": "12345678901"})
    said = await react(lab, *calls, tools=tools, limits=Limits(output=1))

    assert said == [TEXT, "1 ... (1 of 2 characters were cut) ..."]


async def test_calls_get_the_whole_value(lab: Any) -> None:
    lab.tools += [book, length]
    await lab.run("$1 = book()\n$2 = length(text=$1)\njoin()", "Answer: so")

    assert "-> 14000" in lab.asked(1)


async def test_a_model_with_the_tool_for_it_reads_on(lab: Any, folder: Path) -> None:
    script = (
        Call("book"),
        Call("read_output", {"id": "r1", "start": 4000, "end": 4014}),
        Call("read_output", {"id": "r1", "start": 13_990}),
    )
    said = await react(lab, *script, tools=[book, read_output])

    left_out = 'are left out: read_output(id="r1", start=4000) reads on)'
    assert said == [
        f"{TEXT[:4000]} ... (10000 of 14000 characters {left_out}",
        TEXT[4000:4014],
        TEXT[13_990:],
    ]
    assert list(folder.iterdir()) == []


async def test_no_more_is_read_at_once_than_is_shown(lab: Any) -> None:
    script = Call("book"), Call("read_output", {"id": "r1", "start": 5, "end": 14_000})
    said = await react(lab, *script, tools=[book, read_output], limits=Limits(output=10))

    assert said[1] == TEXT[5:15]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"id": "r9"}, "there is no output 'r9'; there are: r1"),
        ({"id": "../r1"}, "there is no output '../r1'; there are: r1"),
        ({"id": "r1", "start": 14_000}, "output 'r1' has the characters 0 to 14000, not 14000"),
        ({"id": "r1", "start": -1}, "output 'r1' has the characters 0 to 14000, not -1"),
    ],
)
async def test_what_is_not_there_cannot_be_read(
    lab: Any, arguments: dict[str, Any], why: str
) -> None:
    script = Call("book"), Call("read_output", arguments)
    said = await react(lab, *script, tools=[book, read_output])

    assert said[1] == f"failed: LookupError: {why}"


async def test_a_tool_of_the_same_name_is_another_tool(lab: Any, folder: Path) -> None:
    @tool(name="read_output")
    async def other(id: str) -> str:
        """Not ours."""
        return id

    [said] = await react(lab, Call("book"), tools=[book, other])

    assert "characters were cut" in said


async def test_only_this_user_can_read_what_is_put_by(folder: Path) -> None:
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    outputs = Outputs(over, 4)
    assert outputs.put(0, "a\ud800\U0001f600b") == "r1"
    assert outputs.put(0, "something else") == "r1"

    [kept] = folder.iterdir()
    [file] = kept.iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert outputs.read("r1", 1, None) == "\ud800\U0001f600b"
    over.set_result(None)
    await asyncio.sleep(0)
    assert list(folder.iterdir()) == []


async def test_outside_of_a_run_there_is_nothing_to_read() -> None:
    with pytest.raises(LookupError, match="only in the run of a task"):
        await read_output("r1")


def test_it_is_among_the_tools_if_it_is_asked_for() -> None:
    assert read_output in default_tools(outputs=True)
    assert read_output not in default_tools()


@pytest.mark.parametrize("size", [0, -1, 1.5, "many"])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(DefinitionError, match="max_output must be a whole number"):
        book.with_(max_output=size)
