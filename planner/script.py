"""The script: a plan as it was written, with the ids, thoughts and order of the text.

Reading gives a `Script`. It prints back to the same text, and lowering it gives the `Plan`.
A `Ref` in a script carries the id of a line as written, not an index.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from agentflow.planner.plan import JOIN_ALL, Arg, Join, Ref, refs


@dataclass(frozen=True, slots=True)
class Line:
    """One call of a script.

    Attributes:
        id: The id written before the call; unique in its script, in any order.
        tool: Name of the tool, as written.
        args: Positional arguments.
        kwargs: Keyword arguments, in the order written.
        guard: What stands after ``if``.
        join: Policy written after the call.
        thought: What the ``Thought:`` lines before it say, one line each.
        row: Number of the text's line it starts on, from 1; 0 if it was not read from a text.
        texts: The strings with references in them, as spelt, in order of appearance.
    """

    id: int
    tool: str
    args: tuple[Arg, ...] = ()
    kwargs: tuple[tuple[str, Arg], ...] = ()
    guard: Ref | None = None
    join: Join = JOIN_ALL
    thought: str = ""
    row: int = field(default=0, compare=False)
    texts: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def values(self) -> Iterator[Arg]:
        """The arguments, positional first."""
        yield from self.args
        for _, value in self.kwargs:
            yield value

    def refs(self) -> Iterator[Ref]:
        """Every reference of the line in order, the guard last."""
        for value in self.values():
            yield from refs(value)
        if self.guard is not None:
            yield self.guard


@dataclass(frozen=True, slots=True)
class Return:
    """``return value``: the plan's result is this value.

    Attributes:
        value: What is returned.
        texts: As in `Line`.
    """

    value: Arg
    texts: tuple[str, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class JoinMark:
    """``join()``: a model reads the results and answers.

    Attributes:
        id: The id written before it, or None.
    """

    id: int | None = None


End: TypeAlias = "Return | JoinMark | None"
"""How a script ends; None when the text names neither."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """Something odd that was read all the same.

    Attributes:
        kind: One of the warnings listed in docs/notation.md, such as ``missing_join``.
        at: Id of the line it was found in, or None.
    """

    kind: str
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """A whole plan as written.

    Attributes:
        lines: The calls in the order of the text.
        end: The `Return` or `JoinMark` that ends it, or None.
        warnings: What was forgiven while reading.
    """

    lines: tuple[Line, ...] = ()
    end: End = None
    warnings: tuple[Diagnostic, ...] = field(default=(), compare=False)
