"""How many tokens a call can take, and how many it took when the backend does not say."""

from __future__ import annotations

import json

from agentflow.executor.models.base import ChatRequest, Message, Usage

PER_MESSAGE = 16
"""Tokens that a chat template may add around one message, on the safe side."""

BYTES_PER_TOKEN = 4
"""UTF-8 bytes in a token of ordinary text, for estimates (never for bounds)."""

_compact = json.JSONEncoder(ensure_ascii=False, default=str).encode
_indented = json.JSONEncoder(ensure_ascii=False, default=str, indent=4).encode


def prompt_bound(request: ChatRequest) -> int:
    """Tokens the input cannot exceed: its UTF-8 bytes plus a constant per message.

    No tokenizer in use makes more than one token of a byte. This holds for text; what a
    picture takes, its backend alone knows.
    """
    return prompt_size(request) + PER_MESSAGE * (len(request.messages) + len(request.tools) + 1)


def estimate(request: ChatRequest, output_bytes: int, output_pieces: int) -> Usage:
    """Tokens of a call whose backend did not say, from what was sent and received.

    Args:
        request: What was sent.
        output_bytes: UTF-8 bytes of text, reasoning and arguments received.
        output_pieces: Streamed pieces received; a piece holds a token or more.
    """
    prompt = -(-prompt_size(request) // BYTES_PER_TOKEN) + PER_MESSAGE * len(request.messages)
    completion = max(output_pieces, -(-output_bytes // BYTES_PER_TOKEN))
    return Usage(prompt, completion, None, estimated=True)


def prompt_size(request: ChatRequest) -> int:
    """UTF-8 bytes of what is sent as input."""
    texts: list[str] = []
    others: list[Message] = []
    for message in request.messages:
        content = message.get("content")
        if len(message) == 2 and isinstance(content, str):
            texts.append(content)  # templates put it in as it is
        else:
            others.append(message)
    if others:
        texts.append(_compact(others))  # at once: a conversation has many
    texts += map(_indented, request.tools)  # as some templates print them
    texts.append(_indented(request.response_format or ""))
    return sum(map(_bytes, texts))


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
