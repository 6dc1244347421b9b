"""The command line on a real terminal, and what is logged."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

Cli: TypeAlias = Callable[..., Any]

LOGS = '''
import logging

import structlog
from agentflow import tool


@tool(pure=True)
async def chatty(n: int) -> int:
    """Log something."""
    structlog.get_logger().warning("structured", n=n)
    logging.getLogger("old").warning("classic %d", n)
    logging.getLogger("old").info("too quiet")
    return n
'''


ASKS = '''
from agentflow import tool


@tool(writes="mail", approve=True)
async def send(to: str) -> str:
    """Send a mail."""
    return f"sent to {to}"
'''


def on_a_terminal(*words: str, typed: str = "", **environment: str) -> str:
    """Everything a command writes to a terminal, on which something is typed."""
    leader, follower = pty.openpty()
    os.write(leader, typed.encode())
    process = subprocess.Popen(
        [sys.executable, "-m", "agentflow", *words],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "TERM": "xterm",
            **environment,
        },
    )
    os.close(follower)
    written = b""
    try:
        while piece := os.read(leader, 65536):
            written += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(leader)
    assert process.wait(30) == 0
    return written.decode().replace("\r\n", "\n")


def visible(written: str) -> str:
    """What is left on the screen when everything that was redrawn is gone."""
    lines: list[str] = [""]
    for part in re.split(r"(\x1b\[\d+A\r\x1b\[J)", written):
        if erased := re.fullmatch(r"\x1b\[(\d+)A\r\x1b\[J", part):
            del lines[-int(erased[1]) - 1 :]
            lines.append("")
        else:
            first, *rest = re.sub(r"\x1b\[\d*m", "", part).split("\n")
            lines[-1] += first
            lines += rest
    return "\n".join(lines)


def test_a_terminal_is_left_with_the_lines_that_stay(project: Path) -> None:
    written = on_a_terminal("run", "flow.py:total", "2")

    lines = visible(written).splitlines()
    assert lines[:2] == ["· $1 = double(0)", "· $2 = double(1)"]
    assert sorted(line.rpartition(" ")[2] for line in lines[2:4]) == ["0", "2"]
    assert all(line.startswith("✓ $") for line in lines[2:4])
    assert lines[4] == "2"
    assert lines[5].startswith("ran       2 calls in ")
    assert "\x1b[32m✓\x1b[0m" in written


def test_a_call_that_asks_is_asked_about_where_somebody_sits(project: Path) -> None:
    (project / "ask.py").write_text(ASKS)

    written = on_a_terminal("run", "ask.py:send", "ada", typed="y\n")

    lines = visible(written).splitlines()
    asked = lines.index('May this be called? send(to="ada")')
    assert lines[asked + 1] == "it asks before each call"
    assert lines[asked + 2].startswith("[y]es, [n]o, [l]ater? ")
    assert "sent to ada" in lines[asked + 3 :]


def test_no_color_and_ascii_are_respected(project: Path) -> None:
    written = on_a_terminal(
        "run", "flow.py:total", "1", NO_COLOR="1", PYTHONIOENCODING="ascii", PYTHONUTF8="0"
    )

    assert "\x1b[3" not in written
    assert "+ $1 double" in written


def test_the_answer_stands_between_the_progress_and_the_summary(project: Path) -> None:
    written = on_a_terminal("run", "How many python files are there?")

    lines = visible(written).splitlines()
    answer = next(i for i, line in enumerate(lines) if line.startswith("1 file matches"))
    assert lines[answer - 1] == ""
    assert lines[answer + 1] == ""
    assert lines[answer + 2].startswith("(The model is a rule-based stand-in")
    assert "2 model calls" in " ".join(lines[answer + 3 :])


def test_what_is_logged_has_the_ids_of_run_and_node(cli: Cli, project: Path) -> None:
    (project / "logs.py").write_text(LOGS)

    err = cli("run", "logs.py:chatty", "3").err

    structured, classic = (
        next(line for line in err.splitlines() if word in line)
        for word in ("structured", "classic")
    )
    for line in (structured, classic):
        assert re.search(r"\brun=\w+-1\b", line)
        assert re.search(r"\bnode=0\b", line)
    assert "too quiet" not in err
    assert "too quiet" in cli("run", "logs.py:chatty", "3", "--log-level", "info").err


def test_a_result_cannot_move_the_cursor_of_a_terminal(project: Path, cli: Cli) -> None:
    (project / "evil.py").write_text(
        "from agentflow import tool\n\n\n@tool(pure=True)\nasync def evil() -> str:\n"
        "    return 'a\\x1b[2Jb'\n"
    )

    assert on_a_terminal("run", "evil.py:evil", "-q") == "a[2Jb\n"
    assert cli("run", "evil.py:evil", "-q").out == "a\x1b[2Jb\n"


@pytest.mark.parametrize("words", [["--quiet"], ["--json", "--quiet"]])
def test_quiet_is_quiet_on_a_terminal_too(project: Path, words: list[str]) -> None:
    written = on_a_terminal("run", "flow.py:total", "2", *words)

    assert "\x1b" not in written
    assert written.count("\n") == 1
