"""Connections made while the URL is still being written, to hosts known already."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from agentflow.clock import now
from agentflow.errors import DefinitionError
from agentflow.tools.builtin.http_connect import Connector
from agentflow.tools.builtin.http_urls import FetchFailed, Origin, origin_of, parse, up_to_host
from agentflow.tools.streaming import TextStream

if TYPE_CHECKING:
    import httpcore
    import httpx

K = TypeVar("K")

MAX_AGE = 10.0
"""Seconds after which a connection that carried nothing is not trusted any more."""

MAX_HOST = 2048
"""Characters of a URL in which its host must end."""

MAX_RUNS, MAX_ORIGINS = 256, 64
"""Runs whose origins are remembered, and origins of each."""


class Contacts:
    """Origins that connections may be made to before they are needed.

    Args:
        allowed: Origins such as ``https://api.example.com``.

    Raises:
        DefinitionError: One is no origin.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        if isinstance(allowed, str):
            raise DefinitionError("http_tools(origins=...) takes several: write a list of them")
        self._allowed = frozenset(map(_origin, allowed))
        self._runs: dict[str, dict[Origin, None]] = {}

    def add(self, run: str, origin: Origin) -> None:
        """A run has contacted an origin; of the oldest, some are forgotten."""
        if run:
            origins = self._runs[run] = self._runs.pop(run, {})
            origins[origin] = origins.pop(origin, None)
            _shorten(origins, MAX_ORIGINS)
            _shorten(self._runs, MAX_RUNS)

    def known(self, run: str, origin: Origin) -> bool:
        """Whether it is allowed, or the run has contacted it before."""
        return origin in self._allowed or origin in self._runs.get(run, ())


class Ready:
    """A connection that may have been made already, or is about to be.

    Args:
        connector: Makes it.
    """

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._stream: httpcore.AsyncNetworkStream | None = None
        self._coming: asyncio.Task[None] | None = None
        self._origin: Origin | None = None
        self._since = 0.0

    async def connect(self, target: httpx.URL) -> None:
        """Connect to the host of a URL."""
        self._stream = await self._connector.connect(target)
        self._origin, self._since = origin_of(target), now()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Have a task call `connect`, or not; whoever takes the connection waits for it."""
        self._coming = asyncio.create_task(work)

    async def settled(self) -> None:
        """Wait until there is a connection, or there will be none."""
        if self._coming is not None:
            await asyncio.wait([self._coming])

    async def take(self, target: httpx.URL) -> httpcore.AsyncNetworkStream | None:
        """The connection, if it leads there and is fresh; the taker closes it."""
        await self.settled()
        if self._origin != origin_of(target) or now() - self._since > MAX_AGE:
            return None
        stream, self._stream = self._stream, None
        return stream

    async def aclose(self) -> None:
        """Close it, unless somebody took it."""
        if self._coming is not None:
            self._coming.cancel()
            await self.settled()
        if self._stream is not None:
            await self._stream.aclose()


class Warmer:
    """Connects to hosts that are known while their URLs are being written.

    Args:
        connector: Connects.
        contacts: Says which origins are known.
        limit: Seconds to connect.
    """

    def __init__(self, connector: Connector, contacts: Contacts, limit: float) -> None:
        self._connector = connector
        self._contacts = contacts
        self._limit = limit

    @asynccontextmanager
    async def connected(self, url: TextStream, run: str) -> AsyncIterator[Ready]:
        """What may become a connection, as soon as the host is complete; closed in the end.

        Args:
            url: As the model writes it.
            run: Id of the run.
        """
        ready = Ready(self._connector)
        try:
            ready.begin(self._connect(ready, url, run))
            yield ready
        finally:
            await ready.aclose()

    async def _connect(self, ready: Ready, url: TextStream, run: str) -> None:
        try:
            target = parse(await self._host(url))
            if self._contacts.known(run, origin_of(target)):
                async with asyncio.timeout(self._limit):
                    await ready.connect(target)
        except Exception:  # noqa: BLE001  # whatever it is, the fetch meets it too and says so
            return

    async def _host(self, url: TextStream) -> str:
        """The URL up to the end of its host, once that has come; else all there is."""
        begun = ""
        async for piece in url:
            begun += piece
            if begun.lstrip()[:5].lower() == "https":
                await self._connector.tls()  # it takes a while to load, the first time
            if found := up_to_host(begun):
                return found
            if len(begun) > MAX_HOST:
                return ""
        return begun


def _origin(text: str) -> Origin:
    try:
        url = parse(text)
    except FetchFailed:
        url = None
    if url is None or url.raw_path != b"/" or url.fragment or url.userinfo:
        raise DefinitionError(
            f"http_tools(origins=...): {text!r} is no origin such as 'https://api.example.com'"
        )
    return origin_of(url)


def _shorten(remembered: dict[K, Any], most: int) -> None:
    """Forget what was not used for longest."""
    while len(remembered) > most:
        del remembered[next(iter(remembered))]
