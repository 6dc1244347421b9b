"""Merge equal pure calls: the same call twice is made once."""

from __future__ import annotations

from collections.abc import Hashable

from agentflow.planner.builder import identity
from agentflow.planner.passes.rewrite import Rewrite
from agentflow.planner.plan import Plan, Ref
from agentflow.planner.specs import Tools, effect


def merge_equal(plan: Plan, tools: Tools) -> Plan:
    """Keep the first of equal pure calls with equal guards and policies (value numbering)."""
    if len(plan.nodes) < 2:
        return plan
    rewrite = Rewrite(plan)
    first: dict[Hashable, int] = {}
    for index, old in plan.items():
        node = rewrite.rewired(old)
        key = identity(node, tools.get(node.tool)) if _is_pure(tools, node.tool) else None
        known = None if key is None else first.get(key)
        if known is None:
            known = rewrite.add(node)
            if key is not None:
                first[key] = known
        rewrite.move(index, Ref(known))
    return rewrite.finish()


def _is_pure(tools: Tools, tool: str) -> bool:
    return effect(tools, tool).kind == "pure"
