"""A chat request as a scripted model sees it, and the record of how it was served."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ChatCall:
    """One request to ``/v1/chat/completions``.

    Attributes:
        number: Counts the server's chat requests from 0.
        body: The parsed JSON body.
        headers: Header values by lower-case name.
    """

    number: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        """The conversation, oldest first."""
        messages: Sequence[Mapping[str, Any]] = self.body["messages"]
        return messages

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        """The functions the model may call: name, description, parameters."""
        return [tool["function"] for tool in self.body.get("tools") or () if "function" in tool]

    @property
    def stream(self) -> bool:
        """Whether the client asked for a stream."""
        return bool(self.body.get("stream"))

    @property
    def max_tokens(self) -> int | None:
        """The client's limit on the reply's tokens."""
        limit = self.body.get("max_completion_tokens") or self.body.get("max_tokens")
        return limit if isinstance(limit, int) else None

    def said_by(self, role: str) -> str:
        """The text of all messages of that role, joined by blank lines."""
        return "\n\n".join(text_of(m) for m in self.messages if m.get("role") == role)

    def prompt(self) -> str:
        """The prompt as one text, tools first, as chat templates lay it out."""
        parts = [json.dumps(tool) for tool in self.tools]
        for message in self.messages:
            calls = json.dumps(message["tool_calls"]) if message.get("tool_calls") else ""
            parts.append(f"<{message.get('role')}>{text_of(message)}{calls}")
        return "\n".join(parts)


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message whose content is a string, a list of parts, or absent."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content or () if isinstance(part, dict))


@dataclass(slots=True)
class Exchange:
    """A chat request and how it was served; times are seconds on the loop's clock.

    Attributes:
        call: The request.
        started: When it had been read.
        ended: When the last byte was handed to the connection, or None so far.
        sent: (when, bytes) of everything sent after the headers.
        status: HTTP status, or None when none was sent.
        disconnected: The client went away before the end.
        error: What the model function raised, if it did.
    """

    call: ChatCall
    started: float
    ended: float | None = None
    sent: list[tuple[float, bytes]] = field(default_factory=list)
    status: int | None = None
    disconnected: bool = False
    error: BaseException | None = None

    @property
    def body(self) -> Mapping[str, Any]:
        """The parsed JSON body of the request."""
        return self.call.body

    @property
    def headers(self) -> Mapping[str, str]:
        """The request's header values by lower-case name."""
        return self.call.headers
