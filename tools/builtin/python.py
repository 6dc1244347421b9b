"""`python`: run a program in a process of its own, under limits.

The process gets an empty temporary folder, no environment of ours and no standard input, and
is killed with all its descendants when it ends, writes too much, runs too long or is cancelled.
That stops accidents. It is no sandbox: the program can read what this user can read, and reach
the network.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentflow.clock import seconds
from agentflow.errors import DefinitionError
from agentflow.tools.tool import Tool, tool

GRACE = 5.0
"""Seconds the launcher has to kill what is left."""

_LAUNCHER = Path(__file__).with_name("launcher.py")


@dataclass(frozen=True, slots=True)
class PythonResult:
    """How a program ended.

    Attributes:
        stdout: What it printed, cut at the limit.
        stderr: What it reported, cut at the limit; a traceback is here.
        exit_code: 0 is success; 128 and a signal's number if one ended it (137 is killed).
        truncated: Whether it was stopped because it wrote too much.
        timed_out: Whether it was stopped because it took too long.
    """

    stdout: str
    stderr: str
    exit_code: int
    truncated: bool = False
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may take: seconds, and bytes of memory, of output, and of each file."""

    timeout: float
    memory: int
    output: int
    file: int

    def arguments(self) -> list[str]:
        """As the launcher reads them."""
        return [
            f"RLIMIT_CPU={math.ceil(self.timeout) + 1}",
            f"RLIMIT_AS={self.memory}",
            f"RLIMIT_FSIZE={self.file}",
            "RLIMIT_NOFILE=256",
            "RLIMIT_CORE=0",
        ]


def python_tool(
    *,
    timeout: float | str = "10s",
    memory: int = 2**30,
    max_output: int = 64 * 2**10,
    max_file: int = 64 * 2**20,
) -> Tool[..., Any]:
    """The `python` tool; a toolbox has it only if it is put there.

    Args:
        timeout: Seconds (or ``"10s"``) a program may run.
        memory: Bytes of address space of each of its processes (not enforced on macOS).
        max_output: Bytes kept of each of stdout and stderr; a program that writes more is stopped.
        max_file: Bytes of each file it may write.

    Raises:
        DefinitionError: The system has no process limits, or Python's path is not known.
    """
    if os.name != "posix" or not sys.executable:
        raise DefinitionError("the python tool needs a POSIX system and sys.executable")
    limits = Limits(seconds(timeout), memory, max_output, max_file)

    @tool(timeout=limits.timeout + 2 * GRACE)
    async def python(code: str) -> PythonResult:
        """Run a Python program in a fresh folder; only what it prints is given back."""
        return await run(code, limits)

    return python


async def run(code: str, limits: Limits) -> PythonResult:
    """Run a program; nothing of it is left when this returns, raises or is cancelled."""
    folder = Path(tempfile.mkdtemp(prefix="agentflow-"))
    try:
        (folder / "main.py").write_bytes(code.encode("utf-8", "surrogatepass"))
        return await _run(folder, limits)
    finally:
        await asyncio.shield(asyncio.to_thread(_remove, folder))


async def _run(folder: Path, limits: Limits) -> PythonResult:
    program = [sys.executable, "-I", "-u", "-X", "utf8", "main.py"]
    transport, capture = await asyncio.get_running_loop().subprocess_exec(
        lambda: _Capture(limits.output),
        *(sys.executable, "-I", "-S", str(_LAUNCHER), *limits.arguments(), "--", *program),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=_environment(folder),
        start_new_session=True,  # a terminal's Ctrl-C is for us, not for the program
    )
    timed_out = False
    try:
        async with asyncio.timeout(limits.timeout):
            await capture.enough.wait()
    except TimeoutError:
        timed_out = True
    finally:
        await _stop(transport, capture)
    code = transport.get_returncode()
    return PythonResult(
        stdout=capture.text(1),
        stderr=capture.text(2),
        exit_code=137 if code is None else code,
        truncated=capture.flooded,
        timed_out=timed_out,
    )


async def _stop(transport: asyncio.SubprocessTransport, capture: _Capture) -> None:
    """End the lifeline, upon which the launcher kills what is left, and wait for it."""
    lifeline = transport.get_pipe_transport(0)
    try:
        if lifeline is not None:
            lifeline.close()
        async with asyncio.timeout(GRACE):
            await capture.over.wait()
    except TimeoutError:
        pass
    finally:
        transport.close()


class _Capture(asyncio.SubprocessProtocol):
    """Keeps output up to a limit.

    Attributes:
        enough: Set when the program has ended, or written too much.
        over: Set when the launcher has ended and all pipes are closed.
        flooded: Whether it wrote too much.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._output = {1: bytearray(), 2: bytearray()}
        self.enough = asyncio.Event()
        self.over = asyncio.Event()
        self.flooded = False

    def text(self, descriptor: int) -> str:
        """What was written to stdout (1) or stderr (2)."""
        return self._output[descriptor].decode("utf-8", "replace")

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Keep what fits."""
        room = self._limit - len(self._output[fd])
        self._output[fd] += data[:room]
        if len(data) > room:
            self.flooded = True
            self.enough.set()

    def process_exited(self) -> None:
        """The launcher has ended, so the program has."""
        self.enough.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more can come."""
        self.over.set()


def _environment(folder: Path) -> Mapping[str, str]:
    """Nothing of ours: no keys, no paths, no proxies."""
    own = str(folder)
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": own, "TMPDIR": own}


def _remove(folder: Path) -> None:
    """Delete the folder, also what the program has locked."""
    for path, names, _ in os.walk(folder):
        for name in names:
            inner = os.path.join(path, name)
            if not os.path.islink(inner):
                os.chmod(inner, 0o700)
    shutil.rmtree(folder, ignore_errors=True)
