"""The plan: a short straight-line program that every front end becomes.

A `Plan` is immutable. Each `Node` calls one tool and may use the values of earlier nodes
only; its position in `Plan.nodes` is its id, so program order is a topological order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any, TypeAlias

from agentflow.tools.paths import ALL, PathStep
from agentflow.tools.values import IMMUTABLE


@dataclass(frozen=True, slots=True)
class Ref:
    """A use of an earlier value: ``$1``, or with a path ``$1.hits[0].url``."""

    node: int
    path: tuple[PathStep, ...] = ()


@dataclass(frozen=True, slots=True)
class Each:
    """``each $1.hits[*].url``: one call for every element; the value is the list."""

    source: Any  # a Ref, or a literal list or tuple


@dataclass(frozen=True, slots=True)
class Template:
    """A string with references in it: ``"${1.name} text"``. `parts` are text and Refs."""

    parts: tuple[str | Ref, ...]


Arg: TypeAlias = Any
"""A literal, `Ref`, `Template` or `Each`, or a list, tuple or dict that holds such."""


UNCOUNTED = ("all", "settled", "first")
"""Kinds of `Join` that need no count."""

JOIN_KINDS = (*UNCOUNTED, "quorum")
"""All kinds of `Join`."""


@dataclass(frozen=True, slots=True)
class Join:
    """How a node waits for its inputs, or a map for its elements.

    `kind` is one of `JOIN_KINDS`; with ``quorum`` `count` is how many.
    """

    kind: str = "all"
    count: int = 0

    def __str__(self) -> str:
        return f"quorum({self.count})" if self.kind == "quorum" else self.kind


JOIN_ALL = Join()

GATHER = "gather"
"""Name of the intrinsic call that takes values and gives their list, by its join policy."""


@dataclass(slots=True, unsafe_hash=True)
class Node:
    """One line of a plan; never changed once it is made.

    (Not declared frozen: that makes a node three times as dear, and workflows make many.)

    Attributes:
        tool: Name of the tool in the plan's toolbox.
        args: Positional arguments.
        kwargs: Keyword arguments, in the order written.
        guard: The call is made only if this value is true.
        join: Policy over the value dependencies (or elements, for a map).
        after: Ids that must be settled first although no value is used (effects).
        options: Per-call overrides from `Tool.with_`, or None.
        rank: Priority; larger is more urgent (upward rank, set by the ranking pass).
        speculable: Whether it may be started before anyone asked for it.
        label: Id of the line in the text it was read from, for messages.
    """

    tool: str
    args: tuple[Arg, ...] = ()
    kwargs: tuple[tuple[str, Arg], ...] = ()
    guard: Ref | None = None
    join: Join = JOIN_ALL
    after: tuple[int, ...] = ()
    options: Any = None
    rank: float = 0.0
    speculable: bool = False
    label: int | None = None

    def values(self) -> Iterator[Arg]:
        """The arguments, positional first."""
        yield from self.args
        for _, value in self.kwargs:
            yield value

    def uses(self) -> tuple[int, ...]:
        """Ids whose values it uses (guard included), each once, in order of appearance."""
        found: dict[int, None] = {}
        if self.guard is not None:
            found[self.guard.node] = None
        for value in self.args:
            if type(value) is Ref:
                found[value.node] = None
            elif type(value) not in IMMUTABLE:
                found.update(dict.fromkeys([ref.node for ref in refs(value)]))
        for _, value in self.kwargs:
            found.update(dict.fromkeys([ref.node for ref in refs(value)]))
        return tuple(found)

    def waits_for(self) -> tuple[int, ...]:
        """Ids that must be settled before it starts, each once."""
        uses = self.uses()
        return tuple(dict.fromkeys((*uses, *self.after))) if self.after else uses

    @property
    def mapped(self) -> bool:
        """Whether it is called once for every element of a list."""
        for value in self.args:
            if type(value) is Each:
                return True
        return any(type(value) is Each for _, value in self.kwargs) if self.kwargs else False


class Answer(Enum):
    """What a plan gives besides a returned value."""

    JOIN = "join"  # a model reads the results and answers
    NOTHING = "nothing"  # the text named neither


@dataclass(frozen=True)
class Plan:
    """An immutable straight-line program.

    Attributes:
        nodes: The calls, in program order.
        result: The argument after ``return``, or an `Answer`.
        base: Id of the first node. Ids below it belong to earlier segments of the same run:
            they may be used, and are not part of this plan.
    """

    nodes: tuple[Node, ...] = ()
    result: Arg | Answer = field(default=Answer.NOTHING)
    base: int = 0

    def items(self) -> Iterator[tuple[int, Node]]:
        """The nodes with their ids."""
        return enumerate(self.nodes, self.base)

    @cached_property
    def edges(self) -> Edges:
        """How the nodes wait for each other; computed once."""
        users: list[list[int]] = [[] for _ in self.nodes]
        indegree = []
        for index, node in self.items():
            deps = node.waits_for()
            indegree.append(len(deps))
            for dep in deps:
                if dep >= self.base:
                    users[dep - self.base].append(index)
        special = tuple(
            position
            for position, node in enumerate(self.nodes)
            if node.tool == GATHER or node.guard is not None or node.mapped
        )
        return Edges(tuple(indegree), tuple(map(tuple, users)), special)


@dataclass(frozen=True, slots=True)
class Edges:
    """The edges of a plan, by position of the node in it.

    Attributes:
        indegree: How many nodes each waits for, earlier segments included.
        users: Ids of the nodes that wait for each.
        special: Positions of the nodes that are not plain calls: gathers, maps, guarded ones.
    """

    indegree: tuple[int, ...]
    users: tuple[tuple[int, ...], ...]
    special: tuple[int, ...]


def refs(value: Arg) -> Iterator[Ref]:
    """Every reference inside an argument, in order."""
    kind = type(value)
    if kind is Ref:
        yield value
    elif kind is Template:
        for part in value.parts:
            if type(part) is Ref:
                yield part
    elif kind is Each:
        yield from refs(value.source)
    elif kind is list or kind is tuple:
        for item in value:
            yield from refs(item)
    elif kind is dict:
        for item in value.values():
            yield from refs(item)


__all__ = [
    "ALL",
    "GATHER",
    "JOIN_ALL",
    "Answer",
    "Arg",
    "Each",
    "Edges",
    "Join",
    "Node",
    "PathStep",
    "Plan",
    "Ref",
    "Template",
    "refs",
]
