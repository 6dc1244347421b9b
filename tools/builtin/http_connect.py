"""Connections to addresses that were checked, and one request over each."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeAlias

from agentflow.tools.builtin.addresses import AddressPolicy, check_spelling
from agentflow.tools.builtin.http_urls import FetchFailed, port_of, shown
from agentflow.tools.builtin.threads import settled

if TYPE_CHECKING:
    import ssl

    import httpcore
    import httpx

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the addresses of a host name, for a port."""

MAX_ADDRESSES = 4
"""Addresses of one name that are tried."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a fetch may take: decompressed bytes, redirects, and seconds."""

    max_bytes: int
    max_redirects: int
    total: float
    connect: float
    idle: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of what a server answers; the body is still to be read.

    Attributes:
        status: HTTP status.
        headers: As they came.
        body: As it comes, compressed if it is.
    """

    status: int
    headers: httpx.Headers
    body: AsyncIterable[bytes]
    _connection: httpcore.AsyncHTTP11Connection

    async def aclose(self) -> None:
        """Close the connection; what was not read of the body is lost."""
        await self._connection.aclose()


class Connector:
    """Connects to hosts, if all of their addresses are allowed.

    Proxies of the environment are not used: they would resolve the name themselves.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        limits: Limits,
        resolver: Resolver,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._policy = policy
        self._limits = limits
        self._resolver = resolver
        self._ssl_context = ssl_context
        self._tls: ssl.SSLContext | None = None

    async def tls(self) -> ssl.SSLContext:
        """What TLS is spoken with; it takes a while to load, once."""
        if self._tls is None:
            self._tls = await settled(_tls, self._ssl_context)
        return self._tls

    async def connect(self, target: httpx.URL) -> httpcore.AsyncNetworkStream:
        """A connection to an address of the host that was checked, with TLS if it needs it.

        Raises:
            AddressRefused: An address of the host is not allowed.
            FetchFailed: The name leads nowhere.
        """
        import httpcore

        addresses = await self._addresses(target)
        for number, address in enumerate(addresses, start=1):
            try:
                return await self._connect_to(address, target)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise FetchFailed("the name has no address", url=shown(target))

    async def send(
        self,
        target: httpx.URL,
        headers: dict[str, str],
        stream: httpcore.AsyncNetworkStream,
    ) -> Answer:
        """Ask for a page over a connection, which this takes over."""
        import httpcore
        import httpx

        idle = self._limits.idle
        request = httpcore.Request(
            "GET",
            httpcore.URL(
                scheme=target.raw_scheme,
                host=target.raw_host,
                port=target.port,
                target=target.raw_path,
            ),
            headers=[
                ("Host", target.netloc),
                ("Accept", "*/*"),
                ("Accept-Encoding", "gzip, deflate"),
                ("User-Agent", "agentflow"),
                *headers.items(),
            ],
            extensions={"timeout": {"read": idle, "write": idle}},
        )
        connection = httpcore.AsyncHTTP11Connection(request.url.origin, stream)
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            await connection.aclose()
            raise
        head = httpx.Headers(response.headers)
        return Answer(response.status, head, response.aiter_stream(), connection)

    async def _addresses(self, target: httpx.URL) -> list[str]:
        """Addresses of the host, all of them allowed.

        One that is not allowed refuses the host: a mixture is how names are made to lead
        to different places.
        """
        host = target.raw_host.decode("ascii")
        check_spelling(host)
        try:
            found: Sequence[str] = [str(ip_address(host))]
        except ValueError:
            try:
                found = await self._resolver(host, port_of(target))
            except (OSError, UnicodeError):
                raise FetchFailed("the name was not found", url=shown(target)) from None
        return [str(self._policy.check(each, host)) for each in found][:MAX_ADDRESSES]

    async def _connect_to(self, address: str, target: httpx.URL) -> httpcore.AsyncNetworkStream:
        import httpcore

        limit = self._limits.connect
        stream = await httpcore.AnyIOBackend().connect_tcp(address, port_of(target), timeout=limit)
        if target.scheme == "http":
            return stream
        try:
            # The certificate is the name's, whatever the address.
            return await stream.start_tls(await self.tls(), target.raw_host.decode(), limit)
        except BaseException:
            await stream.aclose()
            raise


def _tls(given: ssl.SSLContext | None) -> ssl.SSLContext:
    import httpx

    context = given or httpx.create_ssl_context(trust_env=False)
    context.set_alpn_protocols(["http/1.1"])
    return context


async def system_resolver(host: str, port: int) -> list[str]:
    """The addresses the system knows for a name, each once."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
