"""`http_get`: fetch a page from the internet, and from nowhere else.

Each hop of a redirect is looked at anew: its name is resolved, every address it has is
checked, and the connection goes to the address that was checked, with the name in ``Host`` and
in the TLS handshake. A name that changes its address in between changes nothing.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote

from agentflow.clock import seconds
from agentflow.errors import AgentflowError
from agentflow.tools.builtin.addresses import AddressPolicy, check_spelling
from agentflow.tools.tool import Tool, tool

if TYPE_CHECKING:
    import ssl

    import httpx

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the addresses of a host name, for a port."""

MAX_ADDRESSES = 4
"""Addresses of one name that are tried."""

_REDIRECTS = (301, 302, 303, 307, 308)
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset=[\"']?([\w-]{1,20})", re.IGNORECASE)
_CHARSETS = re.compile(  # others take quadratic time (punycode), or are no text at all
    r"utf-?8|utf-?16(le|be)?|(us-)?ascii|latin-?1|iso-?8859-\d+|windows-?125\d|cp\d+|koi8-[ru]"
    r"|gbk|gb2312|gb18030|big5|euc-(jp|kr)|shift_jis|iso-2022-jp",
    re.IGNORECASE,
)


class FetchFailed(AgentflowError, OSError):
    """A page could not be had.

    Attributes:
        url: Without credentials and query.
    """

    def __init__(self, message: str, *, url: str) -> None:
        self.url = url
        super().__init__(f"{url}: {message}")


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


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a fetch may take: decompressed bytes, redirects, and seconds."""

    max_bytes: int
    max_redirects: int
    total: float
    connect: float
    idle: float


def http_tools(
    *,
    allow_private: bool = False,
    allow: Iterable[str] = (),
    max_bytes: int = 2**20,
    max_redirects: int = 5,
    timeout: float | str = "30s",
    connect_timeout: float | str = "10s",
    idle_timeout: float | str = "10s",
    resolver: Resolver | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> tuple[Tool[..., Any], ...]:
    """`http_get` with these limits.

    Args:
        allow_private: Whether loopback and private networks may be reached.
        allow: Networks that may be reached besides, such as ``10.1.0.0/16``.
        max_bytes: Length of a body, decompressed; what is longer is cut.
        max_redirects: Redirects followed.
        timeout: Seconds (or ``"30s"``) for everything.
        connect_timeout: Seconds to connect to one address.
        idle_timeout: Seconds the server may be silent.
        resolver: Gives the addresses of a name; the system's by default.
        ssl_context: Which servers are trusted; httpx's default.

    Raises:
        DefinitionError: `allow` holds what is no network.
    """
    limits = Limits(
        max_bytes, max_redirects, seconds(timeout), seconds(connect_timeout), seconds(idle_timeout)
    )
    policy = AddressPolicy(allow_private, allow)
    fetcher = Fetcher(policy, limits, resolver or system_resolver, ssl_context)

    @tool(reads="web", timeout=limits.total + 5)
    async def http_get(url: str) -> Page:
        """Fetch a page by its http or https URL; redirects are followed."""
        return await fetcher.fetch(url)

    return (http_get,)


async def system_resolver(host: str, port: int) -> list[str]:
    """The addresses the system knows for a name, each once."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Fetcher:
    """Fetches pages within limits; every connection is made for one request."""

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
        self._given_context = ssl_context

    async def fetch(self, url: str) -> Page:
        """Fetch a page, following redirects.

        Raises:
            AddressRefused: It, or a redirect, leads to an address that is not allowed.
            FetchFailed: It is no URL, or the server cannot be reached or breaks off.
        """
        import httpx

        target = _parse(url)
        try:
            async with asyncio.timeout(self._limits.total):
                return await self._follow(target)
        except TimeoutError:
            message = f"no complete answer within {self._limits.total:g} s"
            raise FetchFailed(message, url=_shown(target)) from None
        except httpx.HTTPError as error:
            raise FetchFailed(_explain(error), url=_shown(target)) from error

    async def _follow(self, target: httpx.URL) -> Page:
        origin, authorization = _origin(target), _authorization(target)
        for _ in range(self._limits.max_redirects + 1):
            headers = authorization if _origin(target) == origin else {}
            async with self._request(target, headers) as response:
                location = response.headers.get("location")
                if response.status_code not in _REDIRECTS or location is None:
                    return await self._page(target, response)
            target = _parse(location, base=target)
        message = f"more than {self._limits.max_redirects} redirects"
        raise FetchFailed(message, url=_shown(target))

    @asynccontextmanager
    async def _request(
        self, target: httpx.URL, headers: dict[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """Send the request to a checked address of the host; the body is still to be read."""
        import httpx

        limits = self._limits
        addresses = await self._addresses(target)
        # Proxies of the environment would resolve the name themselves: trust_env stays off.
        async with httpx.AsyncClient(
            verify=self._ssl_context,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(limits.idle, connect=limits.connect),
        ) as client:
            response = await self._send(client, target, addresses, headers)
            try:
                yield response
            finally:
                await response.aclose()

    async def _send(
        self,
        client: httpx.AsyncClient,
        target: httpx.URL,
        addresses: Sequence[str],
        headers: dict[str, str],
    ) -> httpx.Response:
        import httpx

        for number, address in enumerate(addresses, start=1):
            request = client.build_request(
                "GET",
                target.copy_with(userinfo=b"", host=address, fragment=None),
                headers={
                    "Host": target.netloc.decode("ascii"),
                    "User-Agent": "agentflow",
                    "Accept-Encoding": "gzip, deflate",
                    **headers,
                },
                extensions={"sni_hostname": target.raw_host.decode("ascii")},
            )
            try:
                return await client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise FetchFailed("the name has no address", url=_shown(target))

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
                found = await self._resolver(host, target.port or _default_port(target))
            except (OSError, UnicodeError):
                raise FetchFailed("the name was not found", url=_shown(target)) from None
        return [str(self._policy.check(each, host)) for each in found][:MAX_ADDRESSES]

    async def _page(self, target: httpx.URL, response: httpx.Response) -> Page:
        try:
            body, truncated = await self._body(response)
        except zlib.error:
            message = "the compressed body is damaged"
            raise FetchFailed(message, url=_shown(target)) from None
        return Page(
            url=str(target.copy_with(userinfo=b"")),
            status=response.status_code,
            content_type=response.headers.get("content-type", "").partition(";")[0].strip(),
            text=_text(body, response.charset_encoding),
            bytes=len(body),
            truncated=truncated,
        )

    async def _body(self, response: httpx.Response) -> tuple[bytes, bool]:
        """The body, decompressed no further than the limit, and whether there is more."""
        limit = self._limits.max_bytes
        inflate = _inflater(response)
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += inflate.decompress(chunk, limit + 1 - len(body)) if inflate else chunk
            if len(body) > limit:
                return bytes(body[:limit]), True
        return bytes(body), inflate is not None and not inflate.eof and len(body) > 0

    @cached_property
    def _ssl_context(self) -> ssl.SSLContext:
        import httpx

        return self._given_context or httpx.create_ssl_context(trust_env=False)


def _parse(text: str, base: httpx.URL | None = None) -> httpx.URL:
    import httpx

    try:
        url = httpx.URL(text) if base is None else base.join(text)
    except (httpx.InvalidURL, ValueError):
        shown = _redacted(text)
        raise FetchFailed("this is not a URL", url=shown) from None
    if url.scheme not in ("http", "https") or not url.host:
        message = "only absolute http:// and https:// URLs can be fetched"
        raise FetchFailed(message, url=_redacted(text))
    return url


def _redacted(text: str) -> str:
    """A text that may be a URL, without what may be credentials."""
    return re.sub(r"//.*@", "//", text.partition("?")[0])[:200]


def _shown(url: httpx.URL) -> str:
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))


def _default_port(url: httpx.URL) -> int:
    return 443 if url.scheme == "https" else 80


def _origin(url: httpx.URL) -> tuple[str, bytes, int]:
    return url.scheme, url.raw_host, url.port or _default_port(url)


def _authorization(url: httpx.URL) -> dict[str, str]:
    if not url.userinfo:
        return {}
    user, _, password = url.userinfo.decode("ascii").partition(":")
    given = f"{unquote(user)}:{unquote(password)}".encode()
    return {"Authorization": f"Basic {base64.b64encode(given).decode('ascii')}"}


def _inflater(response: httpx.Response) -> Any:
    """What decompresses the body step by step; None where there is nothing to decompress."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
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


def _explain(error: httpx.HTTPError) -> str:
    """What happened, in words; httpx's own text is often empty."""
    import httpx

    if isinstance(error, httpx.ConnectTimeout):
        return "could not connect in time"
    if isinstance(error, httpx.TimeoutException):
        return "the server fell silent"
    if isinstance(error, httpx.ConnectError):
        return f"could not connect: {error}"
    return f"the answer broke off: {error}" if str(error) else "the answer broke off"
