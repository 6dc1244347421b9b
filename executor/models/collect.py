"""Adds up the chunks of one streamed reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from agentflow.executor.models import wire
from agentflow.executor.models.base import (
    CallPiece,
    ChatRequest,
    Delta,
    ReasoningPiece,
    RefusalPiece,
    Reply,
    TextPiece,
    Usage,
)
from agentflow.executor.models.calls import CallTexts
from agentflow.executor.models.usage import estimate


class Collected:
    """What has been received of a reply so far.

    Attributes:
        finish_reason: None until the backend has given one.
    """

    __slots__ = ("_calls", "_count", "_model", "_reasoning", "_refusal", "_request", "_text",
                 "_usage", "finish_reason")  # fmt: skip

    def __init__(self, request: ChatRequest) -> None:
        self.finish_reason: str | None = None
        self._request = request
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._calls = CallTexts()
        self._count = 0
        self._usage: Usage | None = None
        self._model = ""

    def add(self, chunk: Mapping[str, Any]) -> Sequence[Delta]:
        """Take one chunk in, and give its pieces.

        Raises:
            TypeError, AttributeError, ValueError, LookupError: It has not the API's shape.
        """
        if (counts := wire.usage(chunk)) is not None:
            self._usage = counts
        self._model = self._model or chunk.get("model") or ""
        if not (choices := chunk.get("choices")):
            return ()
        choice = choices[0]
        if reason := choice.get("finish_reason"):
            self.finish_reason = reason
        if not (delta := choice.get("delta")):
            return ()
        found = wire.pieces(delta)
        for piece in found:
            self._keep(piece)
        return found

    def usage(self) -> Usage:
        """Tokens: as the backend said, else estimated from what was sent and received."""
        if self._usage is not None:
            return self._usage
        texts = [*self._text, *self._reasoning, *self._refusal]
        texts += [call.name + call.arguments_text for call in self._calls.calls()]
        size = sum(len(text.encode("utf-8", "replace")) for text in texts)
        return estimate(self._request, size, self._count)

    def reply(self, usage: Usage, usd: Decimal | None, attempts: int) -> Reply:
        """The whole reply, without its times."""
        return Reply(
            text="".join(self._text),
            calls=self._calls.calls(),
            finish_reason=self.finish_reason or "",
            usage=usage,
            refusal="".join(self._refusal) or None,
            reasoning="".join(self._reasoning),
            model=self._model or self._request.model,
            usd=usd,
            attempts=attempts,
        )

    def _keep(self, piece: Delta) -> None:
        self._count += 1
        if isinstance(piece, TextPiece):
            self._text.append(piece.text)
        elif isinstance(piece, CallPiece):
            self._calls.add(piece)
        elif isinstance(piece, ReasoningPiece):
            self._reasoning.append(piece.text)
        elif isinstance(piece, RefusalPiece):
            self._refusal.append(piece.text)
