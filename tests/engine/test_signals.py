"""What a signal to the process leaves behind: nothing, whichever it is and whoever takes it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest

PATIENT = 60.0
"""Seconds after which a test gives up."""

CALLS = 4
"""Connections that the flow holds: two of its program, one of each other tool."""

FLOW = '''
import asyncio
import socket
from agentflow import run_sync, tool, workflow
from agentflow.tools.builtin import python_tool

PROGRAM = """
import os, socket
if os.fork() == 0:
    os.setsid()
connection = socket.create_connection(("127.0.0.1", {port}))
while True:
    connection.recv(1)
"""

python = python_tool(timeout=60)


@tool
def hangs(port: int) -> None:
    """Wait in a thread for what never comes."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.recv(1)


@tool
async def ignores(port: int) -> None:
    """Go on whatever happens."""
    await asyncio.open_connection("127.0.0.1", port)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass


@workflow
async def flow(port: int) -> list[object]:
    """All of them at once."""
    return [python(PROGRAM.replace("{port}", str(port))), hangs(port), ignores(port)]


if __name__ == "__main__":
    import sys
    run_sync(flow, int(sys.argv[1]))
'''

FORKING = """
import asyncio, os, sys
from agentflow.tools.builtin import python_tool

PROGRAM = "import socket; socket.create_connection(('127.0.0.1', {port})).recv(1)"


async def main():
    program = asyncio.ensure_future(
        python_tool(timeout=60)(PROGRAM.replace("{port}", sys.argv[1]))
    )
    await asyncio.to_thread(sys.stdin.readline)
    worker = os.fork()
    if worker == 0:
        while True:
            os.read(0, 1)
    print(worker, flush=True)
    await program

asyncio.run(main())
"""

COMMANDS = {
    "command": ("-m", "agentflow", "run", "flow.py:flow", "{port}"),
    "library": ("flow.py", "{port}"),
}

Start: TypeAlias = Callable[[str], "tuple[subprocess.Popen[bytes], list[socket.socket]]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the flow in a process of its own; gives it when all its calls are under way."""
    (tmp_path / "flow.py").write_text(FLOW)
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        server.settimeout(PATIENT)
        port = str(server.getsockname()[1])

        def run(command: str) -> tuple[subprocess.Popen[bytes], list[socket.socket]]:
            words = [word.replace("{port}", port) for word in COMMANDS[command]]
            process = subprocess.Popen(
                [sys.executable, *words],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            connections = [stack.enter_context(server.accept()[0]) for _ in range(CALLS)]
            for connection in connections:
                connection.settimeout(PATIENT)
            return process, connections

        yield run


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are found on Linux only")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_ends_the_process_and_all_that_it_has_started(
    start: Start, command: str, number: signal.Signals
) -> None:
    process, connections = start(command)

    process.send_signal(number)
    process.wait(PATIENT)

    assert [connection.recv(1) for connection in connections] == [b""] * CALLS


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
def test_a_program_ends_with_the_engine_though_a_process_that_it_forked_goes_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENT)
        process = subprocess.Popen(
            [sys.executable, "-c", FORKING, str(server.getsockname()[1])],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with process, server.accept()[0] as program:
            assert process.stdin is not None
            assert process.stdout is not None
            program.settimeout(PATIENT)
            process.stdin.write(b"go on\n")
            process.stdin.flush()
            worker = int(process.stdout.readline())
            process.kill()
            try:
                assert program.recv(1) == b""
            finally:
                os.kill(worker, signal.SIGKILL)
