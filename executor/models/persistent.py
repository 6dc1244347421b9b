"""Replies that break off are asked for again, and go on where they broke off.

A backend repeats a call only while nothing of its reply has been handed out. Here a reply that
has begun is repeated too: what comes again is compared with what was handed out, and kept back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self, TypeAlias

from agentflow.context import remaining
from agentflow.errors import BackendError, BudgetExceeded
from agentflow.executor.models.base import (
    CallPiece,
    ChatRequest,
    Delta,
    Model,
    ReasoningPiece,
    RefusalPiece,
    Reply,
    ReplyStream,
    TextPiece,
    Usage,
)
from agentflow.executor.models.calls import CallTexts

FURTHER = 2
"""How often a reply that broke off is asked for again."""

Channel: TypeAlias = "type[TextPiece | RefusalPiece | ReasoningPiece] | int"
"""What a text belongs to: a kind of piece, or the call with that position."""


class ReplyDiverged(BackendError):
    """A reply that had broken off came differently when it was asked for again.

    The stream that raises it goes on: its next piece is the first of the new reply.
    """


class Persistent:
    """A model whose replies, once begun, survive the failures of its backend.

    Each further attempt is a call of its own to the model, paid and limited like any other. There
    is none after a failure that is not retryable, nor after the deadline of the run.

    Args:
        model: The model.
    """

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def name(self) -> str:
        """Name of the model."""
        return self._model.name

    def stream(self, request: ChatRequest) -> PersistentStream:
        """Start a call.

        Raises:
            BudgetExceeded: Its upper bound does not fit into what is left; nothing was sent.
            BackendError: No attempt gave a piece; iterating raises what goes wrong later.
        """
        return PersistentStream(self._model, request)

    async def complete(
        self,
        request: ChatRequest,
        on_delta: Callable[[Delta], object] | None = None,
        on_restart: Callable[[], object] | None = None,
    ) -> Reply:
        """Make a call and wait for the whole reply.

        Args:
            request: What is asked.
            on_delta: Sees each piece as it comes, and none twice.
            on_restart: Called when what `on_delta` has seen is void, because the reply came
                differently the second time; all of the new one follows.

        Raises:
            BudgetExceeded: Its upper bound does not fit into what is left; nothing was sent.
            BackendError: The call failed.
        """
        telling = _Telling(on_delta, on_restart)
        broken: BackendError | None = None
        times = 0
        while True:
            try:
                reply = await self._model.complete(request, telling.take)
            except BudgetExceeded as exceeded:
                if broken is None:
                    raise
                raise broken from exceeded
            except BackendError as error:
                if not (telling.handed.begun and _may_ask_again(error, times)):
                    raise
                broken, times = error, times + 1
                telling.handed.again()
            else:
                telling.finish()
                return reply


class PersistentStream:
    """A reply while it arrives, in as many attempts as it takes; made by `Persistent.stream`."""

    def __init__(self, model: Model, request: ChatRequest) -> None:
        self._model = model
        self._request = request
        self._call: AbstractAsyncContextManager[ReplyStream] | None = None
        self._stream: ReplyStream
        self._pieces: AsyncIterator[Delta]
        self._handed = _Handed()
        self._ready: deque[Delta] = deque()
        self._broken = 0
        self._wanted = True

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        call, self._call = self._call, None
        return None if call is None else await call.__aexit__(kind, error, traceback)

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        while not self._ready:
            broken: BackendError | None = None
            try:
                piece = await anext(self._pieces)
            except StopAsyncIteration:
                if not (self._wanted and self._handed.missing):
                    raise
                self._start_over()
            except BackendError as error:
                if not (self._wanted and _may_ask_again(error, self._broken)):
                    raise
                broken = error
            else:
                self._take(piece)
            if broken is not None:  # it is handled: what fails now has nothing to do with it
                await self._ask_again(broken)
        return self._ready.popleft()

    @property
    def usage(self) -> Usage:
        """Tokens of the attempt under way; those before it have been settled."""
        return self._stream.usage

    @property
    def reply(self) -> Reply:
        """The whole reply, of the last attempt.

        Raises:
            RuntimeError: The stream has not been read to its end.
        """
        return self._stream.reply

    def enough(self) -> None:
        """What has come is enough, however the reply goes on and if it breaks off or not."""
        self._wanted = False

    def _take(self, piece: Delta) -> None:
        try:
            new = self._handed.take(piece) if self._wanted else piece
        except _Differs:
            self._start_over()
        else:
            if new is not None:
                self._ready.append(new)

    def _start_over(self) -> None:
        """The reply is another one: have all of it that has come handed out next.

        Raises:
            ReplyDiverged: Always, for whoever has read what is void now.
        """
        self._ready.extend(self._handed.restart())
        raise ReplyDiverged(
            f"{self._model.name}: a reply that broke off came differently when it was asked for "
            "again",
            url=getattr(self._model, "url", ""),
        ) from None

    async def _ask_again(self, error: BackendError) -> None:
        """Begin another attempt in place of the one that broke off.

        Raises:
            BackendError: The error, if there is no money left for it; or the new one failed.
        """
        self._broken += 1
        await self.__aexit__(type(error), error, error.__traceback__)
        try:
            await self._open()
        except BudgetExceeded as exceeded:
            raise error from exceeded
        self._handed.again()

    async def _open(self) -> None:
        call = self._model.stream(self._request)
        self._stream = await call.__aenter__()
        self._call = call
        self._pieces = aiter(self._stream)


def _may_ask_again(error: BackendError, times: int) -> bool:
    """Whether a reply that broke off, and was asked for again so many times, is once more."""
    left = remaining()
    return error.retryable and times < FURTHER and (left is None or left > 0)


class _Differs(Exception):
    """A piece is not what was handed out before."""


class _Handed:
    """What has been handed out of a reply, and how far the attempt under way has repeated it.

    Texts are compared, not pieces: the same text may be cut elsewhere. Of a call its name and its
    arguments count; its id is made up anew each time, and the one handed out first stays.
    """

    def __init__(self) -> None:
        self._known: dict[Channel, str] = {}  # by earlier attempts
        self._names: dict[int, str] = {}  # of the calls among them
        self._begin()

    def _begin(self) -> None:
        self._pieces: list[Delta] = []  # as long as they may turn out to be another reply's
        self._seen: dict[Channel, list[str]] = {}
        self._at: dict[Channel, int] = {}
        self._calls = CallTexts()

    @property
    def begun(self) -> bool:
        """Whether anything has come of the attempt under way."""
        return bool(self._seen)

    @property
    def missing(self) -> bool:
        """Whether the attempt under way has not repeated all that was handed out."""
        return any(
            channel not in self._at or self._at[channel] < len(text)
            for channel, text in self._known.items()
        )

    def take(self, piece: Delta) -> Delta | None:
        """What is new in a piece.

        Raises:
            _Differs: It is not what came in its place before.
        """
        if self._known:
            self._pieces.append(piece)
        if isinstance(piece, Usage):
            return piece
        if isinstance(piece, CallPiece):
            return self._take_call(piece)
        kind = type(piece)
        new = self._new(kind, piece.text)
        if len(new) == len(piece.text):
            return piece
        return kind(new) if new else None

    def again(self) -> None:
        """Another attempt begins."""
        for channel, texts in self._seen.items():
            text = "".join(texts)
            if len(text) >= len(self._known.get(channel, "")):
                self._known[channel] = text
        for call in self._calls:
            self._names[call.position] = self._names.get(call.position) or call.name
        self._begin()

    def restart(self) -> list[Delta]:
        """What was handed out is void; what has come of the attempt under way."""
        pieces = self._pieces
        self._known, self._names = {}, {}
        self._begin()
        return [new for piece in pieces if (new := self.take(piece)) is not None]

    def _take_call(self, piece: CallPiece) -> CallPiece | None:
        call = self._calls.add(piece)
        known = self._names.get(call.position)
        if known is None:
            self._new(call.position, piece.arguments)
            return CallPiece(call.position, piece.id, piece.name, piece.arguments)
        if known and call.name and known != call.name:
            raise _Differs
        new = self._new(call.position, piece.arguments)
        name = None if known else piece.name
        return CallPiece(call.position, None, name, new) if new or name else None

    def _new(self, channel: Channel, text: str) -> str:
        """What follows in a text after all that is known."""
        at = self._at.get(channel, 0)
        repeated = self._known.get(channel, "")[at : at + len(text)]
        if not text.startswith(repeated):
            raise _Differs
        self._at[channel] = at + len(text)
        self._seen.setdefault(channel, []).append(text)
        return text[len(repeated) :]


class _Telling:
    """Passes the pieces of a reply on, each once."""

    def __init__(
        self,
        on_delta: Callable[[Delta], object] | None,
        on_restart: Callable[[], object] | None,
    ) -> None:
        self.handed = _Handed()
        self._on_delta = on_delta
        self._on_restart = on_restart

    def take(self, piece: Delta) -> None:
        """Pass on what is new in a piece."""
        try:
            new = self.handed.take(piece)
        except _Differs:
            self._start_over()
        else:
            self._tell(new)

    def finish(self) -> None:
        """The reply is whole."""
        if self.handed.missing:
            self._start_over()

    def _start_over(self) -> None:
        if self._on_restart is not None:
            self._on_restart()
        for piece in self.handed.restart():
            self._tell(piece)

    def _tell(self, piece: Delta | None) -> None:
        if piece is not None and self._on_delta is not None:
            self._on_delta(piece)
