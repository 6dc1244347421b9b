"""HTTP/1.1 on asyncio streams with h11: one connection, request after request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import TypeAlias

import h11

from agentflow.testing.answering import HangUp, Sender, send_whole
from agentflow.testing.app import HttpRequest
from agentflow.testing.replies import error_body

Handler: TypeAlias = Callable[[HttpRequest, Sender], Awaitable[None]]

_READ = 65536


class HttpConnection:
    """Serves one client until it leaves, asks to close, or a handler hangs up."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._handler = handler
        self._http = h11.Connection(h11.SERVER)

    async def serve(self) -> None:
        """Answer requests one after another."""
        try:
            while (request := await self._request()) is not None:
                if not await self._respond(request) or self._http.states != _ALL_DONE:
                    break
                self._http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            with suppress(ConnectionError):  # it may have left in the middle of its request
                await self._reject(error)
        except (HangUp, ConnectionError):
            pass
        finally:
            await self._close()

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the status line and the headers."""
        reason = HTTPStatus(status).phrase.encode()
        listed = [*headers.items(), ("server", "agentflow-testing")]
        await self._send(h11.Response(status_code=status, headers=listed, reason=reason))

    async def send(self, data: bytes) -> None:
        """Send some of the body."""
        await self._send(h11.Data(data=data))

    async def _send(self, event: h11.Event) -> None:
        if data := self._http.send(event):
            self._writer.write(data)
            await self._writer.drain()

    async def _request(self) -> HttpRequest | None:
        """The next request with its body, or None when the client has left."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            match await self._next_event():
                case h11.Request() as head:
                    pass
                case h11.Data(data=data):
                    body += data
                case h11.EndOfMessage() if head is not None:
                    return _request(head, bytes(body))
                case _:
                    return None

    async def _next_event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(await self._reader.read(_READ))
        return event

    async def _respond(self, request: HttpRequest) -> bool:
        """Run the handler while watching the client; says whether the client is still there."""
        answer = asyncio.ensure_future(self._answer(request))
        gone = asyncio.ensure_future(self._client_leaves())
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            finished = answer.done()
            for task in (answer, gone):
                task.cancel()
            results = await asyncio.gather(answer, gone, return_exceptions=True)
        if finished and isinstance(results[0], Exception):
            raise results[0]
        return finished

    async def _answer(self, request: HttpRequest) -> None:
        await self._handler(request, self)
        await self._send(h11.EndOfMessage())

    async def _client_leaves(self) -> None:
        """Return when the client closes; what it sends before that is kept for later."""
        with suppress(ConnectionError):
            while data := await self._reader.read(_READ):
                self._http.receive_data(data)

    async def _reject(self, error: h11.RemoteProtocolError) -> None:
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            status = error.error_status_hint
            await send_whole(self, status, error_body(str(error), status))
            await self._send(h11.EndOfMessage())

    async def _close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


_ALL_DONE = {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}


def _request(head: h11.Request, body: bytes) -> HttpRequest:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    return HttpRequest(head.method.decode(), head.target.decode(), headers, body)
