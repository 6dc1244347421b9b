"""A server with one engine for all of its requests; a client that leaves stops its run.

    python examples/embed_in_server.py
    curl 'http://127.0.0.1:8080/?rome'

The server is asyncio's own, to show what any other needs too: make the engine when the
application starts, close it when it ends, and cancel the task of a request whose client has gone.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from agentflow import Budget, Engine, tool, workflow
from agentflow.errors import RunError


@tool(reads="weather", limit=10)
async def weather(city: str) -> str:
    """The engine has at most ten of these under way, whoever asks."""
    await asyncio.sleep(0.2)
    return f"sunny in {city}"


@tool(reads="events")
async def events(city: str) -> list[str]:
    await asyncio.sleep(0.3)
    return [f"a concert in {city}"]


@workflow(budget=Budget(deadline="5s"))
async def today(city: str) -> dict[str, object]:
    sky, agenda = weather(city), events(city)
    return {"weather": await sky, "events": await agenda}


class Site:
    """Answers ``GET /?city`` with JSON."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: the answer, unless the client leaves first."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        answer = asyncio.create_task(self._answer(head))
        left = asyncio.create_task(reader.read())  # ends when the client closes
        await asyncio.wait([answer, left], return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            writer.write(answer.result())
        else:
            answer.cancel()  # and with it the run, and its calls
            with suppress(asyncio.CancelledError):
                await answer
        left.cancel()
        writer.close()

    async def _answer(self, head: str) -> bytes:
        city = unquote(urlsplit(head.split()[1]).query) or "Rome"
        try:
            status, value = "200 OK", await self._engine.run(today, city)
        except RunError as error:
            status, value = "500 Internal Server Error", {"error": str(error)}
        body = json.dumps(value).encode()
        length = f"content-type: application/json\r\ncontent-length: {len(body)}"
        return f"HTTP/1.1 {status}\r\n{length}\r\nconnection: close\r\n\r\n".encode() + body


async def main(port: int = 8080) -> None:
    async with Engine() as engine:
        server = await asyncio.start_server(Site(engine).handle, "127.0.0.1", port)
        print(f"http://127.0.0.1:{port}/?rome  (Ctrl-C ends it)")
        async with server:
            await server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
