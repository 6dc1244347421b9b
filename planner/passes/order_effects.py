"""Order by effects: writes stay in program order, and reads see the writes before them."""

from __future__ import annotations

from dataclasses import replace
from operator import is_

from agentflow.planner.order import EffectOrder
from agentflow.planner.plan import Node, Plan
from agentflow.planner.specs import Tools


def order_effects(plan: Plan, tools: Tools) -> Plan:
    """Let calls come after the earlier calls of the plan that they conflict with.

    Two calls conflict if one writes a resource that the other touches. Calls that are pure,
    sample a model or declare nothing are not ordered.
    """
    if len(plan.nodes) < 2:
        return plan
    order = EffectOrder()
    nodes = tuple(_ordered(order, tools, index, node) for index, node in plan.items())
    if all(map(is_, nodes, plan.nodes)):
        return plan
    return replace(plan, nodes=nodes)


def _ordered(order: EffectOrder, tools: Tools, index: int, node: Node) -> Node:
    spec = tools.get(node.tool)
    if spec is None or not spec.effect.resources:
        return node
    note = order.write if spec.effect.kind == "writes" else order.read
    found = note(index, spec.effect.touched(spec.bind(node.args, dict(node.kwargs))))
    after = tuple(dict.fromkeys((*node.after, *found)))
    return node if after == node.after else replace(node, after=after)
