"""What is known of a call while its arguments are being written.

There are two syntaxes, JSON (`agentflow.tools.json_arguments`) and the plan notation
(`agentflow.planner.reader`), and these are the events of both. For one call the order is
`CallOpened`; then `ArgumentOpened`, `ArgumentGrew` and `ArgumentClosed` for each argument;
then `CallClosed`, or `CallBroken` at any place after the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from agentflow.errors import MalformedArguments

Key: TypeAlias = "int | str"
"""An argument's position, from 0, or its name."""


@dataclass(frozen=True, slots=True)
class CallOpened:
    """The name of a call is known; of its arguments nothing has been read.

    Attributes:
        id: The number of the line in a plan; the place, from 0, among the calls of a reply.
        tool: Name of the tool, as the model wrote it.
    """

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

    The pieces of one argument, put together, are the beginning of its value: all of it in
    JSON; in the notation they stop before the first reference in it. Where the text is cut
    between them is not fixed, but no piece ends inside an escape or a surrogate pair.
    """

    id: int
    key: Key
    text: str


@dataclass(frozen=True, slots=True)
class ArgumentClosed:
    """An argument is complete.

    Attributes:
        value: What JSON reads; in the notation an `agentflow.planner.plan.Arg`.
    """

    id: int
    key: Key
    value: Any


@dataclass(frozen=True, slots=True)
class CallClosed:
    """The end of the arguments was read."""

    id: int


@dataclass(frozen=True, slots=True)
class CallBroken:
    """The arguments cannot be read; nothing more is said of this call.

    Attributes:
        error: What is wrong, where, and what to write instead.
    """

    id: int
    error: MalformedArguments


ArgumentEvent: TypeAlias = (
    CallOpened | ArgumentOpened | ArgumentGrew | ArgumentClosed | CallClosed | CallBroken
)
