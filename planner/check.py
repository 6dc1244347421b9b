"""Checks a script against the tools it calls, whole or line by line while it is read."""

from __future__ import annotations

from collections.abc import Iterable

from agentflow.errors import PlanError
from agentflow.planner.plan import GATHER, JOIN_ALL, Node, Ref, refs
from agentflow.planner.reader import Reader
from agentflow.planner.script import End, JoinMark, Line, Return, Script
from agentflow.planner.specs import Tools
from agentflow.planner.verify import verify_call
from agentflow.tools.spec import unknown_tool


class LineChecker:
    """Checks the lines of one script in their order.

    Args:
        tools: Specs of the tools that may be called.
        known: Ids of earlier plans that may be referred to.
        whole: The whole script, if it has been read: then a reference to a line further
            down is told from one to no line at all.
    """

    def __init__(
        self, tools: Tools, known: Iterable[int] = (), whole: Script | None = None
    ) -> None:
        self._tools = tools
        self._known = frozenset(known)
        self._seen: set[int] = set()
        self._whole = {line.id: line for line in whole.lines} if whole else {}
        self._join_id = whole.end.id if whole and isinstance(whole.end, JoinMark) else None

    def opened(self, at: int, tool: str) -> None:
        """Checks what is known of line `at` at its opening bracket.

        Raises:
            PlanError: ``unknown_tool`` or ``duplicate_id``.
        """
        if tool not in self._tools and tool != GATHER:
            raise PlanError("unknown_tool", unknown_tool(tool, list(self._tools)), at)
        if at in self._seen:
            raise PlanError("duplicate_id", "the id is taken by an earlier line", at)

    def call(self, line: Line) -> None:
        """Checks a call at its closing bracket, and takes its id.

        Raises:
            PlanError: The call cannot be made.
        """
        self.opened(line.id, line.tool)
        verify_call(Node(line.tool, line.args, line.kwargs), self._tools, line.id)
        for value in line.values():
            for ref in refs(value):
                self._check_ref(ref, line)
        self._seen.add(line.id)

    def suffix(self, line: Line) -> None:
        """Checks the join policy and the guard, when the line is committed.

        Raises:
            PlanError: The policy does not fit the call, or the guard is no earlier line.
        """
        if line.join != JOIN_ALL:
            node = Node(line.tool, line.args, line.kwargs, join=line.join)
            verify_call(node, self._tools, line.id)
        if line.guard is not None:
            self._check_ref(line.guard, line)

    def end(self, end: End) -> None:
        """Checks what is returned.

        Raises:
            PlanError: ``missing_ref``.
        """
        for ref in refs(end.value) if isinstance(end, Return) else ():
            if ref.node not in self._seen and ref.node not in self._known:
                text = f"'return' uses ${ref.node}, and no line has that id"
                raise PlanError("missing_ref", text)

    def _check_ref(self, ref: Ref, line: Line) -> None:
        wanted = ref.node
        if wanted in self._known or (wanted in self._seen and wanted != line.id):
            return
        if wanted == line.id:
            raise PlanError("self_ref", "it uses its own value; refer to earlier lines", line.id)
        if (later := self._whole.get(wanted)) is not None:
            if any(back.node == line.id for back in later.refs()):
                text = f"it uses ${wanted}, and ${wanted} uses ${line.id}"
                raise PlanError("cycle", f"{text}: one must do without the other", line.id)
            raise PlanError(
                "forward_ref", f"it uses ${wanted}, which comes later: move that up", line.id
            )
        if wanted == self._join_id:
            text = f"it uses ${wanted}, which is the join and has no value"
            raise PlanError("forward_ref", text, line.id)
        raise PlanError(
            "missing_ref", f"it uses ${wanted}, and no earlier line has that id", line.id
        )


def check(script: Script, tools: Tools, known: Iterable[int] = ()) -> None:
    """Checks a whole script.

    Args:
        script: What was read.
        tools: Specs of the tools that may be called.
        known: Ids of earlier plans that may be referred to.

    Raises:
        PlanError: The first thing that is wrong, in the order of the text.
    """
    checker = LineChecker(tools, known, whole=script)
    for line in script.lines:
        checker.call(line)
        checker.suffix(line)
    checker.end(script.end)


def read_plan(text: str, tools: Tools, known: Iterable[int] = ()) -> Script:
    """Reads and checks a whole plan.

    Args:
        text: The plan.
        tools: Specs of the tools that may be called.
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
        check(reader.script, tools, known)  # what is wrong further up comes first
        raise
    check(reader.script, tools, known)
    return reader.script
