"""The frame of the command line: help, usage, exit codes."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import agentflow
from agentflow.cli import codes
from agentflow.errors import (
    AnswerInvalid,
    ArgumentError,
    BackendBusy,
    BudgetExceeded,
    CheckFailed,
    DeadlineExceeded,
    DefinitionError,
    DependencyFailed,
    OutOfReach,
    PlanError,
    RunFailed,
)

Cli: TypeAlias = Callable[..., Any]


def test_version_is_that_of_the_package(cli: Cli) -> None:
    done = cli("--version")

    assert (done.code, done.out) == (0, f"agentflow {agentflow.__version__}\n")


@pytest.mark.parametrize("command", [[], ["run"], ["plan"], ["tools"], ["estimates"], ["doctor"]])
def test_help_lists_the_exit_codes(cli: Cli, command: list[str]) -> None:
    done = cli(*command, "--help")

    assert done.code == 0
    for code, meaning in codes.MEANINGS.items():
        assert f"  {code:<4} {meaning}" in done.out


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from agentflow.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print('LOADED', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(done.stdout.partition("LOADED")[2].split())

    assert "agentflow.cli.parser" in loaded
    assert not loaded & {
        "pydantic",
        "openai",
        "httpx",
        "httpx2",
        "structlog",
        "networkx",
        "asyncio",
    }


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["bogus"],
        ["run"],
        ["run", "flow.py:total", "3", "--bogus"],
        ["run", "x", "--json", "--events"],
        ["tools", "more"],
    ],
)
def test_words_that_are_not_understood_are_usage_errors(cli: Cli, words: list[str]) -> None:
    done = cli(*words)

    assert done.code == codes.USAGE
    assert "error:" in done.err


def test_a_key_on_the_command_line_is_refused_with_the_reason(cli: Cli) -> None:
    done = cli("run", "Why?", "--api-key", "sk-secret")

    assert done.code == codes.USAGE
    assert "OPENAI_API_KEY" in done.err
    assert "sk-secret" not in done.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PlanError("cycle", "x"), codes.PLAN),
        (DefinitionError("x"), codes.USAGE),
        (ArgumentError("x", tool="t"), codes.USAGE),
        (BackendBusy("x", url="u"), codes.BACKEND),
        (BudgetExceeded("x", asked=1, left=0, unit="usd"), codes.LIMIT),
        (DeadlineExceeded("x"), codes.LIMIT),
        (OutOfReach("x", tried={}), codes.LIMIT),
        (CheckFailed("x", tool="t"), codes.FAILED),
        (AnswerInvalid("x"), codes.FAILED),
        (OSError("x"), codes.FAILED),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: Exception, code: int) -> None:
    failed = RunFailed("it failed")
    failed.__cause__ = error

    assert codes.code_of(error) == code
    assert codes.code_of(failed) == (code if not isinstance(error, ArgumentError) else codes.FAILED)


def test_a_call_that_failed_for_what_it_needed_has_the_exit_code_of_that() -> None:
    needs = DependencyFailed("it needs another", tool="t")
    needs.__cause__ = OutOfReach("x", tried={"small": 3})
    assert codes.code_of(needs) == codes.LIMIT

    needs.__cause__.__cause__ = BackendBusy("x", url="u")  # no model answered at all
    assert codes.code_of(needs) == codes.BACKEND


def test_an_unexpected_error_is_one_line_and_debug_shows_the_traceback(
    cli: Cli, project: Path
) -> None:
    (project / "faulty.py").write_text("1 / 0")

    short, long = cli("tools", "--tools", "faulty.py"), cli("tools", "--tools=faulty.py", "--debug")

    assert short.code == long.code == codes.USAGE
    assert short.err.count("\n") == 1
    assert "ZeroDivisionError" in short.err
    assert "Traceback" in long.err


def test_the_page_on_the_command_line_lists_the_exit_codes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")

    for code, meaning in codes.MEANINGS.items():
        assert f"\n| {code} | {meaning} |\n" in page


COMMANDS = (
    ["runs"],
    ["explain", "last"],
    ["approve", "last"],
    ["deny", "last"],
    ["replay", "last"],
    ["resume", "last"],
    ["plan", "work.plan"],
    ["tools"],
    ["cache", "stats"],
    ["estimates", "--file", "known.json"],
    ["doctor"],
)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_each_command_logs_from_the_level_that_is_asked_for(
    cli: Cli, plan_file: Callable[[str], str], words: list[str]
) -> None:
    plan_file("$1 = calculate('1')")

    cli(*words, "--log-level", "error")
    quiet = [logging.getLogger("mine").isEnabledFor(level) for level in LEVELS]
    cli(*words, "--log-level", "info")
    told = [logging.getLogger("mine").isEnabledFor(level) for level in LEVELS]

    assert (quiet, told) == ([False, False, True], [True, True, True])


LEVELS = (logging.INFO, logging.WARNING, logging.ERROR)

TALKS = """
import logging

from agentflow import tool

logging.getLogger("mine").info("is read")


@tool(pure=True)
def look() -> int:
    return 1
"""


@pytest.mark.parametrize(
    "words",
    [["tools", "--json"], ["plan", "talks.plan", "--format", "json"]],
    ids=["tools", "plan"],
)
def test_what_is_logged_stands_on_standard_error(
    cli: Cli, project: Path, plan_file: Callable[..., str], words: list[str]
) -> None:
    (project / "talks.py").write_text(TALKS)
    plan_file("$1 = look()", "talks.plan")

    done = cli(*words, "--tools", "talks.py", "--log-level", "info")

    assert "is read" in done.err
    assert "is read" not in done.out
    assert done.json
