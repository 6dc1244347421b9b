"""``agentflow explain``: why calls of a run that is kept began when they did."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest

from agentflow.cli import codes
from agentflow.cli.account.explained import Explained
from agentflow.cli.account.timeline import Timeline
from agentflow.cli.story import story
from agentflow.cli.telling import OLD, table
from agentflow.executor.journal.rows import Batch, RunRow
from agentflow.executor.journal.store import JournalStore
from agentflow.testing import Call

Cli: TypeAlias = Callable[..., Any]
Write: TypeAlias = Callable[..., str]
Record: TypeAlias = dict[str, Any]

SUM = "$1 = calculate('6 * 7')\n$2 = calculate('2 * ${1}')\n$3 = calculate('1')\nreturn $2"

FLOWS = """
import asyncio

from agentflow import tool, workflow

TRIED = []


@tool(reads="web", limit=1)
async def fetch(n: int) -> int:
    await asyncio.sleep(0)
    return n


@tool(reads="web", retries=1, backoff=0)
async def shaky(n: int) -> int:
    TRIED.append(n)
    if len(TRIED) == 1:
        raise OSError("reset")
    return n


@tool(writes="db")
async def put(n: int) -> int:
    return n


@tool(reads="db")
def get() -> int:
    return 1


@tool(writes="mail", approve=True)
async def send(to: str) -> str:
    return f"sent to {to}"


@workflow
async def inner(n: int) -> int:
    return await fetch(n + 100)


@workflow
async def everything() -> int:
    first, second = fetch(1), fetch(2)
    third = await shaky(3)
    written, read = put(4), get()
    nested = await inner(5)
    return sum(await fetch.map([1, 6])) + await first + await second + await written + await read


@workflow
async def mail(to: str) -> str:
    await fetch(1)
    return await send(to)
