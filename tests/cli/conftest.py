"""The command line in the test's own process, in a folder and with a model of the test's own."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from agentflow.cli.main import main
from agentflow.testing import Answer, Model, ScriptedServer

FLOW = '''
from agentflow import tool, workflow


@tool(pure=True)
async def double(n: int) -> int:
    """Two times a number."""
    return 2 * n


@tool(reads="web", retries=1, backoff=0)
async def broken(n: int) -> int:
    """Never works."""
    raise OSError(f"no luck with {n}")


@tool(reads="shelf", ttl="1h")
async def looked_up(n: int) -> int:
    """Three times a number."""
    return 3 * n


@tool
def shout(text: str) -> str:
    """Make a text loud."""
    return text.upper()


@workflow
async def total(upto: int, *, add: list[int] | None = None) -> int:
    """The sum of the doubles."""
    doubles = [double(n) for n in range(upto)]
    return sum([await one for one in doubles]) + sum(add or [])


@workflow
async def thrice(n: int) -> int:
    """Asks for the same again."""
    return await looked_up(n) + await looked_up(n) + sum(await looked_up.map([n, n + 1]))


@workflow
async def hopeless(n: int) -> int:
    """Fails."""
    good = double(n)
    return await broken(n) + await good


@workflow
async def outer(n: int) -> int:
    """A workflow in a workflow."""
    return await total(n)
'''


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder with `flow.py`, and an interpreter left as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("AGENTFLOW_ESTIMATES", raising=False)
    (tmp_path / "flow.py").write_text(FLOW)
    path, modules, root = list(sys.path), set(sys.modules), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def cli(project: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs a command in the project."""

    def run(*words: str) -> Done:
        try:
            code = main(words)
        except SystemExit as error:  # argparse
            assert isinstance(error.code, int)
            code = error.code
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


@pytest.fixture
def plan_file(project: Path) -> Callable[[str], str]:
    """Writes a plan file."""

    def write(text: str, name: str = "work.plan") -> str:
        (project / name).write_text(text)
        return name

    return write


@pytest.fixture
def host() -> Iterator[Callable[[Any], None]]:
    """Starts servers beside the test: the command line has a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    servers: list[Any] = []

    def in_thread(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(10)

    def start(server: Any) -> None:
        in_thread(server.start())
        servers.append(server)

    yield start
    for server in servers:
        in_thread(server.aclose())
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture
def serve(host: Callable[[Any], None]) -> Callable[..., ScriptedServer]:
    """Starts scripted servers."""

    def start(model: Model | Sequence[Answer], **options: Any) -> ScriptedServer:
        server = ScriptedServer(model, **options)
        host(server)
        return server

    return start
