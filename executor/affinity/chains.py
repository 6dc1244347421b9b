"""Requests as prompts: the text a server sees of them, cut into chained blocks."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from agentflow.caches.affinity.dispatcher import FORGET
from agentflow.caches.affinity.prompts import Chain, Prompt
from agentflow.executor.models.base import ChatRequest
from agentflow.executor.models.usage import BYTES_PER_TOKEN

KEPT_BYTES = 64 * 1024 * 1024
"""Bytes of prompts that are kept at most, so that what they begin with is not hashed again."""

MEMORY = 0.98
"""Weight that what was learnt keeps when the next reply comes."""

SEPARATOR = b"\n\n"


def prompt_bytes(request: ChatRequest) -> bytes:
    """A request about as a chat template lays it out: the tools, then the messages.

    Two prompts begin alike about as far as these texts do. The last message is open, because a
    longer one begins alike; keys stand in the order they are sent in, as templates print them.
    """
    return SEPARATOR.join(map(_encoded, _parts(request)))


def _parts(request: ChatRequest) -> list[Mapping[str, Any]]:
    return [*request.tools, *request.messages]


def _encoded(part: Mapping[str, Any]) -> bytes:
    """The text of a tool or of a message."""
    if "role" not in part:
        text = _json(part)
    else:
        rest = {key: value for key, value in part.items() if key not in ("role", "content")}
        content = part.get("content")
        said = content if isinstance(content, str) else "" if content is None else _json(content)
        text = f"{part['role']}:\n{_json(rest) if rest else ''}{said}"
    return text.encode("utf-8", "surrogatepass")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


class _Known:
    """A session's last prompt: its parts, their texts, and all of it as a chain."""

    __slots__ = ("_parts", "_texts", "chain", "size")

    def __init__(self) -> None:
        self.chain = Chain()
        self.size = 0
        self._parts: list[Mapping[str, Any]] = []
        self._texts: list[bytes] = []

    def go_on(self, parts: list[Mapping[str, Any]]) -> None:
        """Take the next prompt in; parts that are the same objects are not encoded again."""
        pairs = zip(self._parts, parts, strict=False)
        same = next((at for at, (old, new) in enumerate(pairs) if old is not new), None)
        kept = min(len(self._parts), len(parts)) if same is None else same
        self._texts = self._texts[:kept] + [_encoded(part) for part in parts[kept:]]
        self._parts = parts
        text = SEPARATOR.join(self._texts)
        self.size = len(text)
        self.chain.extend(text)


class Chains:
    """The prompts of sessions, each as a chain that grows with it.

    Attributes:
        tokens_per_byte: As the replies' token counts say.
    """

    def __init__(self) -> None:
        self.tokens_per_byte = 1.0 / BYTES_PER_TOKEN
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._kept = 0
        self._tokens = self._bytes = 0.0

    def prompt(self, request: ChatRequest, session: str | None) -> tuple[Prompt, int]:
        """The prompt of a request, and the bytes of its text.

        Args:
            request: The request.
            session: Whose prompt is expected to go on with the next one, or None.
        """
        known = self._known.pop(session, None) if session is not None else None
        known = known or _Known()
        before = known.size
        known.go_on(_parts(request))
        if session is not None:
            self._known[session] = known
            self._kept += known.size - before
            self._forget_some()
        return known.chain.prompt(self.tokens_per_byte), known.size

    def learn(self, size: int, tokens: int) -> None:
        """A server counted so many tokens in a text of that size."""
        if size and tokens:
            self._tokens = MEMORY * self._tokens + tokens
            self._bytes = MEMORY * self._bytes + size
            self.tokens_per_byte = self._tokens / self._bytes

    def forget(self, session: str) -> None:
        """A session asks nothing more."""
        if (known := self._known.pop(session, None)) is not None:
            self._kept -= known.size

    def _forget_some(self) -> None:
        while self._kept > KEPT_BYTES or len(self._known) > FORGET:
            _, known = self._known.popitem(last=False)
            self._kept -= known.size
