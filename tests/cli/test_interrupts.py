"""Ctrl-C, SIGTERM and a reader that leaves, on a real process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agentflow.cli import codes

Start: TypeAlias = Callable[..., subprocess.Popen[str]]

FLOW = '''
import asyncio
from agentflow import tool, workflow


@tool(pure=True)
async def quick(n: int) -> int:
    """Give a number back."""
    return n


@tool(reads="gate")
async def gated(port: int, n: int, deaf: bool) -> str:
    """Say that it runs, then wait for the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"running\\n")
    while True:
        try:
            await reader.readline()
            return "let through"
        except asyncio.CancelledError:
            writer.write(b"cancelled\\n")
            if not deaf:
                raise


@tool(pure=True)
async def blocking(port: int) -> None:
    """Say that it runs, and never let go of the loop."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"running\\n")
    await writer.drain()
    while True:
        pass


@workflow
async def wait(port: int, deaf: bool = False) -> str:
    """Something quick, then something that waits."""
    return await gated(port, await quick(7), deaf)
'''


class Gate:
    """Where the tool reports."""

    def __init__(self, server: socket.socket, stack: ExitStack) -> None:
        self._server = server
        self._stack = stack

    @property
    def port(self) -> str:
        return str(self._server.getsockname()[1])

    def reached(self) -> Any:
        """The tool's connection, once it runs."""
        connection = self._stack.enter_context(self._server.accept()[0])
        connection.settimeout(30)
        file = self._stack.enter_context(connection.makefile("rw"))
        assert file.readline() == "running\n"
        return file


@pytest.fixture
def gate() -> Iterator[Gate]:
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        server.settimeout(30)
        yield Gate(server, stack)


@pytest.fixture
def start(project: Path) -> Iterator[Start]:
    """Starts the command line in a process of its own."""
    (project / "flow.py").write_text(FLOW)
    started: list[subprocess.Popen[str]] = []

    def run(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "agentflow", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, codes.INTERRUPTED), (signal.SIGTERM, codes.TERMINATED)],
)
def test_a_signal_cancels_cleanly_and_shows_what_was_finished(
    start: Start, gate: Gate, number: signal.Signals, code: int
) -> None:
    process = start("run", "flow.py:wait", gate.port)
    tool = gate.reached()

    process.send_signal(number)
    out, err = process.communicate(timeout=30)

    assert tool.readline() == "cancelled\n"
    assert (process.returncode, out) == (code, "")
    assert "1 call had finished:\n  $1 quick: 7\n" in err
    *_, last, advice = err.splitlines()
    assert last == "agentflow run: wait was cancelled: interrupted."
    assert re.fullmatch(r"to go on: agentflow resume [0-9a-f]{8}-1", advice)
    assert "Traceback" not in err


def test_an_interrupted_run_tells_its_results_in_json(start: Start, gate: Gate) -> None:
    process = start("run", "flow.py:wait", gate.port, "--json", "-q")
    gate.reached()

    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)

    data = json.loads(out)
    assert (data["ok"], data["error"]["kind"]) == (False, "RunCancelled")
    assert data["error"]["exit"] == process.returncode == codes.INTERRUPTED
    assert data["error"]["results"] == {"$1": 7}
    assert [call["status"] for call in data["calls"]] == ["done", "cancelled"]


def test_a_second_interrupt_ends_at_once(start: Start, gate: Gate) -> None:
    process = start("run", "flow.py:wait", gate.port, "deaf=true")
    tool = gate.reached()

    process.send_signal(signal.SIGINT)
    assert tool.readline() == "cancelled\n"  # and it goes on
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)

    assert process.returncode == codes.INTERRUPTED
    assert "once more ends at once" in err
    assert "had finished" not in err


def test_a_second_interrupt_ends_a_tool_that_blocks_the_loop(start: Start, gate: Gate) -> None:
    process = start("run", "flow.py:blocking", gate.port)
    gate.reached()

    while process.poll() is None:  # two signals may arrive as one
        process.send_signal(signal.SIGINT)

    assert process.returncode == codes.INTERRUPTED


def test_a_tool_that_blocks_the_loop_is_named_while_it_does(start: Start, gate: Gate) -> None:
    process = start("run", "flow.py:blocking", gate.port)
    assert process.stderr is not None
    gate.reached()

    line = next(line for line in process.stderr if "blocked" in line)
    process.kill()

    assert "the event loop is blocked" in line
    assert "tool=blocking" in line
    assert re.search(r"flow\.py:\d+ in blocking", line)


def test_a_reader_that_leaves_ends_the_run_without_a_word(start: Start, gate: Gate) -> None:
    process = start("run", "flow.py:wait", gate.port, "--events", "-q")
    assert process.stdout is not None
    tool = gate.reached()

    process.stdout.close()
    tool.write("go on\n")
    tool.flush()
    process.wait(30)

    assert process.returncode == codes.BROKEN_PIPE
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_output_that_nobody_reads_is_no_error(start: Start) -> None:
    process = start("tools", "--json")
    assert process.stdout is not None
    process.stdout.close()

    process.wait(30)

    assert process.returncode == codes.BROKEN_PIPE
    assert process.stderr is not None
    assert process.stderr.read() == ""
