"""What a replica computes for a request: its prompt and its answer as tokens, in chained blocks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from agentflow.testing.chat import ChatCall, text_of
from agentflow.testing.replies import Call, Piece, Reply
from agentflow.testing.tokens import tokens
from agentflow.testing.wire import deltas


@dataclass(frozen=True, slots=True)
class Work:
    """What one request asks of an engine.

    Attributes:
        body: The request's JSON body.
        prompt: Tokens of its prompt.
        answer: Tokens of its answer, as they will come back in the next prompt.
        output: How many tokens will be said, at least one.
    """

    body: Mapping[str, Any]
    prompt: Sequence[str]
    answer: Sequence[str]
    output: int

    @classmethod
    def of(cls, call: ChatCall, reply: Reply, room: int) -> Work:
        """What it takes to answer that, up to `room` tokens in all."""
        said = sum(map(_length, reply.pieces)) + len(tokens(reply.refusal))
        if call.max_tokens is not None:
            said = min(said, call.max_tokens)
        prompt = prompt_tokens(call)
        output = max(1, min(said, room - len(prompt)))
        return cls(call.body, prompt, answer_tokens(reply), output)

    def keys(self, block: int, salt: str) -> tuple[list[bytes], list[bytes]]:
        """Keys of the blocks that the prompt fills, and of those the answer fills after it."""
        keys = _chain([*self.prompt, *self.answer], block, salt)
        full = len(self.prompt) // block
        return keys[:full], keys[full:]


def prompt_tokens(call: ChatCall) -> list[str]:
    """The request as a chat template lays it out: tools, messages, and whose turn it is."""
    listed = [token for tool in call.tools for token in _tokens(json.dumps(tool))]
    for message in call.messages:
        listed += message_tokens(message)
    return [*listed, "<assistant>"]


def message_tokens(message: Mapping[str, Any]) -> Iterator[str]:
    """One message, framed so that it is split alike whatever comes before and after."""
    yield f"<{message.get('role')}>"
    yield from _tokens(text_of(message))
    for call in message.get("tool_calls") or ():
        function = call.get("function", {})
        yield f"<call {function.get('name')}>"
        yield from _tokens(str(function.get("arguments", "")))
    yield "<end>"


def answer_tokens(reply: Reply) -> list[str]:
    """The reply as `message_tokens` will show it when it comes back, without its frame."""
    text = "".join(piece for piece in reply.pieces if isinstance(piece, str))
    listed = [*_tokens(text)]
    for piece in reply.pieces:
        if isinstance(piece, Call):
            listed += [f"<call {piece.name}>", *_tokens(piece.arguments_text())]
    return listed


def _chain(listed: Sequence[str], block: int, salt: str) -> list[bytes]:
    """Keys of the full blocks; each stands for all before it too, and for who may share it."""
    keys = []
    last = salt.encode()
    for start in range(0, len(listed) - block + 1, block):
        text = "\0".join(listed[start : start + block])
        last = blake2b(last + b"\0" + text.encode(), digest_size=16).digest()
        keys.append(last)
    return keys


def _length(piece: Piece) -> int:
    return sum(count for _, count in deltas(piece, 0, 1, ""))


@lru_cache(maxsize=1024)
def _tokens(text: str) -> tuple[str, ...]:
    return tuple(tokens(text))
