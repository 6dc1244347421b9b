"""Everything that can go wrong at a model backend, mapped once to our errors.

Sources: the HTTP library's errors (both families, by `agentflow._http.KINDS`), openai's
status errors, error objects inside a stream, and bodies that are not a stream at all.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from agentflow import _http, clock
from agentflow.errors import (
    BackendBusy,
    BackendError,
    BackendRejected,
    BackendTimeout,
    BackendUnreachable,
    BadReply,
    ContextOverflow,
)
from agentflow.executor.models import wire
from agentflow.executor.models.overflow import is_overflow, window_in

QUOTED = 200
"""Characters of an unusable body that a message quotes."""

_KEY = re.compile(r"\bsk-[\w-]{4,}")
_CODES = {"rate_limit_exceeded": 429, "rate_limit_error": 429, "overloaded_error": 503}


def from_exception(error: Exception, url: str) -> BackendError | None:
    """Our error for one of openai's or of the HTTP library's; None if it is neither."""
    response = getattr(error, "response", None)
    if response is not None and _is_openai(error):
        return from_status(response.status_code, response.text, response.headers, url)
    kind = next((k for e in _causes(error) if (k := _http.error_kind(e)) is not None), None)
    if kind is not None:
        return _from_kind(kind, error, url)
    return BackendError(f"{url}: {error}", url=url) if _is_openai(error) else None


def from_status(status: int, text: str, headers: Mapping[str, str], url: str) -> BackendError:
    """Our error for an HTTP status of 400 or more."""
    said = _message_in(text) or quote(text) or "no explanation"
    return _of_status(status, said, url, retry_after(headers), text)


def from_event(error: Mapping[str, Any], url: str) -> BackendError:
    """Our error for an error object that came inside a stream."""
    text = json.dumps({"error": error}, default=str)
    said = _message_in(text) or str(error)
    names = (error.get("code"), error.get("type"), error.get("status"))
    status = next((code for name in names if (code := _status_of(name)) is not None), None)
    if status is None and is_overflow(said):
        status = 400
    if status is None:
        return BackendError(f"{url} failed while answering: {said}", url=url, retryable=True)
    return _of_status(status, said, url, None, text)


def not_a_stream(body: bytes, content_type: str, url: str) -> BackendError:
    """Our error for a body that is not a stream of events, such as HTML or an error object."""
    text = body.decode("utf-8", "replace").strip()
    try:
        error = wire.failure(json.loads(text))
    except (ValueError, RecursionError):
        error = None
    if error is not None:
        return from_event(error, url)
    kind = content_type.partition(";")[0] or "no content type"
    return BadReply(
        f"{url} answered something that is not a streamed chat completion ({kind}): "
        f"{quote(text)!r}. Is this the base URL of an OpenAI-compatible API? It often ends in /v1.",
        url=url,
    )


def quote(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text[: 4 * QUOTED].split())
    return line if len(line) <= QUOTED else line[:QUOTED] + "..."


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait: ``retry-after-ms``, or ``Retry-After`` as number or date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        moment = parsedate_to_datetime(headers.get("retry-after", ""))
    except (TypeError, ValueError):
        return None
    return max(0.0, moment.timestamp() - clock.wall())


def _of_status(
    status: int, said: str, url: str, after: float | None, text: str = ""
) -> BackendError:
    said = _KEY.sub("sk-...", said)  # some servers repeat the key they refuse
    kept: dict[str, Any] = {"url": url, "status": status, "retry_after": after}
    if status in (429, 503, 529):
        when = "" if after is None else f"; it asks to wait {after:g} s"
        # an empty account answers 429 as well, and waiting does not help there
        kept["retryable"] = "insufficient_quota" not in said and "billing" not in said
        return BackendBusy(f"{url} is busy ({status}){when}: {said}", **kept)
    if status in (408, 504):
        return BackendTimeout(f"{url} gave up waiting ({status}): {said}", **kept)
    if status in (400, 413, 422, 500) and is_overflow(said):
        return ContextOverflow(
            f"{url}: prompt and reply are more than the model takes ({status}): {said}",
            window=window_in(said) or window_in(text),  # llama.cpp has it beside its words
            **kept,
        )
    if 400 <= status < 500:
        kept["retryable"] = status == 409
        return BackendRejected(
            f"{url} rejected the request ({status}): {said}{_hint(status)}", **kept
        )
    return BackendError(f"{url} failed ({status}): {said}", retryable=status >= 500, **kept)


def _hint(status: int) -> str:
    if status in (401, 403):
        return ". Check the API key (OPENAI_API_KEY)."
    if status == 404:
        return ". Check the model's name and the base URL, which often ends in /v1."
    return ""


def _from_kind(kind: str, error: Exception, url: str) -> BackendError:
    said = str(error.__cause__ or error) or type(error).__name__
    if kind in ("unreachable", "broken"):
        return BackendUnreachable(_unreachable(kind, said, error, url), url=url)
    if kind == "connect_timeout":
        return BackendTimeout(
            f"{url} did not accept a connection in time: check host and port, and that no "
            f"firewall is between",
            url=url,
        )
    if kind in ("timeout", "pool_timeout"):
        return BackendTimeout(f"{url} did not answer in time ({said})", url=url)
    if kind == "bad_url":
        return BackendRejected(f"{url!r} is not a usable base URL: {said}", url=url)
    if kind == "bad_reply":
        return BadReply(f"{url} answered something unreadable: {said}", url=url)
    return BackendError(f"{url}: {said}", url=url)


def _unreachable(kind: str, said: str, error: BaseException, url: str) -> str:
    for cause in _causes(error):
        if isinstance(cause, ConnectionRefusedError):
            return f"{url} refused the connection: is the server running, and is the port right?"
        if isinstance(cause, socket.gaierror):
            return f"the host name in {url} was not found: check the spelling, and the network"
    if kind == "broken":
        return f"{url} broke the connection off: {said}"
    return f"{url} cannot be reached: {said}. Is the server running, and is the URL right?"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, groups of errors included."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions


def _is_openai(error: BaseException) -> bool:
    return any(cls.__module__.partition(".")[0] == "openai" for cls in type(error).__mro__)


def _message_in(text: str) -> str:
    """The server's own words in an error body: ``error.message``, ``message`` or ``detail``."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(body, dict):
        return ""
    inner = body.get("error")
    if isinstance(inner, str):
        return inner
    holder = inner if isinstance(inner, dict) else body
    said = next((holder[name] for name in ("message", "detail") if holder.get(name)), "")
    code = holder.get("code")
    text = said if isinstance(said, str) else json.dumps(said)
    return f"{text} [{code}]" if isinstance(code, str) and code not in text else text


def _status_of(name: Any) -> int | None:
    if isinstance(name, str):
        name = int(name) if name.isdigit() else _CODES.get(name)
    return name if isinstance(name, int) and 400 <= name <= 599 else None
