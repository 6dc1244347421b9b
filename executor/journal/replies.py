"""Replies of models to strategies: written down as they come, and given again to a resumed run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agentflow.errors import BackendUnreachable, ContextOverflow
from agentflow.executor.journal.history import RecordedReply
from agentflow.executor.models.base import (
    CallPiece,
    CallRequest,
    ChatRequest,
    Delta,
    ReasoningPiece,
    RefusalPiece,
    Reply,
    ReplyStream,
    TextPiece,
    Usage,
)

if TYPE_CHECKING:
    from agentflow.executor.journal.notes import Notes

TOGETHER = 32
"""Pieces that are written down as one record, unless a call is announced meanwhile."""

_LETTERS: dict[type, str] = {
    TextPiece: "t",
    RefusalPiece: "f",
    ReasoningPiece: "r",
    CallPiece: "c",
    Usage: "u",
}
_KINDS: dict[str, Any] = {letter: kind for kind, letter in _LETTERS.items()}


class Replies:
    """The replies of one run to its strategies.

    Args:
        notes: Of the run.
        path: Call path of the run.
    """

    def __init__(self, notes: Notes, path: str) -> None:
        self._notes = notes
        self._path = path
        self._asked: dict[str, tuple[ChatRequest, int, int]] = {}  # request, number, attempt

    async def recorded(self, request: ChatRequest) -> RecordedReply | None:
        """What came of this request in an earlier execution, the first time it is asked for."""
        recall = self._notes.recall
        ask, attempt = self._ask(request)
        if recall is None:
            return None
        found = recall.reply(ask) if attempt == 1 else None  # else it had broken off
        if found is None and not recall.live:
            await recall.forever()
        return found

    @asynccontextmanager
    async def keep(self, stream: ReplyStream, request: ChatRequest) -> AsyncIterator[ReplyStream]:
        """Write a reply down while it is read."""
        recall = self._notes.recall
        ask, attempt = self._ask(request)
        if recall is not None and (found := recall.history.replies.get(ask)) is not None:
            attempt += found.attempt - 1
        kept = _Kept(stream, self._notes, {"ask": ask, "attempt": attempt})
        self._notes.book.unwritten.add(kept.write)
        try:
            yield kept
        finally:
            kept.write()
            self._notes.book.unwritten.discard(kept.write)

    def overflowed(self, request: ChatRequest, error: ContextOverflow) -> None:
        """Write down that a request was too long: its strategy goes on with a shorter one."""
        ask, attempt = self._ask(request)
        end = {"overflow": [str(error), error.url, error.window]}
        self._notes.write({"event": "reply_ended", "ask": ask, "attempt": attempt, **end})

    def open(self, request: ChatRequest) -> None:
        """A strategy asks; the same request again is another attempt at the same reply."""
        assert request.session is not None
        place = request.session.place
        known = self._asked.get(place)
        if known is None or known[0] is not request:
            self._asked[place] = (request, known[1] + 1 if known else 1, 1)
        else:
            self._asked[place] = (request, known[1], known[2] + 1)

    def _ask(self, request: ChatRequest) -> tuple[str, int]:
        assert request.session is not None
        place = request.session.place
        _, number, attempt = self._asked[place]
        return f"{self._path}|{place}#{number}", attempt


class _Kept:
    """A reply that is written down as it is read."""

    def __init__(self, stream: ReplyStream, notes: Notes, head: dict[str, Any]) -> None:
        self._stream = stream
        self._notes = notes
        self._head = head
        self._pieces: list[Any] = []

    async def __aiter__(self) -> AsyncIterator[Delta]:
        async for piece in self._stream:
            self._pieces.append(_packed(piece))
            if len(self._pieces) >= TOGETHER:
                self.write()
            yield piece
        self.write()
        self._end(self._stream.reply)

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return self._stream.usage

    @property
    def reply(self) -> Reply:
        """The whole reply."""
        return self._stream.reply

    def write(self) -> None:
        """Write down what has come."""
        if self._pieces:
            self._notes.write({"event": "reply", **self._head, "pieces": self._pieces})
            self._pieces = []

    def _end(self, reply: Reply) -> None:
        self._notes.write(
            {
                "event": "reply_ended",
                **self._head,
                "calls": [[call.id, call.name, call.arguments_text] for call in reply.calls],
                "finish_reason": reply.finish_reason,
                "usage": list(asdict(reply.usage).values()),
                "model": reply.model,
                "seconds": reply.seconds,
            }
        )


class RecalledStream:
    """A reply that came in an earlier execution.

    Args:
        recorded: What is known of it.
    """

    def __init__(self, recorded: RecordedReply) -> None:
        self._recorded = recorded
        self._pieces = [_unpacked(piece) for piece in recorded.pieces]
        self._read = False

    async def __aiter__(self) -> AsyncIterator[Delta]:
        for piece in self._pieces:
            yield piece
        if (end := self._recorded.end) is None:
            raise BackendUnreachable("the process ended while this reply came", url="")
        if "overflow" in end:
            said, url, window = end["overflow"]
            raise ContextOverflow(said, url=url, window=window)
        self._read = True

    @property
    def usage(self) -> Usage:
        """Tokens; they were paid for when they came."""
        end = self._recorded.end
        if end is None or "overflow" in end:
            return Usage(0, 0, None, estimated=True)
        return Usage(*end["usage"])

    @property
    def reply(self) -> Reply:
        """The whole reply.

        Raises:
            RuntimeError: The stream has not been read to its end.
        """
        end = self._recorded.end
        if end is None or not self._read:
            raise RuntimeError("the reply has not been read to its end")
        return Reply(
            text=self._text(TextPiece),
            calls=tuple(CallRequest(*call) for call in end["calls"]),
            finish_reason=end["finish_reason"],
            usage=self.usage,
            refusal=self._text(RefusalPiece) or None,
            reasoning=self._text(ReasoningPiece),
            model=end["model"],
            seconds=end["seconds"],
        )

    def _text(self, kind: type[TextPiece | RefusalPiece | ReasoningPiece]) -> str:
        return "".join(piece.text for piece in self._pieces if isinstance(piece, kind))


def _packed(piece: Delta) -> list[Any]:
    return [_LETTERS[type(piece)], *asdict(piece).values()]


def _unpacked(packed: list[Any]) -> Delta:
    made: Delta = _KINDS[packed[0]](*packed[1:])
    return made
