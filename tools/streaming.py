"""Arguments that a tool takes before they are complete, and what goes with them.

A model writes a call token by token. A tool may begin with what is there: `Late` is an argument
to await, `Stream` a text to read while it comes, `Warm` what was made ready when the tool's
name was known. A tool that writes waits for its `Commit` before it does.

After Conveyor (Xu et al., 2024), section 3, over arguments of any shape.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Generator
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Generic,
    NoReturn,
    TypeAlias,
    TypeVar,
)

T = TypeVar("T")


class Patience:
    """How long somebody has waited, in seconds, however many of its waits overlap."""

    __slots__ = ("_began", "_count", "_loop", "_seconds")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # of the waits; it may be closed by now
        self._seconds = 0.0
        self._began = 0.0
        self._count = 0

    @property
    def seconds(self) -> float:
        """All waits so far, one that still goes on included."""
        return self._seconds + (self._now() - self._began if self._count else 0.0)

    def _now(self) -> float:
        self._loop = self._loop or asyncio.get_running_loop()
        return self._loop.time()

    def __enter__(self) -> None:
        if not self._count:
            self._began = self._now()
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if not self._count:
            self._seconds += self._now() - self._began


class TextBuffer:
    """A text that grows; whoever reads it waits for more.

    Args:
        patience: Counts how long readers have waited.

    Attributes:
        ended: No more comes.
    """

    __slots__ = ("_abandoned", "_patience", "_pieces", "_waiting", "ended")

    def __init__(self, patience: Patience | None = None) -> None:
        self._pieces: list[str] = []
        self._patience = patience or Patience()
        self._waiting: list[asyncio.Future[None]] = []
        self._abandoned = False
        self.ended = False

    @property
    def text(self) -> str:
        """All of it so far."""
        return self.since(0)

    def add(self, text: str) -> None:
        """More of the text has come."""
        if text:
            self._pieces.append(text)
            self._wake()

    def end(self) -> None:
        """That was all."""
        self.ended = True
        self._wake()

    def abandon(self) -> None:
        """Nobody knows how it would have gone on: whoever waits for more is cancelled."""
        self._abandoned = True
        for turn in self._waiting:
            turn.cancel()

    def since(self, place: int) -> str:
        """What came after the first `place` pieces."""
        if place == len(self._pieces) - 1:
            return self._pieces[place]
        return "".join(self._pieces[place:])

    async def beyond(self, place: int) -> int:
        """Wait until there are more than `place` pieces, or the end; how many there are.

        Raises:
            CancelledError: It was abandoned.
        """
        while len(self._pieces) <= place and not self.ended:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            if self._abandoned:
                turn.cancel()
            with self._patience:
                await turn
        return len(self._pieces)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)


class _NotYet:
    """What a value that is not there yet refuses, so that it does not pass for one."""

    __slots__ = ()
    _how = ""

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"it is not the value, and has no {name!r}: {self._how}")

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError(f"it is not the value: {self._how}")

    __str__ = __format__ = __bool__ = __len__ = __contains__ = __getitem__ = _refuse
    __eq__ = __ne__ = _refuse
    __hash__ = object.__hash__  # `asyncio.gather` takes it
    __lt__ = __le__ = __gt__ = __ge__ = __add__ = __radd__ = __int__ = __float__ = _refuse


class TextStream(_NotYet):
    """An argument that is read while the model writes it; annotate it ``Stream[str]``.

    Iterating gives the text in pieces, decoded; where it is cut depends on the model and the
    network. Each iteration begins at the beginning.
    """

    __slots__ = ("_buffer",)
    _how = "read it with 'async for', or take 'await text.whole()'"

    def __init__(self, buffer: TextBuffer) -> None:
        self._buffer = buffer

    __await__ = __iter__ = _NotYet._refuse

    @classmethod
    def of(cls, text: str) -> TextStream:
        """A text that is there already."""
        buffer = TextBuffer()
        buffer.add(text)
        buffer.end()
        return cls(buffer)

    def __aiter__(self) -> AsyncIterator[str]:
        return _Pieces(self._buffer)

    def lines(self) -> AsyncIterator[str]:
        """The lines, each as soon as it is complete, without their newlines."""
        return _Lines(self._buffer)

    async def whole(self) -> str:
        """All of the text, once it is complete."""
        place = 0
        while not self._buffer.ended:
            place = await self._buffer.beyond(place)
        return self._buffer.text


class _Pieces:
    def __init__(self, buffer: TextBuffer) -> None:
        self._buffer = buffer
        self._place = 0

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> str:
        place, self._place = self._place, await self._buffer.beyond(self._place)
        if self._place == place:
            raise StopAsyncIteration
        return self._buffer.since(place)


class _Lines:
    def __init__(self, buffer: TextBuffer) -> None:
        self._pieces = _Pieces(buffer)
        self._ready: list[str] = []  # the next line last
        self._begun: list[str] = []  # of the line that is not complete

    def __aiter__(self) -> _Lines:
        return self

    async def __anext__(self) -> str:
        while not self._ready:
            try:
                piece = await anext(self._pieces)
            except StopAsyncIteration:
                if not (last := "".join(self._begun)):
                    raise
                self._begun.clear()
                return last
            first, *rest = piece.split("\n")
            self._begun.append(first)
            if rest:
                self._ready = ["".join(self._begun), *rest[:-1]][::-1]
                self._begun = [rest[-1]]
        return self._ready.pop()


class LateValue(_NotYet, Generic[T]):
    """An argument that may come while the tool works: await it. Annotate it ``Late[T]``.

    Args:
        coming: Gets the value.
        patience: Counts how long the tool has waited for it.
    """

    __slots__ = ("_coming", "_patience", "_value")
    _how = "await it first"

    def __init__(self, coming: asyncio.Future[T] | None, patience: Patience | None = None) -> None:
        self._coming = coming
        self._patience = patience
        self._value: Any = None

    @classmethod
    def of(cls, value: T) -> LateValue[T]:
        """A value that is there already."""
        made = cls(None)
        made._value = value
        return made

    def __await__(self) -> Generator[Any, None, T]:
        if self._coming is None:
            value: T = self._value
            return value
        return (yield from _patiently(self._coming, self._patience).__await__())


class Commit:
    """Lets a tool know that its call is certain; await it before doing what others can see.

    A tool takes it as a parameter annotated ``Commit``. One that was made by hand lets go on
    at once.

    Attributes:
        asked: Somebody has waited for it, or does.
    """

    __slots__ = ("_certain", "_patience", "asked")

    def __init__(
        self, certain: asyncio.Future[None] | None = None, patience: Patience | None = None
    ) -> None:
        self._certain = certain
        self._patience = patience
        self.asked = False

    async def __call__(self) -> None:
        """Wait until the call is committed; cancelled if it never is."""
        self.asked = True
        if self._certain is not None:
            await _patiently(self._certain, self._patience)


async def _patiently(coming: asyncio.Future[T], patience: Patience | None) -> T:
    """Wait, and have it counted; whoever is cancelled here cancels no other's wait."""
    if coming.done() or patience is None:
        return await asyncio.shield(coming)
    with patience:
        return await asyncio.shield(coming)


class _WarmMark:
    def __repr__(self) -> str:
        return "Warm"


WARM: Final = _WarmMark()
"""Marks a parameter that takes what the tool's warm-up gave."""

Warm: TypeAlias = Annotated[T, WARM]
"""A parameter that takes what the tool's warm-up gave; callers leave it out."""

if TYPE_CHECKING:
    # Whoever calls the tool passes a plain value; its body sees the stream, or the awaitable.
    Stream: TypeAlias = "TextStreamOf[T] | Any"
    Late: TypeAlias = "Awaitable[T] | Any"

    class TextStreamOf(TextStream, Generic[T]):
        """`TextStream`, as ``Stream[str]`` spells it."""
else:

    class Stream(TextStream, Generic[T]):
        """A text that is read while the model writes it, as an annotation: ``Stream[str]``."""

        __slots__ = ()

    class Late(LateValue[T]):
        """A value that may come while the tool works, as an annotation: ``Late[T]``."""

        __slots__ = ()
