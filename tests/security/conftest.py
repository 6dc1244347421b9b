"""Secrets that a test plants are forgotten after it, and a server that repeats what it is sent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentflow import redaction


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test makes known is forgotten after it."""
    monkeypatch.setattr(redaction, "_known", redaction._Known())


class Parrot:
    """A server in a thread whose every answer repeats the key it was sent.

    Attributes:
        heard: The values of ``Authorization`` that arrived.
        port: Where it listens.
        mode: How it answers: the first part of a path picks it.
    """

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def url(self, mode: str, user: str = "") -> str:
        """A base URL under which it answers in some way."""
        return f"http://{user}127.0.0.1:{self.port}/{mode}/v1"

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._answer, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])
        }
        await reader.readexactly(int(headers.get("content-length", "0")))
        sent = headers.get("authorization", "nothing")
        self.heard.append(sent)
        status, more, body = _reply(lines[0].split("/")[1], sent)
        writer.write(
            f"HTTP/1.1 {status} X\r\nX-Echo: {sent}\r\n{more}Connection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        await writer.drain()
        writer.close()


def _reply(mode: str, sent: str) -> tuple[int, str, str]:
    """Status, further headers and body of an answer."""
    key = sent.partition(" ")[2]
    said = f'{{"error": {{"message": "bad {sent} ({key})", "code": "{key}"}}}}'
    json, events = "Content-Type: application/json\r\n", "Content-Type: text/event-stream\r\n"
    if mode == "refuse":
        return 401, json, said
    if mode == "move":
        return 302, f"Location: http://127.0.0.1:1/?api_key={key}\r\n", f"gone to {key}"
    if mode == "html":
        return 200, "Content-Type: text/html\r\n", f"<html>{sent}</html>"
    if mode == "stream":
        return 200, events, f"data: {said}\n\n"
    return 200, events, f"data: {{'{key}\n\n"


@pytest.fixture
def parrot() -> Iterator[Parrot]:
    server = Parrot()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def places() -> Callable[[Path, str], list[str]]:
    """Finds the files below a folder that hold a secret, in any way it may be encoded."""
    return _places


def _places(folder: Path, secret: str) -> list[str]:
    ways = [secret.encode(), secret.encode("utf-16-le"), secret.encode("utf-32-le")]
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(way in path.read_bytes() for way in ways)
    ]
