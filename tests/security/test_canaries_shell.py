"""A key in the environment is in nothing that a command prints, logs or keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

KEY = "sk-canary-4f1f6e2b9c"

TALKATIVE = '''
import logging, os, sys, warnings

import structlog
from pydantic import SecretStr

from agentflow import Context, tool, workflow

KEY = os.environ["OPENAI_API_KEY"]


@tool(pure=True)
async def told(n: int) -> dict[str, str]:
    """Gives the key back."""
    logging.getLogger("mine").warning("stdlib %s", KEY)
    structlog.get_logger("mine").warning("structlog", key=KEY)
    warnings.warn(f"warned of {KEY}")
    print("stdout", KEY)
    print("stderr", KEY, file=sys.stderr)
    return {KEY: f"it is {KEY}"}


@tool(pure=True)
async def reported(n: int, ctx: Context) -> str:
    """Reports it while it works, and raises it."""
    ctx.emit({"key": KEY})
    raise RuntimeError(f"could not log in with {KEY!r}, as {KEY.encode()!r}")


@tool(pure=True)
async def logged_in(token: SecretStr) -> str:
    """Takes a secret and raises it."""
    raise ValueError(f"{token.get_secret_value()} is wrong")


@workflow
async def tell(n: int) -> dict[str, str]:
    return await told(n)


@workflow
async def fail(n: int) -> str:
    return await reported(n)


@workflow
async def log_in(token: SecretStr) -> str:
    return await logged_in(token)
'''

COMMANDS = """
import json, sys
from agentflow.cli.main import main
for words in json.loads(sys.argv[1]):
    main(words)
"""

Run = Callable[..., str]
Places = Callable[[Path, str], list[str]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "flow.py").write_text(TALKATIVE)
    return tmp_path


@pytest.fixture
def run(home: Path) -> Run:
    """Runs commands in a process of their own with the key in its environment; what it printed."""

    def commands(*each: list[str]) -> str:
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(home),
            "TMPDIR": str(home),
            "AGENTFLOW_CACHE": str(home / "cache"),
            "OPENAI_API_KEY": KEY,
        }
        done = subprocess.run(
            [sys.executable, "-c", COMMANDS, json.dumps(each)],
            cwd=home,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout + done.stderr

    return commands


def test_a_server_that_repeats_the_key(run: Run, home: Path, parrot: Any, places: Places) -> None:
    urls = [parrot.url(mode) for mode in ("refuse", "move", "html", "stream", "broken")]
    noisy = ["--model", "m", "--debug", "--events"]

    printed = run(*(["run", "Why?", "--base-url", url, *noisy] for url in urls))

    assert len(parrot.heard) >= len(urls)
    assert set(parrot.heard) == {f"Bearer {KEY}"}
    assert printed.count("run_failed") == len(urls)
    assert "Traceback" in printed
    assert KEY not in printed
    assert places(home, KEY) == []


def test_the_password_of_a_base_url(run: Run, home: Path, parrot: Any, places: Places) -> None:
    url = ["--base-url", parrot.url("refuse", "somebody:pass%2Fword-9@")]

    printed = run(
        ["run", "Why?", *url, "--model", "m", "--debug", "--events"],
        ["doctor", *url, "--json"],
        ["doctor", *url],
    )

    assert set(parrot.heard) == {"Basic c29tZWJvZHk6cGFzcy93b3JkLTk="}
    assert printed.count("(401)") >= 3
    for secret in ("pass%2Fword-9", "pass/word-9", "c29tZWJvZHk6cGFzcy93b3JkLTk="):
        assert secret not in printed
        assert places(home, secret) == []


def test_a_tool_that_tells_the_key(run: Run, home: Path, places: Places) -> None:
    ways = [["--events"], ["--json"], ["--debug"], []]

    printed = run(*(["run", f"flow.py:{name}", "7", *w] for w in ways for name in ("tell", "fail")))

    for said in ("stdlib **", "structlog", "warned of **", "stdout **", "stderr **", "log in with"):
        assert said in printed
    assert KEY not in printed
    assert places(home, KEY) == []


def test_an_argument_that_is_a_secret(run: Run, home: Path, places: Places) -> None:
    token = "hunter2-canary-77"

    printed = run(["run", "flow.py:log_in", token, "--debug", "--events"])

    assert "********** is wrong" in printed
    assert token not in printed
    assert places(home, token) == []


def test_a_key_in_a_file_of_settings(run: Run, home: Path, parrot: Any, places: Places) -> None:
    other = "sk-canary-of-the-file-1"
    (home / "pyproject.toml").write_text(
        f'[tool.agentflow]\nbase_url = "{parrot.url("refuse")}"\nmodel = "m"\napi_key = "{other}"\n'
    )

    printed = run(["run", "Why?", "--debug", "--events"])

    assert set(parrot.heard) == {f"Bearer {other}"}
    assert other not in printed
    assert places(home, other) == ["pyproject.toml"]
