"""Calls that begin while a model writes them: the option, the progress, and the summary."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agentflow import events
from agentflow.cli import codes
from agentflow.cli.account.tally import Tally
from agentflow.cli.progress import Progress
from agentflow.cli.screen import Screen
from agentflow.settings import Settings
from agentflow.testing import Call, Reply, ScriptedServer

Cli: TypeAlias = Callable[..., Any]
Serve: TypeAlias = Callable[..., ScriptedServer]

TOOLS = """
from agentflow import Late, Stream, Warm, tool


@tool(pure=True)
async def count(text: Stream[str]) -> int:
    return len([line async for line in text.lines()])


@count.warm
async def begin() -> None:
    pass


@tool(reads="web", check={"query": lambda query: query != "bad" or "say something good"})
async def search(query: str, *, session: Warm[str]) -> str:
    return f"{session}: {query}"


@search.warm
async def connect() -> str:
    return "connected"


@tool(pure=True)
async def rank(name: str, hint: Late[str], last: Late[int]) -> str:
    return name + await hint + str(await last)
"""
TURN = Reply(
    Call("count", {"text": "one\ntwo\n"}),
    Call("search", {"query": "good"}),
    Call("search", {"query": "bad"}),
    Call("count", {"text": "three"}),
)
HAPPENED: list[events.Event] = [
    events.RunStarted("r", 10.0, "task", None, None),
    events.PartialWarmed("r", 10.0, 1, "search"),
    events.PartialStarted("r", 10.25, 2, "write", {"path": "a.txt", "text": "x" * 100}),
    events.PartialStarted("r", 10.5, 1, "search", {"query": "good"}),
    events.PlanExtended("r", 11.0, range(1), ['$1 = search(query="good")']),
    events.NodeStarted("r", 11.0, 0, "search", None, 1),
    events.PartialCommitted("r", 11.0, 1, "search", 0, 0.75),
    events.NodeFinished("r", 11.5, 0, "search", None, [1]),
    events.PartialRetracted("r", 11.75, 2, "write", 1.5, "its call was not made"),
    events.ReplyStopped("r", 11.75, "search: never say bad", 35, 2013),
    events.PartialWarmed("r", 11.75, 3, "fetch"),
    events.RunFinished("r", 12.0, "Done."),
]
PLAIN = """\
warm      search(…) warms up
early     write(path="a.txt", text=100 characters, 1 line, …)
early     search(query="good", …)
plan      $1 = search(query="good")
start     $1 search
done      $1 search 500 ms, 750 ms while it was written: 1 item
dropped   write after 1.5 s: its call was not made
abort     model stopped after 35 tokens: search: never say bad
warm      fetch(…) warms up
"""


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTFLOW_PARTIAL", raising=False)


@pytest.fixture
def ask(cli: Cli, serve: Serve, project: Path) -> Cli:
    """Asks a model that makes four calls, the third of them badly, and then answers."""
    (project / "early.py").write_text(TOOLS)

    def run(*options: str) -> Any:
        url = serve([TURN, "Done."]).base_url
        words = ("--tools", "early.py", "--base-url", url, "--strategy", "react", *options)
        return cli("run", "Which?", *words)

    return run


def counted(until: int | None = None) -> Tally:
    """The events up to one of them, counted."""
    tally = Tally()
    for event in HAPPENED[:until]:
        tally.take(event)
    return tally


def test_the_summary_says_what_began_early_and_that_a_reply_was_stopped(ask: Cli) -> None:
    lines = [line.strip() for line in ask().err.splitlines()]

    assert any(line.endswith("2 calls begun before they were written to the end") for line in lines)
    assert any(line.endswith("1 call begun while written, and not made so") for line in lines)
    [stopped] = [line for line in lines if "1 reply stopped early, after " in line]
    assert stopped.endswith(" tokens of at most 2,048")


def test_what_began_while_it_was_written_is_explained(cli: Cli, ask: Cli) -> None:
    ask("-q")

    nodes = cli("explain", "last", "--json").json["nodes"]

    assert {node["why"]["kind"] for node in nodes} == {"writing"}
    records = cli("runs", "export", "last", "-").out
    assert records.count('"hidden":') == 2  # of both calls that went on from what had begun


def test_json_has_the_same_as_numbers(ask: Cli) -> None:
    data = ask("--json", "-q").json

    partial = data["partial"]
    assert (partial["began"], partial["committed"], partial["retracted"]) == (3, 2, 1)
    assert (partial["replies_stopped"], 1900 < partial["tokens_spared"] < 2048) == (1, True)
    assert partial["seconds_hidden"] >= 0 and partial["seconds_wasted"] >= 0
    assert ["seconds_hidden" in call for call in data["calls"]] == [True, True]


def test_switched_off_nothing_begins_early_and_the_same_calls_are_made(ask: Cli) -> None:
    on, off = ask("--json", "-q").json, ask("--json", "-q", "--no-partial").json

    assert not any(off["partial"].values())
    tools = [[(call["tool"], call["status"]) for call in data["calls"]] for data in (on, off)]
    assert tools[0] == tools[1] == [("count", "done"), ("search", "done")]
    assert off["answer"] == on["answer"] == "Done."


def test_the_environment_and_the_project_can_switch_it_off(
    ask: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "pyproject.toml").write_text("[tool.agentflow]\npartial = false\n")
    assert ask("--json", "-q").json["partial"]["began"] == 0
    monkeypatch.setenv("AGENTFLOW_PARTIAL", "1")
    assert ask("--json", "-q").json["partial"]["began"] == 3
    assert ask("--json", "-q", "--no-partial").json["partial"]["began"] == 0
    monkeypatch.setenv("AGENTFLOW_PARTIAL", "perhaps")
    done = ask("-q")
    assert (done.code, "AGENTFLOW_PARTIAL must be 1 or 0" in done.err) == (codes.USAGE, True)


def test_it_is_on_unless_somebody_says_no(tmp_path: Path) -> None:
    assert Settings.load(environ={}, folder=tmp_path).partial is True
    assert Settings.load(environ={"AGENTFLOW_PARTIAL": "no"}, folder=tmp_path).partial is False
    assert Settings.load(partial=False, environ={}, folder=tmp_path).partial is False


def test_what_happens_is_plain_lines_where_nobody_looks() -> None:
    file = io.StringIO()
    tally = Tally()
    progress = Progress(Screen(file), tally)
    for event in HAPPENED:
        tally.take(event)
        progress.take(event)

    assert file.getvalue() == PLAIN


def test_a_terminal_shows_calls_that_are_being_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(Screen, "size", property(lambda _: os.terminal_size((80, 24))))
    file = Terminal()
    tally = Tally()
    progress = Progress(Screen(file), tally)

    drawn = []
    for event in HAPPENED[:9]:
        tally.take(event)
        progress.take(event)
        progress.tick(event.at)
        drawn.append(file.getvalue().rpartition("\x1b[J")[2])

    assert drawn[3].splitlines() == [
        "⠴ waiting for the model 500 ms",
        '⠴ 500 ms  search(query="good", …)',
        '⠴ 250 ms  write(path="a.txt", text=100 characters, 1 line, …)',
    ]
    assert drawn[8].splitlines() == [
        "↶ write after 1.5 s: its call was not made",
        "━━━━━━━━━━━━━━━━━━━━━━━━ 1/1 call, 0 running, 1.8 s",
    ]


def test_parts_are_counted_and_what_is_left_of_them_was_in_vain() -> None:
    assert (counted(8).parts.began, len(counted(8).parts.open)) == (2, 1)
    assert counted().parts.as_dict() == {
        "began": 3, "committed": 1, "retracted": 2, "seconds_hidden": 0.75, "seconds_wasted": 1.75,
        "replies_stopped": 1, "tokens_spared": 2013,
    }  # fmt: skip


def test_what_is_left_of_parts_when_a_run_is_set_aside_was_in_vain() -> None:
    tally = counted(8)

    tally.take(events.RunPaused("r", 12.0, []))

    assert (tally.parts.retracted, tally.parts.open) == (1, {})


def test_a_part_for_which_there_was_no_room_does_not_count() -> None:
    tally = Tally()
    for event in (
        events.PlanExtended("r", 1.0, range(1), ["$1 = search()"]),
        events.PartialCommitted("r", 1.0, 1, "search", 0, 0.0),
        events.PartialRetracted("r", 1.0, 2, "search", 0.5, "its call was not made"),
    ):
        tally.take(event)

    assert not any(tally.parts.as_dict().values())


def test_second_attempts_are_counted() -> None:
    tally = Tally()
    tally.take(events.NodeHedged("r", 1.0, 0, "fetch", None, 0.3))
    tally.take(events.NodeHedged("r", 1.0, 1, "fetch", 4, 0.3))

    assert [call.as_dict()["hedged"] for call in tally.calls.values()] == [1, 1]


def test_the_list_of_tools_says_what_they_do_while_a_call_is_written(
    cli: Cli, project: Path
) -> None:
    (project / "early.py").write_text(TOOLS)

    done = cli("tools", "--tools", "early.py")
    listed = {
        tool["name"]: tool["partial"] for tool in cli("tools", "--tools=early", "--json").json
    }

    assert "    while a call is written: warms up; reads text\n" in done.out
    assert "    while a call is written: warms up; checks query\n" in done.out
    assert "    while a call is written: begins before hint and last\n" in done.out
    assert listed["rank"] == {
        "warms_up": False,
        "streamed": [],
        "late": ["hint", "last"],
        "checked": [],
    }
    assert listed["search"] == {"warms_up": True, "streamed": [], "late": [], "checked": ["query"]}
    assert listed["count"]["streamed"] == ["text"]
    assert not any(listed["calculate"].values())
