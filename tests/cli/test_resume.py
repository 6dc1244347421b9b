"""``agentflow resume``: a run goes on from where it broke off, from any folder."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agentflow import Engine
from agentflow.cli import codes
from agentflow.executor.journal.rows import Batch
from agentflow.executor.journal.store import JournalStore
from agentflow.testing import ScriptedServer

from .conftest import Done

Cli: TypeAlias = Callable[..., Done]
Serve: TypeAlias = Callable[..., ScriptedServer]

FLOW = '''
import os
from pathlib import Path

from agentflow import Budget, tool, workflow


def note(text: str) -> None:
    with Path("done.txt").open("a") as file:
        file.write(f"{text}\\n")


@tool(reads="shop")
async def look(name: str) -> str:
    """Look something up."""
    note(f"look {name}")
    return name.upper()


@tool(writes="shop")
async def buy(name: str) -> str:
    """Buy it; the power goes while it does."""
    note(f"buy {name}")
    if Path("crash").exists():
        os._exit(9)
    return f"bought {name}"


@tool(reads="shop")
async def check(name: str) -> str:
    """Needs a file."""
    note(f"check {name}")
    return Path("stock").read_text()


@tool(writes="mail", approve=True)
async def tell(text: str) -> str:
    """Tell somebody."""
    return text


@workflow
async def order(name: str, *, times: int = 1) -> list[str]:
    """Look, buy."""
    return [await look(name), *[await buy(name) for _ in range(times)]]


@workflow
async def one(name: str) -> str:
    """Look, buy, as a run of its own."""
    return await look(name) + await buy(name)


@workflow
async def orders(names: list[str]) -> list[str]:
    """Several such runs."""
    return await one.map(names)


@workflow
async def checked(name: str) -> str:
    """Look, check."""
    return await look(name) + await check(name)


@workflow(budget=Budget(tokens=100, deadline=0))
async def hurried(name: str) -> str:
    """Look, check, at once."""
    return await look(name) + await check(name)


@workflow
async def report(name: str) -> str:
    """Look, ask, and tell."""
    return await tell(await look(name))
'''


@pytest.fixture(autouse=True)
def shop(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    for name in ("AGENTFLOW_JOURNAL", "AGENTFLOW_BASE_URL", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (project / "shop.py").write_text(FLOW)


@pytest.fixture
def done(project: Path) -> Callable[[], list[str]]:
    """What was called."""

    def read() -> list[str]:
        path = project / "done.txt"
        return path.read_text().splitlines() if path.exists() else []

    return read


@pytest.fixture
def crashed(project: Path, cli: Cli) -> Callable[..., str]:
    """Begins a run whose process dies; its id."""

    def run(*words: str) -> str:
        (project / "crash").touch()
        command = [sys.executable, "-m", "agentflow", "run", *words, "-q"]
        assert subprocess.run(command, cwd=project, check=False).returncode == 9
        (project / "crash").unlink()
        row = cli("runs", "--json").json["runs"][0]
        assert row["state"] == "interrupted"
        name: str = row["id"]
        return name

    return run


Read: TypeAlias = Callable[[], list[str]]


def test_a_run_whose_process_died_goes_on_from_any_folder(
    cli: Cli,
    crashed: Callable[..., str],
    done: Read,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = crashed("shop.py:order", "tea")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))

    resumed = cli("resume", run, "--in-doubt", "retry")

    assert (resumed.code, resumed.out) == (codes.OK, '[\n  "TEA",\n  "bought tea"\n]\n')
    assert done() == ["look tea", "buy tea", "buy tea"]
    assert "done      $1 look" in resumed.err and ", from the journal: " in resumed.err
    assert "  1 call from the journal, not made again\n" in resumed.err
    again = cli("resume", run)
    assert (again.code, "has finished" in again.err) == (codes.FAILED, True)


def test_a_call_in_doubt_is_asked_about_and_not_made_again(
    cli: Cli, crashed: Callable[..., str], done: Read
) -> None:
    run = crashed("shop.py:order", "tea")
    shown = cli("runs", "show", run).out
    assert '? $2 = buy("tea")' in shown and "may have been made: nobody knows" in shown

    asked = cli("resume", run)
    assert (asked.code, asked.out) == (codes.WAITING, "")
    assert '$2 buy(name="tea") (it may have been made already): ' in asked.err
    assert cli("resume", run, "--yes", "-q").code == codes.WAITING  # no answer to that
    told = cli("approve", run, "--value", '"bought before"')
    assert told.out.startswith("answered with its value: $2 buy(")
    assert cli("resume", run, "--json", "-q").json["result"] == ["TEA", "bought before"]
    assert done() == ["look tea", "buy tea"]


def test_a_call_in_doubt_may_fail(cli: Cli, crashed: Callable[..., str], done: Read) -> None:
    run = crashed("shop.py:order", "tea")

    failed = cli("resume", run, "--in-doubt", "fail", "--json", "-q").json

    assert (failed["ok"], failed["error"]["kind"]) == (False, "CallInDoubt")
    assert done() == ["look tea", "buy tea"]


def test_what_failed_is_tried_again_and_nothing_else(cli: Cli, project: Path, done: Read) -> None:
    failed = cli("run", "shop.py:checked", "tea", "--json", "-q").json
    (project / "stock").write_text(" is there")

    resumed = cli("resume", failed["run"], "-q")

    assert (resumed.code, resumed.out) == (codes.OK, "TEA is there\n")
    assert done() == ["look tea", "check tea", "check tea"]


def test_a_program_that_has_changed_is_refused_before_anything_is_called(
    cli: Cli, project: Path, done: Read
) -> None:
    run = cli("run", "shop.py:checked", "tea", "--json", "-q").json["run"]
    (project / "shop.py").write_text(FLOW.replace("await look(name) + ", "await look('milk') + "))

    refused = cli("resume", run)

    assert (refused.code, refused.out) == (codes.FAILED, "")
    assert 'it calls $1 = look("milk") where it called $1 = look("tea") then' in refused.err
    assert done() == ["look tea", "check tea"]
    (project / "shop.py").write_text(FLOW)
    (project / "stock").write_text("!")
    assert cli("resume", run, "-q").out == "TEA!\n"


def test_a_plan_goes_on_as_it_was_whatever_became_of_its_file(
    cli: Cli, plan_file: Callable[[str], str], project: Path, done: Read
) -> None:
    plan_file('$1 = look("tea")\n$2 = check($1)\njoin()\n')
    run = cli("run", "work.plan", "--tools", "shop.py", "--json", "-q").json["run"]
    plan_file("nonsense")
    (project / "stock").write_text("there")

    resumed = cli("resume", run, "--json", "-q")

    assert resumed.json["result"] == {"$1": "TEA", "$2": "there"}
    assert done() == ["look tea", "check TEA", "check TEA"]


def test_a_single_tool_goes_on(cli: Cli, project: Path) -> None:
    run = cli("run", "shop.py:check", "tea", "--json", "-q").json["run"]
    (project / "stock").write_text("there")

    assert cli("resume", run, "-q").out == "there\n"


def test_a_question_to_the_stand_in_goes_on_with_it(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "notes.txt").write_text("Tea is in the blue tin.\n")
    whole = cli("run", "Where is the tea?", "-q")
    run = cli("run", "Where is the tea?", "--deadline", "0", "--json", "-q").json["run"]
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")

    resumed = cli("resume", run, "--deadline", "1m", "-q")

    assert (resumed.code, resumed.out) == (codes.OK, whole.out)
    assert "blue tin" in resumed.out and "stand-in" in resumed.out


def test_a_question_goes_on_at_its_endpoint_or_where_that_is_now(cli: Cli, serve: Serve) -> None:
    server = serve(["It is so.", "It is so."])
    words = ("--model", "scripted", "--strategy", "react", "--json", "-q", "--deadline", "0")

    first = cli("run", "Why?", "--base-url", server.base_url, *words).json["run"]
    assert cli("resume", first, "--deadline", "1m", "--json").json["answer"] == "It is so."

    second = cli("run", "Why?", "--base-url", "http://127.0.0.1:9/v1", *words).json["run"]
    moved = ("--base-url", server.base_url, "--deadline", "1m")
    assert cli("resume", second, *moved, "-q").out == "It is so.\n"
    assert len(server.requests) == 2


def test_a_question_whose_endpoint_nobody_names_any_more_is_not_given_to_the_stand_in(
    cli: Cli, project: Path, serve: Serve
) -> None:
    table = f'[tool.agentflow]\nbase_url = "{serve([]).base_url}"\nmodel = "scripted"\n'
    (project / "pyproject.toml").write_text(table)
    run = cli("run", "Why?", "--deadline", "0", "--json", "-q").json["run"]
    (project / "pyproject.toml").unlink()

    done = cli("resume", run)

    assert (done.code, "is not configured any more" in done.err) == (codes.USAGE, True)


def test_the_limits_that_are_given_now_count_with_what_was_spent(cli: Cli, project: Path) -> None:
    late = cli("run", "shop.py:checked", "tea", "--deadline", "0", "--json", "-q")
    assert late.code == codes.LIMIT
    run = late.json["run"]
    (project / "stock").write_text("!")

    assert cli("resume", run, "-q").code == codes.LIMIT  # that limit is still there
    resumed = cli("resume", run, "--deadline", "1m", "--json", "-q").json
    assert (resumed["result"], resumed["limits"]["deadline"]) == ("TEA!", 60.0)


def test_limits_that_were_given_last_stay(cli: Cli, project: Path) -> None:
    first = ("--budget-tokens", "100", "--deadline", "0", "--json", "-q")
    run = cli("run", "shop.py:checked", "tea", *first).json["run"]
    assert cli("resume", run, "--deadline", "1m", "-q").code == codes.FAILED  # there is no stock
    (project / "stock").write_text("!")

    limits = cli("resume", run, "--json", "-q").json["limits"]
    assert (limits["tokens"], limits["deadline"]) == (100, 60.0)


def test_files_that_are_given_now_are_those_of_the_folder_now(
    cli: Cli,
    plan_file: Callable[[str], str],
    project: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan_file('$1 = check("tea")\nreturn $1\n')
    run = cli("run", "work.plan", "--tools", "shop.py", "--json", "-q").json["run"]
    (project / "shop.py").rename(project / "other.py")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "shop.py").write_text(FLOW)
    monkeypatch.chdir(elsewhere)
    (project / "stock").write_text("there")

    gone = cli("resume", run)
    assert (gone.code, "there is no file 'shop.py'" in gone.err) == (codes.USAGE, True)
    (project / "shop.py").write_text(
        "from agentflow import tool\n\n@tool\ndef other() -> int: ...\n"
    )
    monkeypatch.chdir(elsewhere)
    assert cli("resume", run, "--tools", "shop.py", "-q").out == "there\n"


async def begun(workflow: str) -> str:
    """The id of a run that a program began, and that has ended."""
    import shop  # type: ignore[import-not-found]  # written by the fixture

    async with Engine(journal="own.db") as engine:
        run = engine.start(getattr(shop, workflow), "tea")
        await run.ended()
        return run.id


def test_the_run_of_a_program_goes_on_where_its_module_is_found(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch, done: Read
) -> None:
    monkeypatch.syspath_prepend(project)
    run = asyncio.run(begun("checked"))
    (project / "stock").write_text("!")
    assert 'checked("tea")' in cli("runs", "--journal", "own.db").out

    assert cli("resume", run, "--journal", "own.db", "-q").out == "TEA!\n"
    assert done() == ["look tea", "check tea", "check tea"]


def test_the_run_of_a_program_gets_the_limits_that_are_given_now(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(project)
    run = asyncio.run(begun("hurried"))
    (project / "stock").write_text("!")
    assert cli("resume", run, "--journal", "own.db", "-q").code == codes.LIMIT

    given = ("--deadline", "1m", "--journal", "own.db", "--json", "-q")
    limits = cli("resume", run, *given).json["limits"]
    assert (limits["tokens"], limits["deadline"]) == (100, 60.0)


def test_a_run_that_goes_on_elsewhere_is_not_taken(cli: Cli, project: Path) -> None:
    run = cli("run", "shop.py:report", "tea", "--json", "-q").json["run"]
    other = JournalStore(project / "state" / "agentflow" / "journal.db")
    other.claim(run)

    taken = cli("resume", run)

    assert (taken.code, "is going on in another process" in taken.err) == (codes.FAILED, True)
    other.close()
    assert cli("resume", run, "--yes", "-q").out == "TEA\n"


@pytest.mark.parametrize(
    ("cli_part", "code", "said"),
    [
        ({"folder": "/nowhere/at/all"}, codes.USAGE, "/nowhere/at/all, which cannot be entered"),
        ({"target": []}, codes.USAGE, "it is not known how run"),
        ({"options": [5]}, codes.USAGE, "it is not known how run"),
        ({"target": ["shop.py:report", "**********"]}, codes.USAGE, "had a secret"),
        ({"target": ["shop.py:gone"]}, codes.USAGE, "'gone' is not there"),
    ],
)
def test_a_command_that_cannot_be_called_again_is_said(
    cli: Cli, project: Path, cli_part: dict[str, Any], code: int, said: str
) -> None:
    run = cli("run", "shop.py:report", "tea", "--json", "-q").json["run"]
    store = JournalStore(project / "state" / "agentflow" / "journal.db")
    target = store.run(run).target
    store.claim(run)
    changed = {**target, "cli": {**target["cli"], **cli_part}}
    store.write(Batch(runs={run: {"target": changed, "state": "paused"}}))
    store.close()

    done = cli("resume", run)

    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert cli("runs").code == codes.OK


def test_there_has_to_be_a_journal_and_a_run(cli: Cli) -> None:
    done = cli("resume", "8f2a")
    assert (done.code, "there is no journal yet" in done.err) == (codes.FAILED, True)
    run = cli("run", "shop.py:look", "tea", "--json", "-q").json["run"]
    done = cli("resume", "x" + run)
    assert (done.code, f"Did you mean '{run}'?" in done.err) == (codes.FAILED, True)


def test_the_calls_of_nested_runs_are_shown_as_they_stand(
    cli: Cli, crashed: Callable[..., str]
) -> None:
    run = crashed("shop.py:orders", '["tea", "jam"]')

    def calls() -> list[tuple[str, str]]:
        told = cli("runs", "show", run, "--json").json["calls"]
        lines = [call["call"].partition("  #")[0].partition(" = ")[2] for call in told]
        return list(zip(lines, [call["status"] for call in told], strict=True))

    assert calls() == [
        ('one(each ["tea", "jam"])', "open"),
        ('look("tea")', "done"),
        ('buy("tea")', "begun"),
        ('look("jam")', "done"),
        ('buy("jam")', "begun"),
    ]
    shown = cli("runs", "show", run).out
    assert "  not finished\n" in shown and "  may have been made: nobody knows\n" in shown

    asked = cli("resume", run, "-q").err.splitlines()
    assert ('buy("tea")', "asked") in calls() and len(calls()) == 5
    approve = next(line for line in asked if line.startswith("  agentflow approve"))
    assert cli(*shlex.split(approve)[1:]).code == codes.OK
    assert [status for _, status in calls()] == ["open", "done", "begun", "done", "asked"]
    assert cli("approve", run, "--all").code == cli("resume", run, "-q").code == codes.OK
    assert {status for _, status in calls()} == {"done"}
