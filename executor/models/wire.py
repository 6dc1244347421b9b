"""The chat-completions wire format: a request's arguments, and the pieces in one chunk of a reply."""

from __future__ import annotations

import json
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


def repeated(first: Any, fields: Mapping[str, Any]) -> Any:
    """An HTTP request like the first one, with the body that these `arguments` make."""
    body = {"model": fields["model"], "stream": True, **fields["extra_body"]}
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    headers = [(k, v) for k, v in first.headers.multi_items() if k != "content-length"]
    return type(first)(
        first.method,
        first.url,
        headers=headers,
        content=content.encode(),
        extensions=dict(first.extensions),
    )


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
