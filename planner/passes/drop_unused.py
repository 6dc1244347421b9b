"""Drop unused calls: pure ones whose value nobody needs are not made."""

from __future__ import annotations

from agentflow.planner.passes.rewrite import Rewrite
from agentflow.planner.plan import Answer, Plan, refs
from agentflow.planner.specs import Tools, effect


def drop_unused(plan: Plan, tools: Tools) -> Plan:
    """Leave out pure calls that neither the result nor another call uses.

    Only in plans that say what they return: where a model reads the results, it reads all.
    """
    if isinstance(plan.result, Answer):
        return plan
    needed = {ref.node for ref in refs(plan.result)}
    for position in reversed(range(len(plan.nodes))):
        index, node = plan.base + position, plan.nodes[position]
        if index in needed or effect(tools, node.tool).kind != "pure":
            needed.add(index)
            needed.update(node.waits_for())
    if needed.issuperset(range(plan.base, plan.base + len(plan.nodes))):
        return plan
    rewrite = Rewrite(plan)
    for index, node in plan.items():
        if index in needed:
            rewrite.keep(index, node)
    return rewrite.finish()
