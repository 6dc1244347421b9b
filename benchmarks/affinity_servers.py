"""Real llama.cpp servers on this machine, with the tiny model of `make llama`."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agentflow import _http

BUILT = Path(__file__).parent.parent / ".venv-llama"
"""Where `make llama` puts the server and the model."""

BINARY, MODEL = BUILT / "bin" / "llama-server", BUILT / "model.gguf"

SLOTS = 4
"""Requests that a server runs at once; each has an equal part of its context."""

CONTEXT = 32768
"""Tokens of KV that a server holds."""

CHUNK = 128
"""Tokens of prompts that a server computes in one step."""

PATIENCE = 30.0
"""Seconds within which a server answers after it was started."""

_FLAGS = (
    f"--host 127.0.0.1 --threads 1 --threads-batch 1 --batch-size {CHUNK} --ubatch-size {CHUNK}"
    " --flash-attn off --cache-ram 0 --no-warmup --offline --jinja --metrics --slots"
    " --temp 0 --alias tiny"
).split()
"""One thread: two on a busy machine wait for each other. No flash attention, which is slower
without an accelerator, and no second cache, which would hide what the first one evicts."""


@dataclass(frozen=True)
class Server:
    """A server that runs: its base URL, and the process."""

    url: str
    pid: int

    def worked(self) -> float:
        """Seconds that a processor has worked for it so far.

        A clock that stands still while the server has nothing to do, and while something else
        has its processor.
        """
        return time.clock_gettime((~self.pid << 3) | 2)  # the clock of a process, as Linux has it


def missing() -> str:
    """What there is to be done before servers can be started; empty if nothing is."""
    there = BINARY.exists() and MODEL.exists()
    return "" if there else "no llama.cpp server here: `make llama` builds one"


@asynccontextmanager
async def servers(
    count: int, *, saves: str = "", slots: int = SLOTS
) -> AsyncIterator[list[Server]]:
    """So many servers, on ports of their own.

    Args:
        count: How many.
        saves: A folder in which they may save slots.
        slots: Of each.
    """
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(_server(saves, slots)) for _ in range(count)]


@asynccontextmanager
async def _server(saves: str, slots: int) -> AsyncIterator[Server]:
    port = _free_port()
    where = ["--model", str(MODEL), "--port", str(port), "--slot-save-path", saves]
    sizes = ["--ctx-size", str(CONTEXT), "--parallel", str(slots)]
    process = await asyncio.create_subprocess_exec(
        BINARY,
        *(where if saves else where[:-2]),
        *sizes,
        *_FLAGS,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await _ready(process, f"http://127.0.0.1:{port}")
        yield Server(f"http://127.0.0.1:{port}/v1", process.pid)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _ready(process: asyncio.subprocess.Process, url: str) -> None:
    """Wait until a server answers.

    Raises:
        RuntimeError: It ended instead.
        TimeoutError: It takes too long.
    """
    http = _http.module()
    async with asyncio.timeout(PATIENCE), http.AsyncClient() as client:
        while process.returncode is None:
            with suppress(http.TransportError):
                if (await client.get(f"{url}/health")).status_code == 200:
                    return
            await asyncio.sleep(0.05)
    raise RuntimeError(f"{BINARY} ended with {process.returncode}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
