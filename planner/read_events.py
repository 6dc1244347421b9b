"""What the reader reports while a plan is being written.

For one line the order is `CallOpened`; then `ArgumentOpened`, `ArgumentGrew` and
`ArgumentClosed` for each argument; then `CallClosed` and `LineClosed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from agentflow.planner.plan import Arg
from agentflow.planner.script import End, Line

Key: TypeAlias = "int | str"
"""An argument's position, from 0, or its name."""


@dataclass(frozen=True, slots=True)
class CallOpened:
    """The opening bracket of a call was read."""

    id: int
    tool: str


@dataclass(frozen=True, slots=True)
class ArgumentOpened:
    """The first character of an argument's value was read."""

    id: int
    key: Key


@dataclass(frozen=True, slots=True)
class ArgumentGrew:
    """More of a quoted argument was read.

    The pieces of one argument, put together, are the beginning of its value: they stop
    before the first reference in it. Where the text is cut between them is not fixed.
    """

    id: int
    key: Key
    text: str


@dataclass(frozen=True, slots=True)
class ArgumentClosed:
    """An argument is complete."""

    id: int
    key: Key
    value: Arg


@dataclass(frozen=True, slots=True)
class CallClosed:
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
    | CallClosed
    | LineClosed
    | Thought
    | Ended
)
