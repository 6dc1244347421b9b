"""``agentflow replay``: whether a program still decides what it decided then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from agentflow.cli import codes

from .conftest import Done

Cli: TypeAlias = Callable[..., Done]


@pytest.fixture
def kept(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a run that is kept."""
    for name in ("AGENTFLOW_JOURNAL", "AGENTFLOW_BASE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    run: str = cli("run", "flow.py:outer", "3", "--json", "-q").json["run"]
    return run


def test_the_same_program_does_the_same_from_any_folder(
    cli: Cli, kept: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)

    done = cli("replay", kept)

    assert (done.code, done.err) == (codes.OK, "")
    assert (
        done.out == f"run {kept}: the same 4 calls, the same 3 results, and came to the same end\n"
    )
    assert Path.cwd() == elsewhere


def test_an_exported_run_is_replayed_from_its_file(cli: Cli, kept: str) -> None:
    cli("runs", "export", kept, "run.jsonl")
    cli("runs", "delete", kept)

    assert cli("replay", "run.jsonl", "--json").json == {
        "ok": True,
        "run": kept,
        "calls": 4,
        "commits": 3,
        "whole": True,
    }


def test_a_program_that_calls_something_else_is_told_the_first_difference(
    cli: Cli, kept: str, project: Path
) -> None:
    flow = (project / "flow.py").read_text()
    (project / "flow.py").write_text(flow.replace("double(n) for", "double(n + 1) for"))

    done = cli("replay", kept)

    assert (done.code, done.out) == (codes.FAILED, "")
    assert f"agentflow replay: run {kept} goes another way." in done.err
    assert "then: outer/total" in done.err and "$1 = double(0)" in done.err
    assert "$1 = double(1)" in done.err


def test_another_end_is_a_difference_too(cli: Cli, kept: str, project: Path) -> None:
    flow = (project / "flow.py").read_text()
    (project / "flow.py").write_text(flow.replace("sum(add or [])", "1"))

    data = cli("replay", kept, "--json").json

    assert (data["ok"], data["error"]["exit"]) == (False, codes.FAILED)
    assert (data["first"]["then"], data["first"]["now"]) == ("value 6", "value 7")


def test_a_plan_and_a_question_are_replayed(cli: Cli, plan_file: Callable[[str], str]) -> None:
    plan_file('$1 = calculate("6 * 7")\nreturn $1\n')
    plan = cli("run", "work.plan", "--json", "-q").json["run"]
    question = cli("run", "Where is double?", "--json", "-q").json["run"]
    (Path.cwd() / "work.plan").unlink()

    assert "the same 1 call, the same 1 result, and" in cli("replay", plan).out
    assert "and came to the same end" in cli("replay", question).out


def test_what_is_not_there_is_said(cli: Cli, project: Path) -> None:
    done = cli("replay", "8f2a")
    assert (done.code, "no runs are kept" in done.err) == (codes.FAILED, True)
    (project / "other.txt").write_text("hello\n")
    done = cli("replay", "other.txt")
    assert (done.code, "other.txt" in done.err) == (codes.FAILED, True)
