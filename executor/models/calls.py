"""Puts streamed tool calls together, and says at once when one is complete.

The events are those of a streamed plan (call opened, arguments grew, call closed), so
whoever consumes arguments while they are being written needs one reader only.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from agentflow.executor.models.base import CallPiece, CallRequest

_MARKS = re.compile(r'["\\{}\[\]]')
_JSON_TYPES = {list: "array", str: "string", bool: "boolean", type(None): "null"}


@dataclass(slots=True)
class CallOpened:
    """The model began a call; `position` counts the calls of the reply from 0."""

    position: int
    id: str
    name: str


@dataclass(slots=True)
class CallGrew:
    """More of a call's arguments, as JSON text."""

    position: int
    fragment: str


@dataclass(slots=True)
class CallClosed:
    """A call is complete: its arguments' closing brace has come, or the reply has ended."""

    position: int
    call: CallRequest


CallEvent: TypeAlias = "CallOpened | CallGrew | CallClosed"


@dataclass(slots=True)
class BadArguments:
    """Arguments that cannot be used; a value, because the model is told and may try again.

    Attributes:
        call: The call as the model wrote it.
        problem: What is wrong with it, in words.
    """

    call: CallRequest
    problem: str

    def __str__(self) -> str:
        text = self.call.arguments_text
        shown = text if len(text) <= 200 else text[:200] + "..."
        return (
            f"The arguments of {self.call.name} are not usable: {self.problem}. "
            f"They were: {shown}. Call it again with one JSON object."
        )


class CallAssembler:
    """Accumulates the tool-call pieces of one reply.

    Pieces belong together by index; id and name are needed once; calls may be interleaved.
    Some servers give every call index 0: a new id together with a name begins a new call.
    Whatever follows the brace that closes a call's arguments belongs to no call.
    """

    __slots__ = ("_by_index", "_calls")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}

    def feed(self, piece: CallPiece) -> list[CallEvent]:
        """What this piece brought about."""
        call = self._call_of(piece)
        call.id = call.id or piece.id or ""
        call.name = call.name or piece.name or ""
        if call.closed:
            return []
        grown = call.extend(piece.arguments)
        events: list[CallEvent] = []
        if call.name and not call.opened:
            call.opened = True
            events.append(CallOpened(call.position, call.request().id, call.name))
            grown = "".join(call.fragments)
        if call.opened and grown:
            events.append(CallGrew(call.position, grown))
        if call.opened and call.end.reached:
            events.append(call.close())
        return events

    def finish(self) -> list[CallEvent]:
        """The reply has ended: close what is still open."""
        return [call.close() for call in self._calls if not call.closed]

    def calls(self) -> tuple[CallRequest, ...]:
        """The calls so far, in the order they were opened."""
        return tuple(call.request() for call in self._calls)

    def _call_of(self, piece: CallPiece) -> _Call:
        call = self._by_index.get(piece.index)
        if call is None or (piece.name and piece.id and call.id and piece.id != call.id):
            call = _Call(len(self._calls))
            self._calls.append(call)
            self._by_index[piece.index] = call
        return call


def read_arguments(call: CallRequest) -> dict[str, Any] | BadArguments:
    """The arguments of a call; an empty text is no arguments."""
    if not call.arguments_text.strip():
        return {}
    try:
        value = json.loads(call.arguments_text, parse_constant=_not_json)
    except RecursionError:
        return BadArguments(call, "they are nested too deeply")
    except json.JSONDecodeError as error:
        return BadArguments(call, f"{error.msg} at character {error.pos}")
    except ValueError as error:  # NaN, or a number with too many digits
        return BadArguments(call, str(error))
    if not isinstance(value, dict):
        return BadArguments(call, f"they are a JSON {_JSON_TYPES.get(type(value), 'number')}")
    return value


class _ObjectEnd:
    """Finds the bracket that closes a JSON object or array, in time linear in its text."""

    __slots__ = ("_backslash", "_depth", "_in_string", "_read", "reached")

    def __init__(self) -> None:
        self.reached = False
        self._depth = 0
        self._in_string = False
        self._backslash = -2  # where the last backslash stood that escapes what follows it
        self._read = 0

    def feed(self, fragment: str) -> str:
        """The part of the fragment that belongs to the object."""
        for mark in _MARKS.finditer(fragment):
            self._step(mark.group(), self._read + mark.start())
            if self.reached:
                return fragment[: mark.end()]
        self._read += len(fragment)
        return fragment

    def _step(self, mark: str, at: int) -> None:
        if self._in_string:
            if self._backslash == at - 1:
                return
            if mark == "\\":
                self._backslash = at
            elif mark == '"':
                self._in_string = False
        elif mark == '"':
            self._in_string = True
        elif mark in "{[":
            self._depth += 1
        elif mark in "}]":
            self._depth -= 1
            self.reached = self._depth <= 0


@dataclass(slots=True)
class _Call:
    position: int
    id: str = ""
    name: str = ""
    fragments: list[str] = field(default_factory=list)
    end: _ObjectEnd = field(default_factory=_ObjectEnd)
    opened: bool = False
    closed: bool = False

    def extend(self, fragment: str) -> str:
        if not fragment:
            return ""
        kept = self.end.feed(fragment)
        self.fragments.append(kept)
        return kept

    def close(self) -> CallClosed:
        self.closed = True
        return CallClosed(self.position, self.request())

    def request(self) -> CallRequest:
        text = "".join(self.fragments)
        return CallRequest(self.id or f"call_{self.position}", self.name, text)


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
