"""``agentflow run`` with plans, workflows and tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agentflow.cli import codes

Cli: TypeAlias = Callable[..., Any]
Write: TypeAlias = Callable[..., str]

SUM = "$1 = calculate('6 * 7')\n$2 = calculate(expression='${1} + 1')\nreturn $2"


def test_a_plan_file_gives_its_value(cli: Cli, plan_file: Write) -> None:
    done = cli("run", plan_file(SUM))

    assert (done.code, done.out) == (0, "43\n")


def test_progress_is_plain_lines_where_nobody_looks(cli: Cli, plan_file: Write) -> None:
    done = cli("run", plan_file(SUM))

    lines = done.err.splitlines()
    assert lines[0] == 'plan      $1 = calculate("6 * 7")'
    assert "start     $2 calculate" in lines
    assert any(
        line.startswith("done      $2 calculate ") and line.endswith(": 43") for line in lines
    )
    assert any(line.startswith("ran       2 calls in ") for line in lines[-4:])
    assert "\x1b" not in done.err


def test_quiet_says_nothing_but_the_result(cli: Cli, plan_file: Write) -> None:
    done = cli("run", plan_file(SUM), "--quiet")

    assert (done.out, done.err) == ("43\n", "")


def test_a_plan_that_returns_nothing_gives_every_result_by_its_line(
    cli: Cli, plan_file: Write
) -> None:
    done = cli("run", plan_file("$7 = calculate('1')\n$3 = calculate('2')\njoin()"))

    assert done.json == {"$7": 1, "$3": 2}
    assert "start     $7 calculate\n" in done.err


def test_a_text_is_printed_as_it_is_and_other_values_as_json(cli: Cli) -> None:
    assert cli("run", "flow.py:shout", "hey", "-q").out == "HEY\n"
    assert cli("run", "flow.py:total", "3", "-q").out == "6\n"


def test_the_file_tools_look_into_the_root(cli: Cli, plan_file: Write, project: Path) -> None:
    (project / "notes").mkdir()
    (project / "notes" / "a.txt").write_text("one\n")
    plan = plan_file("$1 = list_files()\nreturn $1")

    assert cli("run", plan, "-q", "--root", "notes").json == ["a.txt"]
    assert "notes/a.txt" in cli("run", plan, "-q").json


def test_a_plan_may_write_below_the_root_if_that_was_allowed(
    cli: Cli, plan_file: Write, project: Path
) -> None:
    plan = plan_file("$1 = write_file('out/a.txt', 'one')\nreturn $1")

    assert cli("run", plan, "-q", "--root", ".").code == 3
    done = cli("run", plan, "-q", "--root", ".", "--write")

    assert done.json == {"path": "out/a.txt", "bytes": 3, "lines": 1, "created": True}
    assert (project / "out" / "a.txt").read_text() == "one"


def test_a_plan_may_ask_a_database(cli: Cli, plan_file: Write, project: Path) -> None:
    (project / "app.db").touch()
    plan = plan_file("$1 = sql('SELECT 6 * ? AS answer', [7])\nreturn $1")

    done = cli("run", plan, "-q", "--sql", "app.db")

    assert (done.json["columns"], done.json["rows"]) == (["answer"], [[42]])


def test_arguments_may_stand_after_options(cli: Cli) -> None:
    done = cli("run", "flow.py:total", "--quiet", "3", "--json", "add=[10, 20]")

    assert done.json["result"] == 36


def test_json_is_one_object_with_everything(cli: Cli) -> None:
    done = cli("run", "flow:outer", "2", "--json")

    data = done.json
    assert (data["ok"], data["result"], data["error"]) == (True, 2, None)
    assert [(call["id"], call["tool"], call["status"]) for call in data["calls"]] == [
        (1, "total", "done"),
        (1, "double", "done"),
        (2, "double", "done"),
    ]
    assert len({call["run"] for call in data["calls"]}) == 2
    assert data["usage"]["model_calls"] == 0


def test_events_are_lines_of_json_and_the_last_ends_the_run(cli: Cli) -> None:
    done = cli("run", "flow:outer", "1", "--events", "--quiet")

    events = [json.loads(line) for line in done.out.splitlines()]
    assert events[0]["event"] == "run_started"
    assert (events[-1]["event"], events[-1]["run"]) == ("run_finished", events[0]["run"])
    assert [e["parent"] for e in events if e["event"] == "run_started"] == [None, events[0]["run"]]


def test_a_run_within_a_run_is_indented(cli: Cli) -> None:
    err = cli("run", "flow:outer", "1").err

    assert "\n  run       total\n" in err
    assert "\n  plan      $1 = double(0)\n" in err


def test_a_failed_call_is_named_and_what_finished_is_shown(cli: Cli) -> None:
    done = cli("run", "flow:hopeless", "4")

    assert (done.code, done.out) == (codes.FAILED, "")
    assert "retry     $2 broken: attempt 1 failed (OSError: no luck with 4)" in done.err
    assert "1 call had finished:\n  $1 double: 8\n" in done.err
    *_, last, advice = done.err.splitlines()
    assert last == "agentflow run: $2 broken failed: OSError: no luck with 4."
    assert advice.startswith("to go on: agentflow resume ")


def test_a_failure_in_json_has_the_results_and_the_exit_code(cli: Cli) -> None:
    done = cli("run", "flow:hopeless", "4", "--json", "-q")

    error = done.json["error"]
    assert (done.json["ok"], done.code, error["exit"]) == (False, codes.FAILED, codes.FAILED)
    assert (error["kind"], error["results"]) == ("OSError", {"$1": 8})


def test_debug_shows_where_a_tool_raised(cli: Cli) -> None:
    assert "flow.py" in cli("run", "flow:hopeless", "4", "--debug").err


def test_tools_that_declare_nothing_are_named_with_the_line_to_add(cli: Cli) -> None:
    err = cli("run", "flow:shout", "a").err

    assert "shout declares no effect (1 call, " in err
    assert "@tool(pure=True)" in err
    assert "declares no effect" not in cli("run", "flow:outer", "1").err


def test_a_built_in_tool_that_declares_nothing_is_named_without_it(
    cli: Cli, plan_file: Write
) -> None:
    err = cli("run", plan_file('$1 = python("1")\nreturn $1'), "--python").err

    assert "python declares no effect (1 call, " in err
    assert "One line changes that" not in err


def test_an_address_that_is_refused_is_told_with_the_option_that_opens_it(
    cli: Cli, plan_file: Write
) -> None:
    done = cli("run", plan_file('$1 = http_get("http://127.0.0.1:9/")\nreturn $1'))

    assert done.code == 1
    assert "--allow-private opens loopback and private networks." in done.err


def test_a_deadline_ends_a_run(cli: Cli, project: Path) -> None:
    (project / "stuck.py").write_text(
        "import asyncio\n"
        "from agentflow import Budget, tool, workflow\n"
        "@tool\n"
        "async def forever() -> None:\n"
        "    await asyncio.Event().wait()\n"
        "@workflow\n"
        "async def wait() -> None:\n"
        "    await forever()\n"
    )
    (project / "stuck.plan").write_text("$1 = forever()")

    for words in (["stuck.py:wait"], ["stuck.py:forever"], ["stuck.plan", "--tools", "stuck.py"]):
        done = cli("run", *words, "--deadline", "50ms")

        assert done.code == codes.LIMIT
        assert "passed its deadline" in done.err
        assert "--deadline" in done.err


def test_a_workflow_keeps_its_own_budget_where_that_is_tighter() -> None:
    from agentflow import Budget
    from agentflow.cli.jobs import tighter

    assert tighter(None, Budget(usd=1)) == Budget(usd=1)
    assert tighter(Budget(usd=1, tokens=5), Budget(usd=2, deadline=3)) == Budget(1, 5, 3)
    own = Budget(usd=1, when_spent="cancel", least_chance=0.5)
    assert tighter(own, Budget(usd=2)) == own


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["bad.plan"], codes.PLAN, "line $1: there is no tool 'nope'"),
        (["empty.plan"], codes.PLAN, "no call"),
        (["a", "b"], codes.USAGE, "Put a question in quotes"),
        ([" "], codes.USAGE, "the question is empty"),
        (["flow:total", "3", "--budget", "much"], codes.USAGE, "'much' is not an amount"),
        (["flow:total", "3", "--deadline", "soon"], codes.USAGE, "'soon' is not a duration"),
        (["flow:total", "3", "--prices", "gone.toml"], codes.USAGE, "gone.toml"),
        (["flow:total", "3", "--tools", "nowhere"], codes.OK, ""),
        (["bad.plan", "--tools", "nowhere"], codes.USAGE, "nowhere"),
        (["bad.plan", "--tools", "agentflow.errors"], codes.USAGE, "no tool in it"),
    ],
)
def test_what_cannot_run_is_said_before_anything_runs(
    cli: Cli, project: Path, words: list[str], code: int, said: str
) -> None:
    (project / "bad.plan").write_text("$1 = nope()")
    (project / "empty.plan").write_text("join()")

    done = cli("run", *words, "-q")

    assert done.code == code
    assert said in done.err
