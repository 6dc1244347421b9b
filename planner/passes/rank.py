"""Rank by critical path: what the end of the plan waits for longest goes first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from agentflow.planner.plan import GATHER, Plan
from agentflow.planner.specs import Tools, effect

CALL_SECONDS = 1.0
"""What a call is taken to last when there is no estimate, in seconds."""

MODEL_SECONDS = 4.0
"""The same of a call that samples a model."""

_NONE: Mapping[str, float] = MappingProxyType({})


def rank(plan: Plan, tools: Tools, seconds: Mapping[str, float] = _NONE) -> Plan:
    """Give every call its upward rank: seconds from its start to the end of the plan.

    The rank is the longest way over the calls that wait for it, as in HEFT (Topcuoglu, Hariri
    and Wu, 2002, section 4.1); larger is more urgent.

    Args:
        plan: The plan.
        tools: Specs of the tools it calls.
        seconds: Estimated latency by tool.
    """
    if len(plan.nodes) < 2:
        return plan
    cost = {name: _estimate(name, tools, seconds) for name in {n.tool for n in plan.nodes}}
    ranks = [0.0] * len(plan.nodes)
    for position in reversed(range(len(plan.nodes))):
        node = plan.nodes[position]
        ranks[position] = longest = ranks[position] + cost[node.tool]
        for dep in node.waits_for():
            if dep >= plan.base and ranks[dep - plan.base] < longest:
                ranks[dep - plan.base] = longest
    if all(node.rank == value for node, value in zip(plan.nodes, ranks, strict=True)):
        return plan
    nodes = (replace(node, rank=value) for node, value in zip(plan.nodes, ranks, strict=True))
    return replace(plan, nodes=tuple(nodes))


def _estimate(tool: str, tools: Tools, seconds: Mapping[str, float]) -> float:
    if tool == GATHER:
        return 0.0
    usual = MODEL_SECONDS if effect(tools, tool).kind == "samples" else CALL_SECONDS
    return seconds.get(tool, usual)
