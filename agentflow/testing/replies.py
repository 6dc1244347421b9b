"""What a scripted model answers: replies, replies that go wrong, and bytes as they are."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from agentflow.testing.chat import ChatCall

HTML = "<!doctype html><html><head><title>Bad gateway</title></head><body>502</body></html>"


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call the model makes.

    Attributes:
        name: Name of the tool.
        arguments: The arguments, or their text exactly as it is to be sent (broken JSON too).
        id: Its ``tool_call_id``; made up when None.
    """

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)
    id: str | None = None

    def arguments_text(self) -> str:
        """The arguments as they are sent."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


Piece: TypeAlias = "str | Call"
"""A part of a reply: text, or a tool call."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast tokens come, on the loop's clock.

    Attributes:
        first_token: Seconds from the request to the first token.
        per_token: Seconds from each token to the next.
        tokens_per_chunk: Tokens sent together when streaming.
    """

    first_token: float = 0.0
    per_token: float = 0.0
    tokens_per_chunk: int = 1


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts to report instead of the counted ones; `cached_tokens` is left out if None."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = 0


class Reply:
    """What the model says to one request: pieces of text and calls, in order.

    A plain string or `Call` is short for a reply of that one piece.

    Args:
        pieces: Text and calls, in the order they are sent.
        refusal: The model declines with this text.
        finish_reason: Instead of ``stop`` or ``tool_calls``.
        usage: Instead of the counted usage.
        pace: Instead of the server's.
    """

    __slots__ = ("finish_reason", "pace", "pieces", "refusal", "usage")

    def __init__(
        self,
        *pieces: Piece,
        refusal: str = "",
        finish_reason: str | None = None,
        usage: Usage | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.pieces = pieces
        self.refusal = refusal
        self.finish_reason = finish_reason
        self.usage = usage
        self.pace = pace


@dataclass(frozen=True, slots=True)
class Raw:
    """An HTTP answer sent byte for byte.

    Attributes:
        body: The bytes.
        status: HTTP status.
        content_type: Of the body.
        headers: Further headers.
        split: Send the body in pieces of this many bytes; by default one SSE event at a time.
    """

    body: bytes
    status: int = 200
    content_type: str = "text/event-stream"
    headers: Mapping[str, str] = field(default_factory=dict)
    split: int | None = None

    @classmethod
    def transcript(cls, path: str | Path, *, split: int | None = None) -> Raw:
        """Replay a recorded SSE stream from a file."""
        return cls(Path(path).read_bytes(), split=split)

    def chunks(self) -> list[bytes]:
        """The body as it is sent."""
        if self.split is not None:
            return [self.body[i : i + self.split] for i in range(0, len(self.body), self.split)]
        events = self.body.split(b"\n\n")
        return [event + b"\n\n" for event in events[:-1]] + [
            event for event in events[-1:] if event
        ]


_FILLER = Reply("one two three four five six seven eight nine ten")

FaultKind = Literal["cut", "stall", "garbage", "unfinished", "error"]


@dataclass(frozen=True, slots=True)
class Fault:
    """A reply that goes wrong on its way; made by the class methods.

    Attributes:
        kind: What happens.
        after: Content chunks sent before it happens (the role chunk is not counted), or None:
            before anything is sent. Without streaming, nothing is sent before it happens.
        reply: What would have been said.
        message: Text of an ``error`` event.
    """

    kind: FaultKind
    after: int | None = None
    reply: Reply = _FILLER
    message: str = ""

    @classmethod
    def cut(cls, *pieces: Piece, after: int) -> Fault:
        """The connection breaks after that many chunks."""
        return _fault("cut", after, pieces)

    @classmethod
    def stall(cls, *pieces: Piece, after: int) -> Fault:
        """Nothing further comes after that many chunks, until the client goes away."""
        return _fault("stall", after, pieces)

    @classmethod
    def garbage(cls, *pieces: Piece, after: int) -> Fault:
        """An event that is not JSON comes after that many chunks, then the rest."""
        return _fault("garbage", after, pieces)

    @classmethod
    def unfinished(cls, *pieces: Piece, after: int = 1_000_000) -> Fault:
        """The stream ends cleanly, but without ``finish_reason`` and ``[DONE]``."""
        return _fault("unfinished", after, pieces)

    @classmethod
    def error(cls, message: str, *pieces: Piece, after: int) -> Fault:
        """An ``error`` event ends the stream after that many chunks."""
        return _fault("error", after, pieces, message)

    @classmethod
    def hang_up(cls) -> Fault:
        """The connection is closed without an answer."""
        return cls("cut")

    @classmethod
    def silence(cls) -> Fault:
        """The request is taken and never answered."""
        return cls("stall")

    @staticmethod
    def status(
        status: int,
        message: str = "",
        *,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Raw:
        """An HTTP error with the API's JSON body; `retry_after` is in seconds."""
        extra = dict(headers or {})
        if retry_after is not None:
            extra["retry-after"] = f"{retry_after:g}"
        body = error_body(message or f"scripted {status}", status)
        return Raw(body, status, "application/json", extra)

    @staticmethod
    def html(status: int = 200, body: str = HTML) -> Raw:
        """A web page, as a proxy or a wrong base URL gives."""
        return Raw(body.encode(), status, "text/html; charset=utf-8")


def _fault(kind: FaultKind, after: int, pieces: Sequence[Piece], message: str = "") -> Fault:
    if pieces:
        return Fault(kind, after, Reply(*pieces), message)
    return Fault(kind, after, message=message)


def error_body(message: str, status: int) -> bytes:
    """The JSON body of an API error."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return json.dumps({"error": {"message": message, "type": kind, "code": status}}).encode()


Answer: TypeAlias = "str | Call | Reply | Fault | Raw"
"""What a scripted model may answer."""

Model: TypeAlias = Callable[[ChatCall], "Answer | Awaitable[Answer] | AsyncIterator[Piece]"]
"""A function from the request to the answer, at once, later, or piece by piece."""
