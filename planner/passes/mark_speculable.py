"""Mark what may be speculated: calls that may start before anyone asked for them."""

from __future__ import annotations

from dataclasses import replace
from operator import is_

from agentflow.planner.plan import Node, Plan
from agentflow.planner.specs import Tools, effect


def mark_speculable(plan: Plan, tools: Tools) -> Plan:
    """Mark the calls that do nothing but compute, read or sample a model.

    A call that writes, or declares nothing, is never speculated.
    """
    nodes = tuple(_marked(node, effect(tools, node.tool).starts_early) for node in plan.nodes)
    if all(map(is_, nodes, plan.nodes)):
        return plan
    return replace(plan, nodes=nodes)


def _marked(node: Node, speculable: bool) -> Node:
    return node if node.speculable == speculable else replace(node, speculable=speculable)
