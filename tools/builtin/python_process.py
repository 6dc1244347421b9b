"""The process that `python` runs a program in: its folder, its limits and its end.

The process gets an empty temporary folder, no environment of ours and no standard input, and
is killed with all its descendants when it ends, writes too much, runs too long or is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from agentflow.tools.builtin.scratch import remove

GRACE = 5.0
"""Seconds the launcher has to kill what is left."""

_LAUNCHER = Path(__file__).with_name("launcher.py")
_RUNNER = Path(__file__).with_name("runner.py")


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


class Process:
    """A Python process that waits for a program, in one piece or in statements.

    Attributes:
        timed_out: Whether it was stopped because it took too long.
    """

    def __init__(
        self,
        folder: Path,
        transport: asyncio.SubprocessTransport,
        capture: _Capture,
        commands: asyncio.Transport,
        answer: _Answer,
    ) -> None:
        self._folder = folder
        self._transport = transport
        self._capture = capture
        self._commands = commands
        self._answer = answer
        self.timed_out = False

    @property
    def truncated(self) -> bool:
        """Whether it was stopped because it wrote too much."""
        return self._capture.flooded

    @property
    def stdout(self) -> str:
        """What it has printed, cut at the limit."""
        return self._capture.text(1)

    @property
    def stderr(self) -> str:
        """What it has reported, cut at the limit."""
        return self._capture.text(2)

    @property
    def exit_code(self) -> int:
        """0 is success; 128 and a signal's number if one ended it."""
        code = self._transport.get_returncode()
        return 137 if code is None else code if code >= 0 else 128 - code

    @property
    def has_begun(self) -> bool:
        """Whether it got to the program it was told to run; not if an import was noticeable."""
        return self._answer.came

    def import_early(self, module: str, names: Iterable[str] = ()) -> None:
        """Have a module imported before the program that imports it is there."""
        self._tell(" ".join(("import", module, *names)))

    def run(self, program: str) -> None:
        """Run a whole program; nothing can be told afterwards."""
        (self._folder / "main.py").write_bytes(_encoded(program))
        self._tell("program")

    def run_statement(self, text: str, line: int, *, opening: bool) -> None:
        """Run the next statement of a program.

        Args:
            text: The statement.
            line: Its first line in the program.
            opening: Whether it may be a docstring or a future import.
        """
        code = _encoded(text)
        self._tell(f"{'opening' if opening else 'statement'} {line} {len(code)}", code)

    def end_statements(self) -> None:
        """There are no more statements."""
        self._tell("end")

    async def wait(self, deadline: float) -> None:
        """Wait until it has ended or written too much, or a time of the loop's; then stop it."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._capture.enough.wait()
        except TimeoutError:
            self.timed_out = True
        await self.stop()

    async def stop(self) -> None:
        """End the lifeline, upon which the launcher kills what is left, and wait for it."""
        try:
            _cut_lifeline(self._transport)
            with contextlib.suppress(ProcessLookupError):
                self._transport.send_signal(signal.SIGCONT)  # the program may have stopped it
            async with asyncio.timeout(GRACE):
                await self._capture.over.wait()
        except TimeoutError:
            pass
        finally:
            self._transport.close()
            self._commands.abort()

    def _tell(self, command: str, data: bytes = b"") -> None:
        if not self._commands.is_closing():  # else it has ended already
            self._commands.write(command.encode() + b"\n" + data)


@contextlib.asynccontextmanager
async def process(limits: Limits) -> AsyncIterator[Process]:
    """A process in a fresh folder; nothing of either is left behind."""
    folder = Path(tempfile.mkdtemp(prefix="agentflow-"))
    try:
        started = await _start(folder, limits)
        try:
            yield started
        finally:
            await started.stop()
    finally:
        await asyncio.shield(asyncio.to_thread(remove, folder))


async def _start(folder: Path, limits: Limits) -> Process:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    commands = None
    try:
        with theirs:
            commands, answer = await loop.create_unix_connection(_Answer, sock=ours)
            runner = [sys.executable, "-I", "-u", "-X", "utf8", str(_RUNNER), str(theirs.fileno())]
            transport, capture = await loop.subprocess_exec(
                lambda: _Capture(limits.output),
                *(sys.executable, "-I", "-S", str(_LAUNCHER), *limits.arguments(), "--", *runner),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                cwd=folder,
                env=_environment(folder),
                start_new_session=True,  # a terminal's Ctrl-C is for us, not for the program
            )
    except BaseException:
        ours.close() if commands is None else commands.abort()
        raise
    return Process(folder, transport, capture, commands, answer)


def _cut_lifeline(transport: asyncio.SubprocessTransport) -> None:
    lifeline = transport.get_pipe_transport(0)
    if lifeline is not None:
        lifeline.close()


class _Answer(asyncio.Protocol):
    """Whether the runner has said that it runs the program."""

    def __init__(self) -> None:
        self.came = False

    def data_received(self, data: bytes) -> None:
        """It has."""
        self.came = True


class _Capture(asyncio.SubprocessProtocol):
    """Keeps output up to a limit; a process that writes more is stopped.

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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The launcher has been started."""
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def text(self, descriptor: int) -> str:
        """What was written to stdout (1) or stderr (2)."""
        return self._output[descriptor].decode("utf-8", "replace")

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Keep what fits."""
        room = self._limit - len(self._output[fd])
        self._output[fd] += data[:room]
        if len(data) > room and not self.flooded:
            self.flooded = True
            self.enough.set()
            _cut_lifeline(self._transport)

    def process_exited(self) -> None:
        """The launcher has ended, so the program has."""
        self.enough.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more can come."""
        self.over.set()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _environment(folder: Path) -> Mapping[str, str]:
    """Nothing of ours: no keys, no paths, no proxies."""
    own = str(folder)
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": own, "TMPDIR": own}
