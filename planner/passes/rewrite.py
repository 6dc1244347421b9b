"""What passes that move nodes share: copying a plan with nodes left out or replaced."""

from __future__ import annotations

from agentflow.planner.builder import renumbered, rewired
from agentflow.planner.plan import Answer, Node, Plan, Ref


class Rewrite:
    """Copies a plan node by node, in order, and follows what moved.

    Args:
        plan: The plan before. Ids below its base stay as they are.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._nodes: list[Node] = []
        self._moved: dict[int, Ref] = {}

    def at(self, ref: Ref) -> Ref:
        """Where a value of the plan before is to be found."""
        moved = self._moved.get(ref.node)
        return ref if moved is None else Ref(moved.node, moved.path + ref.path)

    def rewired(self, node: Node) -> Node:
        """A node of the plan before, using values where they are now."""
        if self._moved and not self._moved.keys().isdisjoint(node.waits_for()):
            return rewired(node, self.at)
        return node

    def add(self, node: Node) -> int:
        """Add a node, rewired already, and return its id."""
        self._nodes.append(node)
        return self._plan.base + len(self._nodes) - 1

    def move(self, index: int, to: Ref) -> None:
        """The value that node `index` had is to be found at `to`."""
        if to != Ref(index):
            self._moved[index] = to

    def keep(self, index: int, node: Node) -> None:
        """Copy node `index`."""
        self.move(index, Ref(self.add(self.rewired(node))))

    def finish(self) -> Plan:
        """The new plan; the old one if nothing was left out or moved."""
        if not self._moved and len(self._nodes) == len(self._plan.nodes):
            return self._plan
        result = self._plan.result
        if not isinstance(result, Answer):
            result = renumbered(result, self.at)
        return Plan(tuple(self._nodes), result, self._plan.base)
