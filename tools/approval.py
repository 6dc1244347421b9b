"""Asking somebody before a call is made: what is asked, and what the answer may be."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from agentflow.errors import DefinitionError

Guard: TypeAlias = bool | Callable[..., Any]
"""Whether somebody is asked before a call, or what decides it from the call's arguments: true, or
a text that says why, is yes. A guard may be an ``async def``."""

Kind: TypeAlias = Literal["approval", "doubt"]

Verdict: TypeAlias = Literal["approve", "deny", "done"]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about one call of a run.

    Attributes:
        id: Of the question; the same when it is asked again after a restart.
        run: Id of the outermost run.
        node: Plan id of the call in its run.
        element: Its index if it is an element of a map, or None.
        tool: Name of the tool.
        kind: ``approval`` (may it be made?) or ``doubt`` (it may have been made already: is it to
            be made again?).
        call: The call as text, without known secrets, in one line.
        why: Why this is asked.
        arguments: Of the call, by parameter.
    """

    id: str
    run: str
    node: int
    element: int | None
    tool: str
    kind: Kind
    call: str
    why: str
    arguments: Mapping[str, Any]

    def listed(self) -> dict[str, Any]:
        """The question as a list of runs shows it: plain data."""
        return {
            "question": self.id,
            "kind": self.kind,
            "node": self.node,
            "element": self.element,
            "tool": self.tool,
            "call": self.call,
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody says to a question.

    Attributes:
        verdict: ``approve`` (make the call), ``deny``, or ``done``: it was made and is in doubt,
            and `value` is what it gave.
        why: Why it is denied; a model that made the call is told.
        value: Of a call that was done.
        by: Who says it.
    """

    verdict: Verdict
    why: str = ""
    value: Any = None
    by: str = ""

    def __post_init__(self) -> None:
        """Refuse other verdicts."""
        if self.verdict not in get_args(Verdict):
            verdicts = ", ".join(get_args(Verdict))
            raise DefinitionError(f"Answer({self.verdict!r}): a verdict is one of {verdicts}")


Answerer: TypeAlias = Callable[[Question], "bool | Answer | Awaitable[bool | Answer | None] | None"]
"""Answers questions: true, false, an `Answer`, or None to leave one open."""


async def reason(guard: Guard, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Why somebody is to be asked before a call with these arguments; None if nobody is."""
    if not callable(guard):
        return "it asks before each call" if guard else None
    verdict = guard(*args, **kwargs)
    if inspect.isawaitable(verdict):
        verdict = await verdict
    if isinstance(verdict, str) and verdict:
        return verdict
    return "its guard says so" if verdict else None


def read_answer(given: Any) -> Answer | None:
    """What an answerer gave; None if it leaves the question open.

    Raises:
        DefinitionError: It is no answer.
    """
    if given is None or isinstance(given, Answer):
        return given
    if isinstance(given, bool):
        return Answer("approve" if given else "deny")
    raise DefinitionError(
        f"Engine(approve=...) gave {type(given).__name__}: return True, False, an Answer, or None"
    )
