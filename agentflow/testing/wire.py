"""The JSON and SSE of the chat completions API, as servers send it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentflow.testing.replies import Piece, Usage
from agentflow.testing.tokens import tokens

ROLE: Mapping[str, Any] = {"role": "assistant", "content": ""}
DONE = b"data: [DONE]\n\n"
BROKEN = b'data: {"id": "chatcmpl-1", "choices": [{"delta":\n\n'


def sse(data: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


@dataclass(frozen=True, slots=True)
class Completion:
    """What every chunk of one completion repeats.

    Attributes:
        id: The completion's id.
        model: Name of the model that was asked for.
        created: Seconds since the epoch.
    """

    id: str
    model: str
    created: int

    def event(self, delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
        """A chunk of the stream."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return sse({**self._head("chat.completion.chunk"), "choices": [choice]})

    def usage_event(self, usage: Usage) -> bytes:
        """The chunk that ends a stream with ``include_usage``."""
        head = self._head("chat.completion.chunk")
        return sse({**head, "choices": [], "usage": usage_json(usage)})

    def whole(self, message: Mapping[str, Any], finish_reason: str | None, usage: Usage) -> bytes:
        """The body of an answer that is not streamed."""
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        body = {**self._head("chat.completion"), "choices": [choice], "usage": usage_json(usage)}
        return json.dumps(body).encode()

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def usage_json(usage: Usage) -> dict[str, Any]:
    """Token counts as the API reports them."""
    counts = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    if usage.cached_tokens is None:
        return counts
    return {**counts, "prompt_tokens_details": {"cached_tokens": usage.cached_tokens}}


def deltas(
    piece: Piece, index: int, size: int, call_id: str
) -> Iterator[tuple[dict[str, Any], int]]:
    """The deltas of one piece, each with its number of tokens.

    Args:
        piece: Text or a call.
        index: Number of the call in its message.
        size: Tokens per delta.
        call_id: Id of the call, if it has none of its own.
    """
    if isinstance(piece, str):
        for text, count in _grouped(piece, size):
            yield {"content": text}, count
        return
    opening = {"name": piece.name, "arguments": ""}
    head = {"index": index, "id": piece.id or call_id, "type": "function"}
    yield _call_delta({**head, "function": opening}), 1
    for text, count in _grouped(piece.arguments_text(), size):
        yield _call_delta({"index": index, "function": {"arguments": text}}), count


def refusal_deltas(refusal: str, size: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The deltas of a refusal."""
    for text, count in _grouped(refusal, size):
        yield {"refusal": text}, count


class Message:
    """Puts deltas together into the message they spell."""

    def __init__(self) -> None:
        self._text: dict[str, str] = {}
        self._calls: list[dict[str, Any]] = []

    def add(self, delta: Mapping[str, Any]) -> None:
        """Take one more delta."""
        for key in ("content", "refusal"):
            if delta.get(key):
                self._text[key] = self._text.get(key, "") + delta[key]
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                head = {"id": call["id"], "type": "function"}
                self._calls.append({**head, "function": dict(call["function"])})
            else:
                self._calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]

    def json(self) -> dict[str, Any]:
        """The message as the API gives it."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": self._text.get("content"),
            "refusal": self._text.get("refusal"),
        }
        return {**message, "tool_calls": self._calls} if self._calls else message


def _call_delta(call: Mapping[str, Any]) -> dict[str, Any]:
    return {"tool_calls": [call]}


def _grouped(text: str, size: int) -> Iterator[tuple[str, int]]:
    split = tokens(text)
    for start in range(0, len(split), size):
        group = split[start : start + size]
        yield "".join(group), len(group)
