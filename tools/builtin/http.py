"""`http_get`: fetch a page from the internet, and from nowhere else.

Each hop of a redirect is looked at anew: its name is resolved, every address it has is
checked, and the connection goes to the address that was checked, with the name in ``Host`` and
in the TLS handshake. A name that changes its address in between changes nothing.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from email.message import Message
from typing import TYPE_CHECKING, Any

from agentflow.clock import seconds
from agentflow.context import Context
from agentflow.tools.builtin.addresses import AddressPolicy
from agentflow.tools.builtin.http_connect import (
    Answer,
    Connector,
    Limits,
    Resolver,
    system_resolver,
)
from agentflow.tools.builtin.http_urls import (
    FetchFailed,
    authorization,
    origin_of,
    parse,
    shown,
)
from agentflow.tools.builtin.http_warm import Contacts, Ready, Warmer
from agentflow.tools.streaming import Stream, Warm
from agentflow.tools.tool import Tool, tool

if TYPE_CHECKING:
    import ssl

    import httpx

__all__ = ["FetchFailed", "Page", "http_tools"]

_REDIRECTS = (301, 302, 303, 307, 308)
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset=[\"']?([\w-]{1,20})", re.IGNORECASE)
_CHARSETS = re.compile(  # others take quadratic time (punycode), or are no text at all
    r"utf-?8|utf-?16(le|be)?|(us-)?ascii|latin-?1|iso-?8859-\d+|windows-?125\d|cp\d+|koi8-[ru]"
    r"|gbk|gb2312|gb18030|big5|euc-(jp|kr)|shift_jis|iso-2022-jp",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Page:
    """What a server answered; a status of 400 and more is an answer too.

    Attributes:
        url: Where it came from after redirects, without credentials.
        status: HTTP status.
        content_type: Media type without parameters, such as ``text/html``; may be empty.
        text: The body as text; empty when it is binary.
        bytes: Length of the body that was read, decompressed.
        truncated: Whether the body is longer.
    """

    url: str
    status: int
    content_type: str
    text: str
    bytes: int
    truncated: bool


def http_tools(
    *,
    allow_private: bool = False,
    allow: Iterable[str] = (),
    origins: Iterable[str] = (),
    max_bytes: int = 2**20,
    max_redirects: int = 5,
    timeout: float | str = "30s",
    connect_timeout: float | str = "10s",
    idle_timeout: float | str = "10s",
    resolver: Resolver | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> tuple[Tool[..., Any], ...]:
    """`http_get` with these limits.

    It connects while a model still writes the URL, as soon as the host is complete, if the run
    has fetched from that origin before or it is one of `origins`.

    Args:
        allow_private: Whether loopback and private networks may be reached.
        allow: Networks that may be reached besides, such as ``10.1.0.0/16``.
        origins: Such as ``https://api.example.com``: connected to before a call is certain.
        max_bytes: Length of a body, decompressed; what is longer is cut.
        max_redirects: Redirects followed.
        timeout: Seconds (or ``"30s"``) for everything.
        connect_timeout: Seconds to connect to one address.
        idle_timeout: Seconds the server may be silent.
        resolver: Gives the addresses of a name; the system's by default.
        ssl_context: Which servers are trusted; httpx's default.

    Raises:
        DefinitionError: `allow` holds what is no network, or `origins` what is no origin.
    """
    limits = Limits(
        max_bytes, max_redirects, seconds(timeout), seconds(connect_timeout), seconds(idle_timeout)
    )
    policy = AddressPolicy(allow_private, allow)
    connector = Connector(policy, limits, resolver or system_resolver, ssl_context)
    contacts = Contacts(origins)
    warmer = Warmer(connector, contacts, limits.connect)
    return (_http_get(Fetcher(connector, limits, contacts), warmer, limits.total + 5),)


def _http_get(fetcher: Fetcher, warmer: Warmer, timeout: float) -> Tool[..., Any]:
    @tool(reads="web", timeout=timeout)
    async def http_get(url: str, *, ctx: Context, ready: Warm[Ready]) -> Page:
        """Fetch a page by its http or https URL; redirects are followed."""
        return await fetcher.fetch(url, ready, ctx.run)

    @http_get.warm
    async def connect(url: Stream[str], ctx: Context) -> AsyncIterator[Ready]:
        async with warmer.connected(url, ctx.run) as ready:
            yield ready

    return http_get


class Fetcher:
    """Fetches pages within limits; every connection serves one request."""

    def __init__(self, connector: Connector, limits: Limits, contacts: Contacts) -> None:
        self._connector = connector
        self._limits = limits
        self._contacts = contacts

    async def fetch(self, url: str, ready: Ready, run: str) -> Page:
        """Fetch a page, following redirects.

        Args:
            url: As it was written.
            ready: May hold a connection that has been made already.
            run: Id of the run, which knows the origin from now on.

        Raises:
            AddressRefused: It, or a redirect, leads to an address that is not allowed.
            FetchFailed: It is no URL, or the server cannot be reached or breaks off.
        """
        import httpcore

        target = parse(url)
        try:
            async with asyncio.timeout(self._limits.total):
                return await self._follow(target, ready, run)
        except TimeoutError:
            message = f"no complete answer within {self._limits.total:g} s"
            raise FetchFailed(message, url=shown(target)) from None
        except (
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.TimeoutException,
        ) as error:
            raise FetchFailed(_explain(error), url=shown(target)) from error

    async def _follow(self, target: httpx.URL, ready: Ready, run: str) -> Page:
        origin, credentials = origin_of(target), authorization(target)
        for _ in range(self._limits.max_redirects + 1):
            headers = credentials if origin_of(target) == origin else {}
            async with aclosing(await self._ask(target, headers, ready)) as answer:
                self._contacts.add(run, origin)
                location = answer.headers.get("location")
                if answer.status not in _REDIRECTS or location is None:
                    return await self._page(target, answer)
            target = parse(location, base=target)
        message = f"more than {self._limits.max_redirects} redirects"
        raise FetchFailed(message, url=shown(target))

    async def _ask(self, target: httpx.URL, headers: dict[str, str], ready: Ready) -> Answer:
        """The head of the answer, over the connection that is ready or a new one."""
        import httpcore

        stream = await ready.take(target)
        if stream is not None:
            # The server may have closed it meanwhile; a GET may be sent twice.
            with suppress(httpcore.ReadError, httpcore.WriteError, httpcore.RemoteProtocolError):
                return await self._connector.send(target, headers, stream)
        return await self._connector.send(target, headers, await self._connector.connect(target))

    async def _page(self, target: httpx.URL, answer: Answer) -> Page:
        try:
            body, truncated = await self._body(answer)
        except zlib.error:
            message = "the compressed body is damaged"
            raise FetchFailed(message, url=shown(target)) from None
        declared = Message()
        declared["content-type"] = answer.headers.get("content-type", "")
        return Page(
            url=str(target.copy_with(userinfo=b"")),
            status=answer.status,
            content_type=str(declared["content-type"]).partition(";")[0].strip(),
            text=_text(body, declared.get_content_charset()),
            bytes=len(body),
            truncated=truncated,
        )

    async def _body(self, answer: Answer) -> tuple[bytes, bool]:
        """The body, decompressed no further than the limit, and whether there is more."""
        limit = self._limits.max_bytes
        inflate = _inflater(answer)
        body = bytearray()
        async for chunk in answer.body:
            body += inflate.decompress(chunk, limit + 1 - len(body)) if inflate else chunk
            if len(body) > limit:
                return bytes(body[:limit]), True
        return bytes(body), inflate is not None and not inflate.eof and len(body) > 0


def _inflater(answer: Answer) -> Any:
    """What decompresses the body step by step; None where there is nothing to decompress."""
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(wbits=47)  # gzip and zlib headers are told apart
    raise zlib.error(encoding)


def _text(body: bytes, declared: str | None) -> str:
    sniffed = _META_CHARSET.search(body[:2048])
    charset = declared or (sniffed[1].decode("ascii") if sniffed else "utf-8")
    if not _CHARSETS.fullmatch(charset):
        charset = "utf-8"
    if b"\0" in body and not charset.lower().startswith("utf-16"):
        return ""
    try:
        return body.decode(charset, "replace")
    except LookupError:
        return body.decode("utf-8", "replace")


def _explain(error: Exception) -> str:
    """What happened, in words; httpcore's own text is often empty."""
    import httpcore

    if isinstance(error, httpcore.ConnectTimeout):
        return "could not connect in time"
    if isinstance(error, httpcore.TimeoutException):
        return "the server fell silent"
    if isinstance(error, httpcore.ConnectError):
        return f"could not connect: {error}"
    return f"the answer broke off: {error}" if str(error) else "the answer broke off"
