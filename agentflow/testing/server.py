"""A small OpenAI-compatible server in the same process, with a script or a function as its model."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

from agentflow.testing.app import ChatApp
from agentflow.testing.chat import Exchange
from agentflow.testing.http1 import HttpConnection
from agentflow.testing.pacing import AtPace
from agentflow.testing.replies import Answer, Model, Pace
from agentflow.testing.transport import Handler, InMemoryTransport


class LocalServer:
    """A server in the same process: over HTTP on 127.0.0.1, and in memory.

    Args:
        app: Answers the chat requests.
        handle: Answers all requests, most of them by handing them to `app`.
        port: Port to listen on; 0 picks a free one.
    """

    def __init__(self, app: ChatApp, handle: Handler, port: int) -> None:
        self._app = app
        self._handle = handle
        self._port = port
        self._listener: socket.socket | None = None  # stays when it is closed
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        """What goes into a client's ``base_url``."""
        if self._listener is None:
            name = type(self).__name__
            raise RuntimeError(f"the server is not running: use 'async with {name}(...)'")
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def requests(self) -> list[Exchange]:
        """Every chat request so far and how it was served, in order of arrival."""
        return self._app.requests

    @property
    def active(self) -> int:
        """Chat requests being answered now."""
        return self._app.active

    @property
    def peak(self) -> int:
        """The most chat requests that were answered at once."""
        return self._app.peak

    def transport(self) -> Any:
        """A transport for ``httpx.AsyncClient`` or ``httpx2.AsyncClient`` that needs no sockets.

        Any base URL that ends in ``/v1`` reaches this server through it.
        """
        return InMemoryTransport(self._handle, self._spawn)

    async def start(self) -> None:
        """Begin to listen."""
        # Not asyncio.start_server: before Python 3.13 its Server loses the connections that came
        # in just before it is closed, and their sockets with them.
        self._listener = listener = socket.create_server(("127.0.0.1", self._port))
        listener.setblocking(False)
        self._port = listener.getsockname()[1]
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    async def aclose(self) -> None:
        """Stop listening, break off what is being answered, and wait until all is gone."""
        self._break_off()
        while self._tasks:
            await asyncio.wait(self._tasks)
            self._break_off()  # a request may have come in between

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _break_off(self) -> None:
        """Listen no longer, and break every connection."""
        self._app.closing = True
        if self._listener is not None and self._listener.fileno() != -1:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
        for task in self._tasks:
            task.cancel()

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it has left again
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)  # pieces go out at once
        serving = self._spawn(self._connected(client))
        serving.add_done_callback(lambda _: client.close())  # it may be cancelled before it begins

    async def _connected(self, client: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=client)
        await HttpConnection(reader, writer, self._handle).serve()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class ScriptedServer(LocalServer):
    """Serves ``/v1/chat/completions``, ``/v1/models`` and ``/health`` on 127.0.0.1.

    Use it as an async context manager::

        async with ScriptedServer(["Hello."]) as server:
            client = AsyncOpenAI(base_url=server.base_url, api_key="unused", max_retries=0)

    Args:
        model: A list of answers, given in order of the requests, or a function from a `ChatCall`
            to an answer, which may be async or an async generator of pieces.
        pace: How fast tokens come, on the loop's clock.
        models: Names that ``/v1/models`` lists.
        port: Port to listen on; 0 picks a free one.
    """

    def __init__(
        self,
        model: Model | Sequence[Answer],
        *,
        pace: Pace = Pace(),
        models: Sequence[str] = ("scripted",),
        port: int = 0,
    ) -> None:
        app = ChatApp(model, AtPace(pace), models)
        super().__init__(app, app.handle, port)
