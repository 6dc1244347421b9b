"""The chat-completions wire format: a request's arguments, and the pieces in one chunk of a reply."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from agentflow.executor.models.base import (
    CallPiece,
    ChatRequest,
    Delta,
    ReasoningPiece,
    RefusalPiece,
    TextPiece,
    Usage,
)


def arguments(request: ChatRequest, *, model: str, max_tokens_field: str) -> dict[str, Any]:
    """The keyword arguments of ``chat.completions.create`` for a streamed reply.

    The body goes through ``extra_body``, which the client sends as it is: what comes through
    its own parameters it walks through and copies first, at 0.15 ms a message.
    """
    body: dict[str, Any] = {
        "messages": request.messages,
        "stream_options": {"include_usage": True},
        max_tokens_field: request.max_tokens,
        "tools": request.tools,
        "tool_choice": request.tool_choice,
        "response_format": request.response_format,
        "temperature": request.temperature,
        "stop": request.stop,
        "seed": request.seed,
    }
    given = {name: value for name, value in body.items() if value not in (None, (), [])}
    return {
        "model": request.model or model,
        "messages": (),
        "stream": True,
        "extra_body": {**given, **(request.extra_body or {})},
        "extra_headers": request.extra_headers,
    }


_HALVES = re.compile("[\ud800-\udfff]")
_COMMON = frozenset(
    ("accept", "accept-encoding", "authorization", "connection", "content-type", "host",
     "openai-organization", "openai-project", "user-agent")
)  # fmt: skip
"""Headers that openai's client or its HTTP library send with every request, beside its own."""


class Template:
    """What the later requests of a client have in common with the first that was sent.

    Args:
        first: The request that openai's client made.
        headers: The headers of every request.
    """

    __slots__ = ("_first", "_headers")

    def __init__(self, first: Any, headers: list[tuple[str, str]]) -> None:
        self._first = first
        self._headers = headers

    @classmethod
    def of(cls, first: Any, extra: Mapping[str, str] | None) -> Template | None:
        """Made from the first request; None if `extra`, which only it had, may hide a header."""
        own = {name.lower() for name in extra or ()}
        if not own.isdisjoint(_COMMON) or any(name.startswith("x-stainless") for name in own):
            return None
        headers = first.headers.multi_items()
        return cls(first, [(k, v) for k, v in headers if k != "content-length" and k not in own])

    def request(self, fields: Mapping[str, Any]) -> Any:
        """The HTTP request that these `arguments` make."""
        body = {"model": fields["model"], "stream": True, **fields["extra_body"]}
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        if not content.isascii():
            content = sound(content)
        first, extra = self._first, fields["extra_headers"] or {}
        own = {name.lower() for name in extra}
        headers = [pair for pair in self._headers if pair[0] not in own]
        return type(first)(
            first.method,
            first.url,
            headers=[*headers, *extra.items()],
            content=content.encode(),
            extensions=dict(first.extensions),
        )


def whole(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A body without halves of surrogate pairs, which tools may give and UTF-8 does not have."""
    text = json.dumps(body, ensure_ascii=False)
    changed = sound(text)
    made: Mapping[str, Any] = body if changed == text else json.loads(changed)
    return made


def sound(text: str) -> str:
    """A text without halves of surrogate pairs."""
    return _HALVES.sub("\ufffd", text)


def pieces(delta: Mapping[str, Any]) -> list[Delta]:
    """The pieces in the ``delta`` of a chunk's choice.

    Raises:
        TypeError: A text is not a text.
    """
    out: list[Delta] = []
    if reasoning := delta.get("reasoning_content") or delta.get("reasoning"):
        out.append(ReasoningPiece(_text(reasoning)))
    if text := delta.get("content"):
        out.append(TextPiece(_text(text)))
    if refusal := delta.get("refusal"):
        out.append(RefusalPiece(_text(refusal)))
    if calls := delta.get("tool_calls"):
        out.extend(_call_piece(call, position) for position, call in enumerate(calls))
    return out


def usage(chunk: Mapping[str, Any]) -> Usage | None:
    """The tokens a chunk reports, or None."""
    counts = chunk.get("usage")
    if not counts or counts.get("prompt_tokens") is None:
        return None
    return Usage(
        prompt_tokens=int(counts["prompt_tokens"]),
        completion_tokens=int(counts.get("completion_tokens") or 0),
        cached_tokens=_cached(counts, chunk.get("timings") or {}),
    )


def failure(chunk: Any) -> Mapping[str, Any] | None:
    """The error object that a payload carries instead of a chunk, or None."""
    if not isinstance(chunk, Mapping):
        return None
    error = chunk.get("error")
    if isinstance(error, Mapping):
        return error
    if error:
        return {"message": str(error)}
    return chunk if chunk.get("object") == "error" else None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} where text belongs")
    return value


def _call_piece(call: Mapping[str, Any], position: int) -> CallPiece:
    function = call.get("function") or {}
    arguments = function.get("arguments")
    if arguments is None:
        arguments = ""
    elif not isinstance(arguments, str):  # some servers send the object itself
        arguments = json.dumps(arguments)
    index = call.get("index")
    return CallPiece(
        index if isinstance(index, int) else position,
        call.get("id") or None,
        function.get("name") or None,
        arguments,
    )


def _cached(counts: Mapping[str, Any], timings: Mapping[str, Any]) -> int | None:
    details = counts.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens", timings.get("cache_n"))
    return None if cached is None else int(cached)
