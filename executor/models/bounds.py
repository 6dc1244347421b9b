"""How many tokens a prompt can have at most, where a backend has counted its beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agentflow.executor.models.base import ChatRequest, Message, Usage
from agentflow.executor.models.usage import prompt_bound


@dataclass(frozen=True, slots=True)
class _Counted:
    request: ChatRequest
    messages: Sequence[Message]
    tokens: int


class PromptBounds:
    """Bounds on the prompts of conversations with one model.

    A prompt that begins with one that was counted has no more tokens than that one and the bytes
    that are new: messages are tokenized apart from each other.
    """

    def __init__(self) -> None:
        self._counted: dict[str, _Counted] = {}  # the last prompt of each conversation

    def most(self, request: ChatRequest) -> int:
        """Tokens that a prompt cannot exceed."""
        known = None if request.session is None else self._counted.get(request.session.id)
        if known is None or not _same_frame(known.request, request):
            return prompt_bound(request)
        if not (alike := _alike(known.messages, request.messages)):
            return prompt_bound(request)
        new = replace(request, messages=request.messages[alike:], tools=(), response_format=None)
        return min(prompt_bound(request), known.tokens + prompt_bound(new))

    def learn(self, request: ChatRequest, used: Usage) -> None:
        """A prompt was counted, if its backend has said how many tokens it has."""
        if request.session is not None and not used.estimated:
            kept = tuple(request.messages)
            self._counted[request.session.id] = _Counted(request, kept, used.prompt_tokens)


def _same_frame(known: ChatRequest, request: ChatRequest) -> bool:
    """Whether all that is no message stands in both prompts, or perhaps in the first only."""
    choice = request.tool_choice
    return (
        known.tools == request.tools
        and known.response_format == request.response_format
        and (choice == "none" or choice == known.tool_choice)
    )


def _alike(one: Sequence[Message], other: Sequence[Message]) -> int:
    """How many messages both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (mine, its) in pairs if mine != its), min(len(one), len(other)))
