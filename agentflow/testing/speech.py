"""Says a reply token by token: pace, counts, limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from typing import Any, Protocol

from agentflow.clock import now
from agentflow.testing.replies import Call, Pace, Piece
from agentflow.testing.wire import ROLE, deltas, refusal_deltas

Delta = dict[str, Any]


class Pacing(Protocol):
    """Says when each token of one reply is due."""

    async def first(self) -> None:
        """Wait until the first token is due."""
        ...

    async def tokens(self, count: int) -> None:
        """Wait until the last of `count` further tokens is due."""
        ...

    def catch_up(self) -> None:
        """Whatever comes next was not known before now."""
        ...


class Pacer:
    """Holds back tokens until they are due, on an absolute schedule that does not drift."""

    def __init__(self, pace: Pace, started: float) -> None:
        self._due = started + pace.first_token
        self._per_token = pace.per_token
        self._said = False

    async def first(self) -> None:
        """Wait until the first token is due."""
        await self._wait()

    async def tokens(self, count: int) -> None:
        """Wait until the last of `count` further tokens is due."""
        self._due += (count if self._said else count - 1) * self._per_token
        self._said = True
        await self._wait()

    def catch_up(self) -> None:
        """Whatever comes next was not known before now."""
        self._due = max(self._due, now())

    async def _wait(self) -> None:
        await asyncio.sleep(max(0.0, self._due - now()))


class Speech:
    """One reply as it is said.

    Args:
        pieces: What to say.
        number: Of the request; it goes into the ids of calls.
        pacer: Says when.
        size: Tokens per delta.
        limit: Most tokens to say.
        refusal: Said last.

    Attributes:
        completion_tokens: Tokens said so far.
        finish_reason: Why it ended, as the API names it.
    """

    def __init__(
        self,
        pieces: AsyncIterator[Piece] | Iterable[Piece],
        *,
        number: int,
        pacer: Pacing,
        size: int = 1,
        limit: int | None = None,
        refusal: str = "",
    ) -> None:
        self._pieces = pieces
        self._number = number
        self._pacer = pacer
        self._size = size
        self._limit = limit
        self._refusal = refusal
        self._calls = 0
        self.completion_tokens = 0
        self.finish_reason = "stop"

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """The role, then the content, each when it is due."""
        await self._pacer.first()
        yield dict(ROLE)
        async with aclosing(self._each_piece()) as pieces:
            async for piece in pieces:
                call_id = f"call_{self._number}_{self._calls}"
                said = deltas(piece, self._calls, self._size, call_id)
                async with aclosing(self._paced(said)) as paced:
                    async for delta in paced:
                        yield delta
                if self.finish_reason == "length":
                    return
                if isinstance(piece, Call):
                    self._calls += 1
                    self.finish_reason = "tool_calls"
        async with aclosing(self._paced(refusal_deltas(self._refusal, self._size))) as paced:
            async for delta in paced:
                yield delta

    async def aclose(self) -> None:
        """Close the generator that the pieces come from, if they do."""
        if isinstance(self._pieces, AsyncGenerator):
            await self._pieces.aclose()

    async def _each_piece(self) -> AsyncGenerator[Piece, None]:
        if isinstance(self._pieces, AsyncIterator):
            async for piece in self._pieces:
                self._pacer.catch_up()
                yield piece
        else:
            for piece in self._pieces:
                yield piece

    async def _paced(self, counted: Iterator[tuple[Delta, int]]) -> AsyncGenerator[Delta, None]:
        for delta, count in counted:
            if self._limit is not None and self.completion_tokens + count > self._limit:
                self.finish_reason = "length"
                return
            await self._pacer.tokens(count)
            self.completion_tokens += count
            yield delta
