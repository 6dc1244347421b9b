"""Requests that a server refuses for what was added to them: once more, as they were made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields
from typing import Any

from agentflow.errors import BackendError, ContextOverflow
from agentflow.executor.models.attempts import again
from agentflow.executor.models.base import ChatRequest
from agentflow.executor.models.client import OpenAIBackend
from agentflow.executor.models.stream import OpenAIStream

REFUSALS = (400, 422)
"""What servers answer to fields that they do not take."""


@dataclass(slots=True, kw_only=True)
class Dressed(ChatRequest):
    """A request with what its server is told beside it.

    Attributes:
        plain: The request as it was made.
        refused: Called when the server refused this one, and took the plain one.
    """

    plain: ChatRequest
    refused: Callable[[], object]

    @classmethod
    def of(cls, plain: ChatRequest, refused: Callable[[], object], **added: Any) -> Dressed:
        """A request with some fields changed."""
        made = {field.name: getattr(plain, field.name) for field in fields(plain)}
        return cls(**{**made, **added}, plain=plain, refused=refused)


class PlainlyAgain(OpenAIBackend):
    """An endpoint that may accept less than it did when it was asked.

    Whether it refuses a request for what was added is seen by sending it without: what it refuses
    then too is the caller's error. A request that is refused costs nothing.
    """

    @asynccontextmanager
    async def stream(
        self, request: ChatRequest, *, started: float | None = None, attempts: int = 0
    ) -> AsyncIterator[OpenAIStream]:
        """Start a call; the block is entered when the first piece is there.

        Raises:
            BackendError: No attempt gave a piece; iterating raises what goes wrong later.
        """
        async with AsyncExitStack() as stack:
            try:
                call = super().stream(request, started=started, attempts=attempts)
                stream = await stack.enter_async_context(call)
            except BackendError as error:
                refused = error.status in REFUSALS and not isinstance(error, ContextOverflow)
                if not (refused and isinstance(request, Dressed)):
                    raise
                refusal = error  # the next attempt begins outside: errors look at their context
            else:
                yield stream
                return
            again(refusal)
            call = super().stream(request.plain, started=started, attempts=attempts + 1)
            stream = await stack.enter_async_context(call)
            request.refused()
            yield stream
