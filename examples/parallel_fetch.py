"""Fetch many pages at once, and take what comes: every page has its own time limit.

    python examples/parallel_fetch.py https://www.python.org https://peps.python.org/pep-0020/

Without addresses it serves itself three: a good page, a missing one, and one that never comes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from agentflow import Engine, Outcome, Tool, settled, workflow
from agentflow.tools.builtin import http_tools
from agentflow.tools.builtin.http import Page

http_get: Tool[[str], Page]
[http_get] = http_tools(allow_private=True)  # loopback is refused otherwise


@workflow
async def fetch_all(urls: Sequence[str], timeout: float) -> list[Outcome[Page]]:
    """One call for every address; ``settled`` waits for all of them, however they end."""
    get = http_get.with_(timeout=timeout)
    return await settled(*[get(url) for url in urls])


def described(outcome: Outcome[Page]) -> str:
    if outcome.value is not None:
        return f"{outcome.value.status}, {len(outcome.value.text)} characters"
    return f"{outcome.status}: {outcome.error}"


@asynccontextmanager
async def sample_pages() -> AsyncIterator[list[str]]:
    """Three addresses of a small server in this process."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        if "/never" in request:
            await reader.read()  # until the client gives up
        else:
            status = "200 OK" if "/good" in request else "404 Not Found"
            writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 5\r\n\r\nhello".encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    host, port = server.sockets[0].getsockname()
    async with server:
        yield [f"http://{host}:{port}/{name}" for name in ("good", "missing", "never")]


async def main(urls: Sequence[str] = ()) -> list[str]:
    async with sample_pages() as samples, Engine() as engine:
        chosen = urls or samples
        outcomes = await engine.run(fetch_all, chosen, timeout=2.0)
    return [f"{url}  {described(o)}" for url, o in zip(chosen, outcomes, strict=True)]


if __name__ == "__main__":
    print("\n".join(asyncio.run(main(sys.argv[1:]))))