"""


@pytest.fixture(autouse=True)
def flows(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    monkeypatch.delenv("AGENTFLOW_JOURNAL", raising=False)
    (project / "flows.py").write_text(FLOWS)


@pytest.fixture
def journal(project: Path) -> Path:
    return project / "state" / "agentflow" / "journal.db"


@pytest.fixture
def explained(cli: Cli) -> Callable[..., dict[str, Record]]:
    """Runs something; how its calls are explained, by their lines."""

    def run(*words: str) -> dict[str, Record]:
        cli("run", *words, "-q")
        data = cli("explain", "last", "--json").json
        assert data["ok"] and data["recorded"]
        return {node["call"].partition(" = ")[0]: node for node in data["nodes"]}

    return run


def test_a_call_began_when_the_last_of_what_it_needs_had_ended(
    explained: Callable[..., dict[str, Record]], plan_file: Write
) -> None:
    nodes = explained(plan_file(SUM))

    assert nodes["$1"]["why"] == {"kind": "start", "text": "at once", "of": []}
    assert nodes["$2"]["why"] == {
        "kind": "needed",
        "text": "$1 calculate had ended, which it needs",
        "of": ["$1 calculate"],
    }
    assert nodes["$1"]["kept_waiting"] == ["$2 calculate"]
    assert nodes["$2"]["began"] >= nodes["$1"]["ended"]
    assert (nodes["$2"]["critical"], nodes["$2"]["status"]) == (True, "done")


def test_a_call_that_uses_what_a_gather_gives_waits_for_what_that_gathers(
    explained: Callable[..., dict[str, Record]], plan_file: Write
) -> None:
    nodes = explained(
        plan_file(
            "$1 = calculate('1')\n$2 = calculate('2')\n"
            "$3 = gather($1, $2)\n$4 = calculate('${3[0]} + 1')\nreturn $4"
        )
    )

    assert "$3" not in nodes
    assert nodes["$4"]["why"]["text"].endswith(" had ended, the last of what it needs")


def test_what_a_workflow_called_says_what_it_came_after(cli: Cli) -> None:
    cli("run", "flows.py:everything", "-q")

    data = cli("explain", "last", "--json").json
    own = [node for node in data["nodes"] if node["run"] == data["run"]]
    by_line = {
        node["call"].partition("(")[0].split(" ")[-1] + str(node["id"]): node for node in own
    }
    assert by_line["fetch1"]["why"]["kind"] == "start"
    assert by_line["fetch2"]["why"]["kind"] == "place"
    assert by_line["fetch2"]["why"]["text"].startswith("a place among the calls of fetch was free")
    assert by_line["shaky3"]["where"] == ["2 attempts"]
    assert by_line["put4"]["why"]["kind"] == "program"
    assert by_line["put4"]["why"]["of"] in (["$2 fetch"], ["$3 shaky"])
    assert by_line["get5"]["why"] == {
        "kind": "after", "text": "$4 put had ended, which it has to come after", "of": ["$4 put"],
    }  # fmt: skip
    assert by_line["get5"]["where"] == ["in a thread"]
    assert by_line["inner6"]["where"] == ["as a run of its own"]
    assert by_line["fetch7"]["elements"] == 2
    assert by_line["fetch7"]["where"] == ["value from memory"]
    (nested,) = [node for node in data["nodes"] if node["run"] != data["run"]]
    assert (nested["call"], nested["why"]["text"]) == ("$1 = fetch(105)", "$6 inner began")
    path = data["path"]
    assert path[0]["began"] == 0.0 and path[-1]["ended"] == data["seconds"]


def test_one_call_is_told_of_in_sentences(cli: Cli) -> None:
    cli("run", "flows.py:everything", "-q")

    run, line, state, _, *sentences = cli("explain", "last", "shaky").out.splitlines()

    assert run.endswith("  flows.py:everything")
    assert line == "$3 = shaky(3)"
    assert state.startswith("done, ")
    texts = [sentence.partition(" s  ")[2] for sentence in sentences]
    assert texts[:2] == ["it joined the plan", "it began: at once; in the event loop"]
    assert texts[2].startswith("attempt 1 failed (OSError: reset); the next began ")
    assert texts[-1].startswith("it ended, after ") and texts[-1].endswith(": it gave 3")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("$2", "$2 = fetch(2)"),
        ("2", "$2 = fetch(2)"),
        ("put", "$4 = put(4)"),
        ("$6/$1", "$1 = fetch(105)"),
        ("inner/fetch", "$1 = fetch(105)"),
        ("$7[1]", "$7 = fetch(each [1, 6])"),
    ],
)
def test_a_call_may_be_named_in_several_ways(cli: Cli, name: str, line: str) -> None:
    cli("run", "flows.py:everything", "-q")

    assert cli("explain", "last", name).out.splitlines()[1] == line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["last", "fetsh"], "has no call 'fetsh'. Its calls are $1 to $7. Did you mean 'fetch'?"),
        (["last", "$9"], "has no call '$9'. Its calls are $1 to $7."),
        (["last", "fetch"], "'fetch' could be $1, $2, $7: say which"),
        (["last", "$7[5]"], "$7[5]: $7 has 2 elements that began"),
        (["last", "$1/$1"], "has no call '$1/$1'"),
        (["nobody"], "there is no run 'nobody'. Known: "),
    ],
)
def test_a_name_that_means_nothing_is_explained(cli: Cli, words: list[str], said: str) -> None:
    cli("run", "flows.py:everything", "-q")

    done = cli("explain", *words)

    assert (done.code in (codes.USAGE, codes.FAILED), done.out) == (True, "")
    assert said in done.err


def test_where_nothing_is_kept_that_is_said(cli: Cli, journal: Path) -> None:
    done = cli("explain", "last")

    assert (done.code, f"{journal}: there is no journal yet" in done.err) == (codes.FAILED, True)
    assert not journal.exists()


def test_calls_of_a_plan_that_a_model_writes_say_so(cli: Cli, serve: Cli, project: Path) -> None:
    (project / "tools.py").write_text(FLOWS)
    plan = "$1 = shaky(1)\n$2 = put(1)\n$3 = fetch($1)\njoin()\n"
    server = serve([plan, "Answer: It is 42."])
    cli("run", "How many?", "--base-url", server.base_url, "--tools", "tools.py", "-q")

    data = cli("explain", "last", "--json").json
    nodes = {node["id"]: node for node in data["nodes"]}
    assert nodes[1]["why"]["kind"] == "writing"
    assert nodes[2]["why"] == {
        "kind": "complete",
        "text": "the plan was complete (it may change something, so it waited for that)",
        "of": ["plan"],
    }
    assert nodes[3]["why"]["kind"] in ("needed", "writing")
    table = cli("explain", "last").out
    assert "the model: plan " in table and "the model: answer " in table


def test_a_turn_says_where_it_was_asked_and_why_then(cli: Cli, serve: Cli) -> None:
    server = serve([Call("double", {"n": 4}), "Eight."])
    words = ("--strategy", "react", "--tools", "flow.py", "--base-url", server.base_url, "-q")
    cli("run", "What is twice four?", *words)

    lines = cli("explain", "last").out.splitlines()

    [first] = [line for line in lines if "the model: turn 1 " in line]
    assert "at once; scripted" in first
    [second] = [line for line in lines if "the model: turn 2 " in line]
    last = ("$1 double had ended, the last it had to wait for", "the turn 1 was complete")
    assert any(f"{why}; scripted" in second for why in last), "whichever was later"


def test_a_question_its_answer_and_what_followed_are_told(cli: Cli) -> None:
    run = cli("run", "flows.py:mail", "ada", "--json", "-q").json["run"]
    asked = cli("explain", run[:6], "--json").json
    assert asked["state"] == "paused"
    assert [node["status"] for node in asked["nodes"]] == ["done", "asked"]
    assert asked["nodes"][1]["why"]["text"] == "not begun: it waits for an answer"

    cli("approve", "last")
    cli("resume", "last", "-q")

    data = cli("explain", "last", "--json").json
    assert data["executions"] == 2
    fetched, sent = data["nodes"]
    assert sent["why"]["text"].startswith("it was approved by ")
    assert fetched["ended"] <= sent["began"] <= sent["ended"] <= data["seconds"]
    told = cli("explain", "last", "send").out
    assert "somebody was asked whether it may be made\n" in told


def test_a_failed_run_says_what_failed_and_what_did_not_begin(cli: Cli) -> None:
    cli("run", "flow.py:hopeless", "1", "-q")

    nodes = cli("explain", "last", "--json").json["nodes"]
    assert [node["status"] for node in nodes] == ["done", "failed"]
    out = cli("explain", "last", "broken").out
    assert "it failed, after " in out and "OSError: no luck with 1" in out


# What is written, of records by hand

ROW = RunRow("8f2a-1", "brief", "plan", {"text": "$1 = look()"}, "finished", 1e9, 1e9, 5.0, "0.01", 0, (), "", 0)  # fmt: skip
STEP = "brief/{}:1#0"


def ended(node: int, tool: str, began: float, at: float, **more: Any) -> Record:
    head = {"event": "node_finished", "run": "8f2a-1", "at": at, "began": began, "node": node}
    step = STEP.format(f"{tool}{node}")
    return {**head, "tool": tool, "element": None, "step": step, "turn": 1, "value": 1, **more}


def records(**session: Any) -> Iterator[Record]:
    tools = ("look", "read", "send")
    lines = ["$1 = look()", "$2 = read($1)", "$3 = send($2)  # after $1"]
    steps = [STEP.format(f"{tool}{node}") for node, tool in enumerate(tools)]
    yield {"event": "session", "n": 1, "again": False, "wall": 1e9, "at": 100.0, **session}
    yield {"event": "run_started", "run": "8f2a-1", "at": 100.0, "name": "brief", "parent": None}
    yield {
        "event": "plan_extended", "run": "8f2a-1", "at": 100.0,
        "nodes": [0, 1, 2], "steps": steps, "lines": lines, "threads": [0],
    }  # fmt: skip
    yield ended(0, "look", 100.0, 101.0)
    yield {
        "event": "model_replied", "run": "8f2a-1", "at": 103.0, "model": "large", "node": 1,
        "prompt_tokens": 100, "completion_tokens": 5, "cached_tokens": 80, "usd": "0.01",
        "seconds": 1.5, "replica": "a:1", "moved": "load", "held": 0.25, "session": "s/1",
    }  # fmt: skip
    yield ended(1, "read", 101.0, 103.0)
    yield {"event": "node_reused", "run": "8f2a-1", "at": 104.0, "node": 2, "tool": "send",
           "element": None, "source": "memory", "saved": 2.0}  # fmt: skip
    yield ended(2, "send", 104.0, 104.0, waited_tool=1.0)
    yield {"event": "run_finished", "run": "8f2a-1", "at": 105.0, "value": 1}


def read(given: Iterator[Record]) -> Explained:
    timeline = Timeline("8f2a-1")
    for record in given:
        timeline.take(record)
    return Explained(timeline, lambda digest: b"1")


def lines_of(explained: Explained) -> list[str]:
    head, _, *rest = table(explained, ROW, "", SimpleNamespace(journal=None))
    return [head, *rest]


def test_the_table_has_a_line_for_each_call() -> None:
    assert lines_of(read(records(waits=True))) == [
        "8f2a-1  $1 = look()",
        "",
        "       at    took  what                       why then, and where",
        "* 0.000 s   1.0 s  $1 = look()                at once; in a thread",
        (
            "* 1.000 s   2.0 s  $2 = read($1)              $1 look had ended, which it needs; $0.01; "
            "large at a:1, moved there for an earlier answer, after 250 ms for room, "
            "80 of 100 prompt tokens cached"
        ),
        (
            "* 4.000 s  0.0 ms  $3 = send($2)  # after $1  a place among the calls of send was free, "
            "after 1.0 s; value from memory"
        ),
        "",
        (
            "* the run waited for these: calls 1.5 s (30%), the model 1.2 s (25%), a place among the "
            "calls of a tool 1.0 s (20%), between calls 1.0 s (20%) and room at the model's servers 250 ms (5%)"
        ),
        "agentflow explain 8f2a-1 '$1' tells all of one call",
    ]


def test_a_map_that_failed_in_part_and_was_set_aside_has_its_line() -> None:
    head, run, planned, *_ = records(waits=True)
    lines = ["$1 = look(each [1, 2])"]
    step = STEP.format("look0")
    call = {"run": "8f2a-1", "node": 0, "tool": "look", "step": step, "turn": 1}
    failed = {"event": "node_failed", "at": 101.0, "began": 100.0, "element": 0}
    stopped = {"event": "node_cancelled", "at": 102.0, "began": 100.0, "element": 1}
    explained = read(
        iter([
            head, run, {**planned, "nodes": [0], "lines": lines, "steps": [step]},
            {**call, **failed, "step": f"{step}[0]", "error": {"message": "reset"}},
            {"event": "stopping", "run": "8f2a-1", "at": 101.5},
            {**call, **stopped, "step": f"{step}[1]"},
        ])
    )  # fmt: skip

    (line,) = [line for line in lines_of(explained) if "look(each" in line]

    assert "  failed  $1 = look(each [1, 2])" in line


def test_on_a_narrow_terminal_reasons_stand_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentflow.cli.telling.stdout_is_terminal", lambda: True)
    monkeypatch.setattr("agentflow.cli.telling.terminal_width", lambda: 60)

    lines = lines_of(read(records(waits=True)))

    assert lines[4:6] == [
        "* 0.000 s   1.0 s  $1 = look()",
        "                     at once; in a thread",
    ]
    assert max(map(len, lines[:-3])) < 60


def test_the_story_of_a_call_has_its_waits_and_its_model() -> None:
    explained = read(records(waits=True))
    step = explained.find("$2").step
    assert [(one.at, one.text) for one in story(explained.reasons, step, None, explained.told)] == [
        (0.0, "it joined the plan"),
        (1.0, "$1 look ended, which it uses"),
        (1.0, "it began: $1 look had ended, which it needs; in the event loop"),
        (1.5, ("it asked large at a:1, moved there for an earlier answer, after 250 ms for room, "
         "80 of 100 prompt tokens cached: 1.5 s, 100 + 5 tokens, $0.01, conversation s/1")),
        (3.0, "it ended, after 2.0 s: it gave 1"),
    ]  # fmt: skip
    step = explained.find("$3").step
    assert [one.text for one in story(explained.reasons, step, None, explained.told)][3:5] == [
        "it needed nothing more, and waited for a place",
        "it was asked for: a place among the calls of send was free, after 1.0 s",
    ]


def test_time_in_which_a_run_only_waited_for_an_answer_is_left_out() -> None:
    told = list(records(waits=True))
    idle = {"event": "waited", "run": "8f2a-1", "at": 100.5, "seconds": 50.0}
    later = [{**r, "at": r["at"] + 50.0} for r in told[3:]]
    later = [{**r, "began": r["began"] + 50.0} if r.get("began", 0) > 100 else r for r in later]
    explained = read(iter([*told[:3], idle, *later]))

    assert explained.timeline.seconds == 5.0
    assert explained.as_dict(explained.find("$2"))["ended"] == 3.0


def test_of_an_older_journal_it_is_said_what_is_not_recorded(cli: Cli, journal: Path) -> None:
    name = cli("run", "flow.py:total", "1", "--json", "-q").json["run"]
    store = JournalStore(journal)
    store.delete(name)
    old = [{**record, "run": name} for record in records()]
    columns = {"name": "brief", "kind": "plan", "target": {"text": "$1"}, "began": 1e9}
    lines = [json.dumps(record).replace("8f2a-1", name) for record in old]
    store.write(Batch(lines={name: lines}, runs={name: {**columns, "state": "finished"}}))
    store.close()

    done = cli("explain", name)
    data = cli("explain", name, "--json").json

    assert (done.code, data["recorded"]) == (codes.OK, False)
    assert OLD in done.out
    assert [node["why"]["kind"] for node in data["nodes"]] == ["start", "needed", "place"]


def test_records_that_make_no_sense_are_damage(cli: Cli, journal: Path) -> None:
    name = cli("run", "flow.py:total", "2", "--json", "-q").json["run"]
    store = JournalStore(journal)
    store.claim(name)
    store.write(Batch(lines={name: ['{"event":"node_finished"}', '{"no":1}']}))
    store.close()

    done = cli("explain", name)

    assert (done.code, "damaged: " in done.out) == (codes.FAILED, True)
    assert "$2 = double(1)" in done.out


def test_a_control_sequence_of_somebody_else_reaches_no_terminal(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("run", "flow.py:shout", "a\x1b[2Jb", "-q")
    monkeypatch.setattr("agentflow.cli.screen.stdout_is_terminal", lambda: True)
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((200, 50)))

    assert "\x1b" not in cli("explain", "last").out + cli("explain", "last", "$1").out
