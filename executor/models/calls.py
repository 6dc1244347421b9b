"""Puts streamed tool calls together, and reads their arguments while they come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from agentflow.executor.models.base import CallPiece, CallRequest
from agentflow.tools.arguments import ArgumentEvent, CallOpened
from agentflow.tools.json_arguments import ArgumentsReader


@dataclass(slots=True)
class CallText:
    """A call as far as it has come.

    Attributes:
        position: Its place among the calls of the reply, from 0.
    """

    position: int
    id: str = ""
    name: str = ""
    fragments: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        """All text that came as its arguments."""
        return "".join(self.fragments)

    def request(self, end: int | None) -> CallRequest:
        """The call, of whose text so many characters are its arguments; None for all."""
        return CallRequest(self.id or f"call_{self.position}", self.name, self.arguments[:end])


class CallTexts:
    """The calls of one reply, put together from pieces and not read.

    Pieces belong together by index; id and name are needed once; calls may be interleaved.
    Some servers give every call index 0: a new id together with a name begins a new call.
    """

    __slots__ = ("_by_index", "_calls")

    def __init__(self) -> None:
        self._calls: list[CallText] = []
        self._by_index: dict[int, CallText] = {}

    def __iter__(self) -> Iterator[CallText]:
        return iter(self._calls)

    def __getitem__(self, position: int) -> CallText:
        return self._calls[position]

    def add(self, piece: CallPiece) -> CallText:
        """Take a piece in, and give the call it belongs to."""
        call = self._by_index.get(piece.index)
        if call is None or (piece.name and piece.id and call.id and piece.id != call.id):
            call = CallText(len(self._calls))
            self._calls.append(call)
            self._by_index[piece.index] = call
        call.id = call.id or piece.id or ""
        call.name = call.name or piece.name or ""
        call.fragments.append(piece.arguments)
        return call

    def calls(self) -> tuple[CallRequest, ...]:
        """The calls so far, in the order they were begun, without what follows their end."""
        return tuple(call.request(_end(call)) for call in self._calls)


class CallAssembler:
    """Reads the tool calls of one reply from their pieces, as `CallTexts` puts them together.

    The events are those of a streamed plan too; the id in them is the call's position.
    Whatever follows the brace that closes a call's arguments belongs to no call.
    """

    __slots__ = ("_readers", "_texts")

    def __init__(self) -> None:
        self._texts = CallTexts()
        self._readers: dict[int, ArgumentsReader] = {}

    def feed(self, piece: CallPiece) -> list[ArgumentEvent]:
        """What this piece brought about; a call whose name is not known waits for it."""
        call = self._texts.add(piece)
        if reader := self._readers.get(call.position):
            return reader.feed(piece.arguments)
        return self._opened(call) if call.name else []

    def finish(self) -> list[ArgumentEvent]:
        """The reply has ended: every call is opened, and closed or broken."""
        events: list[ArgumentEvent] = []
        for call in self._texts:
            if call.position not in self._readers:
                events += self._opened(call)
            events += self._readers[call.position].finish()
        return events

    def call(self, position: int) -> CallRequest:
        """One call, as far as it has come.

        Raises:
            IndexError: There are not so many.
        """
        reader = self._readers.get(position)
        return self._texts[position].request(reader.end if reader else None)

    def calls(self) -> tuple[CallRequest, ...]:
        """The calls so far, in the order they were begun."""
        return tuple(self.call(text.position) for text in self._texts)

    def arguments(self, position: int) -> dict[str, Any]:
        """The arguments of one call that are closed; the reader's own dict."""
        reader = self._readers.get(position)
        return reader.arguments if reader else {}

    def _opened(self, call: CallText) -> list[ArgumentEvent]:
        reader = self._readers[call.position] = ArgumentsReader(call.position, call.name)
        return [CallOpened(call.position, call.name), *reader.feed(call.arguments)]


def _end(call: CallText) -> int | None:
    """Where the arguments end, if they are complete."""
    reader = ArgumentsReader(call.position, call.name)
    reader.feed(call.arguments)
    return reader.end
