"""What the reader reports while a plan is being written.

For one line the order is `CallOpened`; then `ArgumentOpened`, `ArgumentGrew` and
`ArgumentClosed` for each argument; then `CallRead` and `LineClosed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from agentflow.planner.script import End, Line
from agentflow.tools.arguments import ArgumentClosed, ArgumentGrew, ArgumentOpened, CallOpened, Key

__all__ = [
    "ArgumentClosed",
    "ArgumentGrew",
    "ArgumentOpened",
    "CallOpened",
    "CallRead",
    "Ended",
    "Key",
    "LineClosed",
    "ReadEvent",
    "Thought",
]


@dataclass(frozen=True, slots=True)
class CallRead:
    """The closing bracket was read; the line's guard and join policy are not known yet."""

    line: Line


@dataclass(frozen=True, slots=True)
class LineClosed:
    """The line is committed: a newline, the next call or the plan's end was read."""

    line: Line


@dataclass(frozen=True, slots=True)
class Thought:
    """A ``Thought:`` line was read."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The plan is complete; whatever follows in the text is not part of it."""

    end: End


ReadEvent: TypeAlias = (
    CallOpened
    | ArgumentOpened
    | ArgumentGrew
    | ArgumentClosed
    | CallRead
    | LineClosed
    | Thought
    | Ended
)
