"""Checks a script against the tools it calls, whole or line by line while it is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agentflow.errors import PlanError, nearest
from agentflow.planner.plan import Ref, refs
from agentflow.planner.reader import Reader
from agentflow.planner.script import End, JoinMark, Line, Return, Script
from agentflow.tools.spec import ToolSpec, unknown_tool


class LineChecker:
    """Checks the lines of one script in their order.

    Args:
        tools: The tools that may be called.
        known: Ids of earlier plans that may be referred to.
        later: The whole script, if it has been read: then a reference to a line further
            down is told from one to no line at all.
    """

    def __init__(
        self, tools: Mapping[str, ToolSpec], known: Iterable[int] = (), later: Script | None = None
    ) -> None:
        self._tools = tools
        self._known = frozenset(known)
        self._seen: set[int] = set()
        self._later = {line.id: line for line in later.lines} if later else {}
        self._join_id = later.end.id if later and isinstance(later.end, JoinMark) else None

    def tool(self, at: int, name: str) -> ToolSpec:
        """The tool that line `at` calls.

        Raises:
            PlanError: ``unknown_tool``.
        """
        if name not in self._tools:
            raise PlanError("unknown_tool", unknown_tool(name, list(self._tools)), at)
        return self._tools[name]

    def call(self, line: Line) -> None:
        """Checks a call, when its bracket is closed.

        Raises:
            PlanError: ``unknown_tool``, ``duplicate_id``, ``arity``, ``unknown_param``,
                ``self_ref``, ``forward_ref``, ``cycle`` or ``missing_ref``.
        """
        tool = self.tool(line.id, line.tool)
        if line.id in self._seen:
            raise PlanError(
                "duplicate_id", "the id is used twice. Give every line its own.", line.id
            )
        _check_arguments(line, tool)
        for value in line.values():
            for ref in refs(value):
                self._check_ref(ref, line)
        self._seen.add(line.id)

    def guard(self, line: Line) -> None:
        """Checks the guard, when the line is committed.

        Raises:
            PlanError: One of the kinds ending in ``_ref``, or ``cycle``.
        """
        if line.guard is not None:
            self._check_ref(line.guard, line)

    def end(self, end: End) -> None:
        """Checks what is returned.

        Raises:
            PlanError: ``missing_ref``.
        """
        for ref in refs(end.value) if isinstance(end, Return) else ():
            if ref.node not in self._seen and ref.node not in self._known:
                raise PlanError("missing_ref", f"return uses ${ref.node}, which is no line.")

    def _check_ref(self, ref: Ref, line: Line) -> None:
        wanted = ref.node
        if wanted in self._known:
            return
        if wanted == line.id:
            raise PlanError("self_ref", "it uses its own value. Refer to earlier lines.", line.id)
        if wanted in self._seen:
            return
        user = f"{line.tool} uses ${wanted}"
        if (later := self._later.get(wanted)) is not None:
            if any(back.node == line.id for back in later.refs()):
                raise PlanError("cycle", f"{user}, which uses ${line.id} itself.", line.id)
            raise PlanError("forward_ref", f"{user}, which comes later. Write it first.", line.id)
        if wanted == self._join_id:
            raise PlanError("forward_ref", f"{user}, which is the join and has no value.", line.id)
        raise PlanError("missing_ref", f"{user}, which is no earlier line.", line.id)


def check(script: Script, tools: Mapping[str, ToolSpec], known: Iterable[int] = ()) -> None:
    """Checks a whole script.

    Raises:
        PlanError: The first thing that is wrong, in the order of the text.
    """
    checker = LineChecker(tools, known, later=script)
    for line in script.lines:
        checker.call(line)
        checker.guard(line)
    checker.end(script.end)


def read_plan(text: str, tools: Mapping[str, ToolSpec], known: Iterable[int] = ()) -> Script:
    """Reads and checks a whole plan.

    Args:
        text: The plan.
        tools: The tools that may be called.
        known: Ids of earlier plans that may be referred to.

    Raises:
        PlanError: The first thing that is wrong, in the order of the text.
    """
    known = frozenset(known)
    reader = Reader(known, tools)
    try:
        reader.feed(text)
        reader.finish()
    except PlanError:
        check(reader.script, tools, known)  # what is wrong above comes first
        raise
    check(reader.script, tools, known)
    return reader.script


def _check_arguments(line: Line, tool: ToolSpec) -> None:
    names = [parameter.name for parameter in tool.parameters]
    signature = f"{tool.name}({', '.join(names)})"
    if len(line.args) > len(names):
        raise PlanError(
            "arity", f"{len(line.args)} arguments are given, but it is {signature}.", line.id
        )
    given = set(names[: len(line.args)])
    for name, _ in line.kwargs:
        if name not in names and not tool.open:
            raise PlanError(
                "unknown_param",
                f"{signature} has no parameter {name!r}. {nearest(name, names)}",
                line.id,
            )
        if name in given:
            raise PlanError(
                "arity", f"{name} is given both by position and by name to {signature}.", line.id
            )
        given.add(name)
    missing = [p.name for p in tool.parameters if p.required and p.name not in given]
    if missing:
        raise PlanError("arity", f"{signature} needs {', '.join(missing)} as well.", line.id)
