"""Lowering: the lines of a script become nodes of a plan.

Text ids become node ids. Equal pure calls with equal guards and policies become one node, and
calls that touch the same resources are ordered, both by the builder.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentflow.errors import PlanError
from agentflow.planner.builder import Builder, renumbered
from agentflow.planner.plan import Answer, Arg, Node, Plan, Ref
from agentflow.planner.script import End, JoinMark, Line, Script
from agentflow.planner.specs import Tools
from agentflow.planner.verify import verify, verify_call


class Lowering:
    """Lowers the lines of one script, one by one, as they are read.

    Args:
        builder: Takes the nodes.
        tools: Specs of the tools that lines may call.
        known: Node ids by text id of what earlier plans of the same run defined.
        checked: The lines have passed a `LineChecker`, and are not verified again.

    Attributes:
        ids: Node id by text id of everything that may be referred to.
    """

    def __init__(
        self,
        builder: Builder,
        tools: Tools,
        known: Mapping[int, int] | None = None,
        *,
        checked: bool = False,
    ) -> None:
        self.ids: dict[int, int] = dict(known or {})
        self._builder = builder
        self._tools = tools
        self._checked = checked
        self._own: set[int] = set()

    def line(self, line: Line) -> int:
        """Add a line and return the id of its node.

        Raises:
            PlanError: The line cannot be run.
        """
        if line.id in self._own:
            raise PlanError("duplicate_id", "the id is taken by an earlier line", line.id)

        def ids(ref: Ref) -> Ref:
            return self._node(ref, line.id)

        node = Node(
            line.tool,
            tuple(renumbered(value, ids) for value in line.args),
            tuple((name, renumbered(value, ids)) for name, value in line.kwargs),
            None if line.guard is None else ids(line.guard),
            line.join,
            label=line.id,
        )
        if not self._checked:
            verify_call(node, self._tools, line.id)
        index = self._builder.add(node)
        self.ids[line.id] = index
        self._own.add(line.id)
        return index

    def retract(self, line: int) -> int:
        """Take a line back, so that it can be added differently; the id its node has."""
        self._own.discard(line)
        return self.ids.pop(line)

    def end(self, end: End) -> Arg | Answer:
        """The result of the plan, for the end of its text.

        Raises:
            PlanError: It uses an id that no line has.
        """
        if end is None:
            return Answer.NOTHING
        if isinstance(end, JoinMark):
            return Answer.JOIN
        return renumbered(end.value, lambda ref: self._node(ref, None))

    def _node(self, ref: Ref, at: int | None) -> Ref:
        index = self.ids.get(ref.node)
        if index is not None:
            return Ref(index, ref.path)
        if ref.node == at:
            raise PlanError("self_ref", "it uses its own value", at)
        user = "it" if at is not None else "'return'"
        raise PlanError(
            "missing_ref", f"{user} uses ${ref.node}, which no earlier line defines", at
        )


def lower(script: Script, tools: Tools) -> Plan:
    """The plan of a whole script.

    Raises:
        PlanError: A line cannot be run.
    """
    builder = Builder(tools.get)
    lowering = Lowering(builder, tools)
    for line in script.lines:
        lowering.line(line)
    plan = builder.cut(lowering.end(script.end))
    verify(plan, tools, before=plan)
    return plan
