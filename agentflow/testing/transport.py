"""An HTTP client's transport that reaches a scripted server without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from functools import cache
from importlib import import_module
from typing import Any, Self

from agentflow.testing.answering import HangUp, Refused, Sender
from agentflow.testing.app import HttpRequest

Handler = Callable[[HttpRequest, Sender], Coroutine[Any, Any, None]]
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]

_END = None


class InMemoryTransport:
    """Serves an HTTP client's requests in the same process, streaming, on the loop's clock.

    It goes into ``httpx.AsyncClient(transport=...)`` and ``httpx2.AsyncClient(transport=...)``
    alike: responses and errors are those of the library the request came from. A client that
    closes or cancels is a client that went away; the client's read timeout is obeyed.

    Args:
        handler: Answers a request.
        spawn: Starts a task that its owner will cancel when it closes.
    """

    def __init__(self, handler: Handler, spawn: Spawn) -> None:
        self._handler = handler
        self._spawn = spawn

    async def handle_async_request(self, request: Any) -> Any:
        """Send the request and return the response, whose body streams."""
        http = import_module(type(request).__module__.partition(".")[0])
        line = _Line(http, request)
        headers = {name.lower(): value for name, value in request.headers.items()}
        target = request.url.raw_path.decode("ascii")
        received = HttpRequest(request.method, target, headers, await request.aread())
        line.task = self._spawn(line.run(self._handler, received))
        line.task.add_done_callback(line.closed)
        try:
            status, sent_headers = await line.receive()
        except BaseException:
            await line.hang_up()
            raise
        stream = _stream_class(http)(line)
        return http.Response(status, headers=sent_headers, stream=stream, request=request)

    async def aclose(self) -> None:
        """Nothing to close: the server owns what it is answering."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.aclose()


class _Line:
    """The two ends of one answer: the server sends, the client receives."""

    task: asyncio.Task[None]

    def __init__(self, http: Any, request: Any) -> None:
        self._http = http
        self._request = request
        self._read_timeout = request.extensions.get("timeout", {}).get("read")
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    async def run(self, handler: Handler, request: HttpRequest) -> None:
        """Carry the handler to its end and tell the client how it ended."""
        try:
            await handler(request, self)
        except Refused:
            self._queue.put_nowait(self._error("ConnectError", "nobody listens (scripted fault)"))
        except HangUp:
            message = "Server disconnected without a complete response (scripted fault)"
            self._queue.put_nowait(self._error("RemoteProtocolError", message))
        else:
            self._queue.put_nowait(_END)

    def closed(self, task: asyncio.Task[None]) -> None:
        """Tell the client if the server was closed, even before it took the request."""
        if task.cancelled():
            self._queue.put_nowait(self._error("ReadError", "the server was closed"))

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        self._queue.put_nowait((status, dict(headers)))

    async def send(self, data: bytes) -> None:
        self._queue.put_nowait(data)

    async def receive(self) -> Any:
        """What comes next: (status, headers), then bytes, then None."""
        try:
            async with asyncio.timeout(self._read_timeout):
                item = await self._queue.get()
        except TimeoutError:
            raise self._error("ReadTimeout", "") from None
        if isinstance(item, Exception):
            raise item
        return item

    async def hang_up(self) -> None:
        """The client goes away."""
        self.task.cancel()
        await asyncio.wait([self.task])

    def _error(self, name: str, message: str) -> Exception:
        error: Exception = getattr(self._http, name)(message, request=self._request)
        return error


@cache
def _stream_class(http: Any) -> Any:
    """A response body in the terms of that HTTP library."""

    class Stream(http.AsyncByteStream):  # type: ignore[misc]  # httpx's or httpx2's
        def __init__(self, line: _Line) -> None:
            self._line = line

        async def __aiter__(self) -> AsyncIterator[bytes]:
            while (data := await self._line.receive()) is not _END:
                yield data

        async def aclose(self) -> None:
            await self._line.hang_up()

    return Stream
