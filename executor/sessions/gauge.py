"""How many tokens a prompt probably has, and how many it may have."""

from __future__ import annotations

from agentflow.executor.models.base import ChatRequest, Usage
from agentflow.executor.models.usage import prompt_size

FIRST = 3.0
"""UTF-8 bytes of a prompt in one token, until a backend has said: rather too few."""

MARGIN = 1.05
"""What an estimate may be wrong by, as a factor."""

SHORTER = 0.8
"""Of a prompt that was refused as too long, by a server that does not say what it takes, the share
that is taken to fit."""


class Gauge:
    """Measures prompts of one conversation.

    Args:
        window: Tokens of prompt and reply together that the model takes; None if not known.
        bytes_per_token: As it was learnt.

    Attributes:
        window: As given, or as a backend has said since.
        bytes_per_token: Of the last prompt whose tokens were counted by a backend.
    """

    def __init__(self, window: int | None = None, bytes_per_token: float = FIRST) -> None:
        self.window = window
        self.bytes_per_token = bytes_per_token

    def tokens(self, request: ChatRequest) -> float:
        """Tokens of a prompt, rather too many."""
        return MARGIN * prompt_size(request) / self.bytes_per_token

    def learn(self, request: ChatRequest, used: Usage) -> None:
        """A reply came, and its backend has perhaps said what the prompt took."""
        if not used.estimated and used.prompt_tokens:
            self.bytes_per_token = max(1.0, prompt_size(request) / used.prompt_tokens)

    def refused(self, request: ChatRequest, window: int | None) -> None:
        """A request was too long for its backend, which takes so many tokens if it has said."""
        if window is None:
            window = int(SHORTER * self.tokens(request)) + request.max_tokens
        elif (room := window - request.max_tokens) > 0:  # which its prompt exceeds
            self.bytes_per_token = min(self.bytes_per_token, max(1.0, prompt_size(request) / room))
        self.window = window if self.window is None else min(window, self.window)

    def room(self, request: ChatRequest) -> float | None:
        """Tokens that its prompt may have beside the reply; None if that is not known."""
        return None if self.window is None else float(self.window - request.max_tokens)
