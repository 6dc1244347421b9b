"""``agentflow plan``: plans are shown, checked and drawn, and nothing runs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agentflow.cli import codes

Cli: TypeAlias = Callable[..., Any]
Write: TypeAlias = Callable[..., str]

CORPUS = Path(__file__).parents[1] / "corpus" / "plans.jsonl"
ENTRIES = [json.loads(line) for line in CORPUS.read_text("utf-8").splitlines()]


def graded(found: dict[str, Any], tools: list[dict[str, Any]]) -> Any:
    """What counts of a reading: ids, tools, arguments by name, deps and whether it joins."""
    if not found["ok"]:
        return found["error"]
    names = {tool["name"]: tool["params"] for tool in tools}
    tasks = [
        (
            task["id"],
            task["tool"],
            dict(zip(names[task["tool"]], task["args"], strict=False)) | task["kwargs"],
            sorted(task["deps"]),
        )
        for task in found["tasks"]
    ]
    return tasks, found["join"] is not None


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry["name"]) for entry in ENTRIES])
def test_json_is_the_corpus_reading(cli: Cli, project: Path, entry: dict[str, Any]) -> None:
    (project / "p.txt").write_text(entry["text"], "utf-8")
    (project / "tools.json").write_text(json.dumps(entry["tools"]), "utf-8")

    done = cli("plan", "p.txt", "--tools-json", "tools.json", "--format", "json")

    wanted = [entry["expected"], *entry.get("acceptable", [])]
    assert graded(done.json, entry["tools"]) in [graded(w, entry["tools"]) for w in wanted]
    assert done.code == (codes.OK if done.json["ok"] else codes.PLAN)
    assert done.json["ok"] or "at" in done.json


def test_text_is_the_plan_in_the_notation(cli: Cli, plan_file: Write) -> None:
    plan = plan_file("1. calculate('1+1')\n2. calculate(expression='${1} * 2')\nreturn $2")

    done = cli("plan", plan)

    assert (done.code, done.err) == (0, "")
    assert done.out == ('$1 = calculate("1+1")\n$2 = calculate(expression="${1} * 2")\nreturn $2\n')


def test_a_plan_comes_from_standard_input(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf$1 = calculate('2')"), "utf-8")
    monkeypatch.setattr("sys.stdin", stdin)

    assert cli("plan", "-").out == '$1 = calculate("2")\n'


@pytest.mark.parametrize(
    ("form", "start"), [("mermaid", "flowchart TD\n"), ("dot", "digraph"), ("json", '{"ok": true')]
)
def test_other_forms(cli: Cli, plan_file: Write, form: str, start: str) -> None:
    done = cli("plan", plan_file("$1 = calculate('1+1')\nreturn $1"), "--format", form)

    assert done.code == 0
    assert done.out.startswith(start)


def test_explain_shows_what_each_pass_changes(cli: Cli, plan_file: Write) -> None:
    done = cli(
        "plan", plan_file("$1 = calculate('1')\n$2 = calculate('2')\nreturn $2"), "--explain"
    )

    assert "drop_unused:\n" in done.out
    assert '- $1 = calculate("1")' in done.out
    assert done.out.partition("as it runs:")[2].count("calculate") == 1


def test_a_workflow_is_shown_as_far_as_it_is_known(cli: Cli) -> None:
    done = cli("plan", "flow.py:total", "3")

    assert done.out == "$1 = double(0)\n$2 = double(1)\n$3 = double(2)\n"


def test_a_workflow_has_the_same_json_as_its_text(cli: Cli) -> None:
    done = cli("plan", "flow:total", "1", "--format", "json")

    assert done.json["tasks"] == [
        {"id": 1, "tool": "double", "args": [0], "kwargs": {}, "deps": []}
    ]


def test_tools_of_a_module_can_be_planned_with(cli: Cli, plan_file: Write) -> None:
    plan = plan_file('$1 = shout("a")\nreturn $1')

    assert cli("plan", plan, "--tools", "flow").code == 0
    assert cli("plan", plan).code == codes.PLAN


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("$1 = calculat('1')", "unknown_tool", "Did you mean 'calculate'?"),
        ("$1 = calculate(value='1')", "unknown_param", "'value'"),
        ("$1 = read_file('a', start='x')", "bad_args", "start"),
        ("nothing to do", "empty_plan", "no call"),
        ("$1 = calculate($2)\n$2 = calculate($1)", "cycle", "$1"),
    ],
)
def test_a_plan_that_cannot_run_says_where_and_what_to_do(
    cli: Cli, plan_file: Write, text: str, kind: str, said: str
) -> None:
    plain, data = cli("plan", plan_file(text)), cli("plan", plan_file(text), "--format=json")

    assert (plain.code, plain.out) == (codes.PLAN, "")
    assert said in plain.err
    assert (data.code, data.json["ok"], data.json["error"]) == (codes.PLAN, False, kind)
    assert "Traceback" not in plain.err + data.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["Why is the sky blue?"], "no plan until a model writes one"),
        (["gone.plan"], "there is no file 'gone.plan'"),
        (["no/such/file"], "there is no file"),
        (["flow.py:totl", "3"], "Did you mean 'total'?"),
        (["flow.py:FLOW"], "is not there"),
        (["flow.py"], "say what to run in it, flow.py:NAME"),
        (["gone.py:total"], "there is no file 'gone.py'"),
        (["no_such_module:total"], "no_such_module"),
        (["flow.py:total", "many"], "integer"),
        (["flow.py:total"], "required"),
        (["binary.plan"], "UTF-8"),
        (["ok.plan", "extra"], "'extra' is one word too many"),
        (["ok.plan", "--tools-json", "gone.json"], "gone.json"),
        (["ok.plan", "--tools-json", "ok.plan"], "It holds a list"),
        (["ok.plan", "--root", "gone"], "gone"),
        (["ok.plan", "--explain", "--format=json"], "leave --format json or --explain out"),
        (["ok.plan", "--explain", "--format=dot"], "leave --format dot or --explain out"),
        (["flow.py:total", "3", "--tools-json", "gone.json"], "has tools of its own"),
    ],
)
def test_wrong_usage_says_what_to_do(cli: Cli, project: Path, words: list[str], said: str) -> None:
    (project / "ok.plan").write_text("$1 = calculate('1')")
    (project / "binary.plan").write_bytes(b"\xff\xfe\x00")

    done = cli("plan", *words)

    assert (done.code, done.out) == (codes.USAGE, "")
    assert said in done.err
    assert done.err.startswith("agentflow plan: ")
