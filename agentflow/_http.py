"""The HTTP library under the model client: which module it is, one shared client, its errors.

openai 3.x stands on httpx2 and openai 2.x on httpx; both offer the same names. Nothing is
imported before the first call, because openai and its HTTP library take half a second.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any

FAMILIES = ("httpx2", "httpx")
"""Every HTTP library whose errors can reach us (a user may pass a client of either)."""

KINDS = {
    "TimeoutException": "timeout",
    "ConnectTimeout": "connect_timeout",
    "ReadTimeout": "timeout",
    "WriteTimeout": "timeout",
    "PoolTimeout": "pool_timeout",
    "NetworkError": "unreachable",
    "ConnectError": "unreachable",
    "ReadError": "broken",
    "WriteError": "broken",
    "CloseError": "broken",
    "ProtocolError": "broken",
    "RemoteProtocolError": "broken",
    "LocalProtocolError": "misuse",
    "ProxyError": "unreachable",
    "UnsupportedProtocol": "bad_url",
    "InvalidURL": "bad_url",
    "TooManyRedirects": "bad_url",
    "DecodingError": "bad_reply",
    "SSEError": "bad_reply",
    "HTTPStatusError": "bad_reply",
    "CookieConflict": "misuse",
    "StreamError": "misuse",
    "StreamConsumed": "misuse",
    "StreamClosed": "broken",
    "ResponseNotRead": "misuse",
    "RequestNotRead": "misuse",
    "TransportError": "broken",
    "RequestError": "broken",
    "HTTPError": "broken",
}
"""What each error class of both families means, by its name; one table for all of them."""


@cache
def module() -> ModuleType:
    """The HTTP module that the installed openai uses."""
    major = int(version("openai").partition(".")[0])
    return import_module("httpx2" if major >= 3 else "httpx")


def client(*, connect: float | None = 5.0, **options: Any) -> Any:
    """A new ``AsyncClient`` for one engine to share among its model backends.

    It sets no limit on connections and never times out while waiting or reading: callers
    are limited by their own semaphores and watch their own clocks.

    Args:
        connect: Seconds until a connection must be open.
        **options: Anything else that ``AsyncClient`` takes, such as ``transport`` or ``proxy``.
    """
    http = module()
    options.setdefault("timeout", http.Timeout(None, connect=connect))
    options.setdefault("limits", http.Limits(max_connections=None, max_keepalive_connections=256))
    return http.AsyncClient(**options)


def error_kind(error: BaseException) -> str | None:
    """What an error of either HTTP library means (a value of `KINDS`), or None for any other."""
    for cls in type(error).__mro__:
        if cls.__module__.partition(".")[0] in FAMILIES and cls.__name__ in KINDS:
            return KINDS[cls.__name__]
    return None
