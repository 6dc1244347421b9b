"""How many tokens a call can take, and how many it took when the backend does not say."""

from __future__ import annotations

import json
from typing import Any

from agentflow.executor.models.base import ChatRequest, Usage

PER_MESSAGE = 16
"""Tokens that a chat template may add around one message, on the safe side."""

BYTES_PER_TOKEN = 4
"""UTF-8 bytes in a token of ordinary text, for estimates (never for bounds)."""


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
    parts = [*request.messages, *request.tools, request.response_format or ""]
    return sum(_size(part) for part in parts)


def _size(part: Any) -> int:
    """Bytes of a part as JSON; indented, because some chat templates print tools that way."""
    if isinstance(part, dict) and part.keys() == {"role", "content"}:
        content = part["content"]
        if isinstance(content, str):  # a template puts it in as it is
            return len(content.encode("utf-8", "surrogatepass"))
    text = json.dumps(part, ensure_ascii=False, indent=4, default=str)
    return len(text.encode("utf-8", "surrogatepass"))
