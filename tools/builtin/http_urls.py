"""URLs as `http_get` reads them, and as it shows them: without what may be secret."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote

from agentflow.errors import AgentflowError

if TYPE_CHECKING:
    import httpx

Origin: TypeAlias = "tuple[str, bytes, int]"
"""Scheme, host as it is sent, and port."""

_SHOWN = 200  # characters of a URL
_HOST = re.compile(r"\s*[a-z][a-z0-9+.-]*://[^/?#]*(?=[/?#])", re.IGNORECASE)


class FetchFailed(AgentflowError, OSError):
    """A page could not be had.

    Attributes:
        url: Without credentials and query.
    """

    def __init__(self, message: str, *, url: str) -> None:
        self.url = url
        super().__init__(f"{url}: {message}")


def parse(text: str, base: httpx.URL | None = None) -> httpx.URL:
    """Read a URL, or one that is relative to another.

    Raises:
        FetchFailed: It is none, or nothing that can be fetched.
    """
    import httpx

    try:
        url = httpx.URL(text) if base is None else base.join(text)
    except (httpx.InvalidURL, ValueError):
        raise FetchFailed("this is not a URL", url=_redacted(text)) from None
    if url.scheme not in ("http", "https") or not url.host:
        message = "only absolute http:// and https:// URLs can be fetched"
        raise FetchFailed(message, url=_redacted(text))
    if not 0 < port_of(url) < 2**16:
        raise FetchFailed("there is no such port", url=shown(url))
    return url


def up_to_host(begun: str) -> str | None:
    """What a URL says up to the end of its host and port, if that has come already."""
    found = _HOST.match(begun)
    return found and found[0]


def shown(url: httpx.URL) -> str:
    """A URL as messages show it."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))[:_SHOWN]


def port_of(url: httpx.URL) -> int:
    """The port, also where it is left out."""
    usual = 443 if url.scheme == "https" else 80
    return usual if url.port is None else url.port


def origin_of(url: httpx.URL) -> Origin:
    """What has to be equal for two URLs to share a connection."""
    return url.scheme, url.raw_host, port_of(url)


def authorization(url: httpx.URL) -> dict[str, str]:
    """The header that carries the credentials in a URL, if there are any."""
    if not url.userinfo:
        return {}
    user, _, password = url.userinfo.decode("ascii").partition(":")
    given = f"{unquote(user)}:{unquote(password)}".encode()
    return {"Authorization": f"Basic {base64.b64encode(given).decode('ascii')}"}


def _redacted(text: str) -> str:
    """A text that may be a URL, without what may be credentials."""
    return re.sub(r"(?s)//.*@", "//", text.partition("?")[0])[:_SHOWN]
