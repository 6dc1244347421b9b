"""A loopback HTTP server that answers with scripted bytes, and a backend that talks to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agentflow.executor.models.client import OpenAIBackend

RESET = object()


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def text(content: str) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}]})


FINISH = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
COUNTS = {
    "prompt_tokens": 10,
    "completion_tokens": 2,
    "prompt_tokens_details": {"cached_tokens": 4},
}
USAGE = event({"choices": [], "usage": COUNTS})
DONE = b"data: [DONE]\n\n"


@dataclass
class Answer:
    """One scripted HTTP response: bytes are sent, an Event is awaited, RESET resets."""

    steps: Sequence[Any] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "text/event-stream"


@dataclass
class Seen:
    """One request the server received; `gone` is set when its client disconnects."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    connection: int
    gone: asyncio.Event


class _Protocol(asyncio.StreamReaderProtocol):
    def __init__(self, handler: Callable[..., Any]) -> None:
        self.gone = asyncio.Event()
        super().__init__(asyncio.StreamReader(), handler)

    def eof_received(self) -> bool | None:
        self.gone.set()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        super().connection_lost(exc)


class Wire:
    """The server: answers requests in order; the last answer repeats."""

    RESET = RESET
    FINISH = FINISH
    USAGE = USAGE
    DONE = DONE
    HELLO = (text("Hel"), text("lo"), FINISH, USAGE, DONE)
    text = staticmethod(text)
    event = staticmethod(event)

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.routes: dict[str, Answer] = {}
        self.seen: list[Seen] = []
        self.arrived = asyncio.Event()
        self.url = ""
        self._connections = 0

    def reply(self, *steps: Any, **options: Any) -> None:
        """Script the next answer."""
        self.answers.append(Answer(steps, **options))

    def route(self, path: str, *steps: Any, **options: Any) -> None:
        """Script the answer to every request for a path."""
        self.routes[path] = Answer(steps, **options)

    def fail(self, status: int, body: str = "", **headers: str) -> None:
        """Script an HTTP error."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.reply(body.encode() or b" ", status=status, headers=named)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Wire]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Protocol(self._handle), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield self
        finally:
            server.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        protocol = writer.transport.get_protocol()
        assert isinstance(protocol, _Protocol)
        try:
            while seen := await _read_request(reader, self._connections, protocol.gone):
                self.seen.append(seen)
                self.arrived.set()
                answer = self.routes.get(seen.path) or self._next()
                await _send(writer, answer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def _next(self) -> Answer:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def _read_request(
    reader: asyncio.StreamReader, connection: int, gone: asyncio.Event
) -> Seen | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode().strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(method, path, headers, json.loads(body) if body else None, connection, gone)


async def _send(writer: asyncio.StreamWriter, answer: Answer) -> None:
    headers = {"content-type": answer.content_type, "transfer-encoding": "chunked"}
    headers |= answer.headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {answer.status} X\r\n{lines}\r\n".encode())
    for step in answer.steps:
        if step is RESET:
            writer.transport.abort()
            raise ConnectionError
        if isinstance(step, asyncio.Event):
            await writer.drain()
            await step.wait()
        else:
            writer.write(b"%x\r\n%s\r\n" % (len(step), step))
            await writer.drain()
            await asyncio.sleep(0)
    writer.write(b"0\r\n\r\n")
    await writer.drain()


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with Wire().serve() as server:
        yield server


@pytest.fixture
async def backend(wire: Wire) -> AsyncIterator[Callable[..., OpenAIBackend]]:
    """Makes backends for the server, and closes them."""
    made: list[OpenAIBackend] = []

    def make(**options: Any) -> OpenAIBackend:
        made.append(OpenAIBackend(options.pop("base_url", wire.url), "tiny", **options))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


@pytest.fixture
def transcripts() -> Path:
    """The folder of recorded replies."""
    return Path(__file__).parent.parent / "transcripts"
