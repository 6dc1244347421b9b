"""Lay out prompts: model calls that share arguments share their first bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from operator import is_

from agentflow.planner.plan import Arg, Each, Node, Plan
from agentflow.planner.specs import Tools, effect
from agentflow.tools.spec import ToolSpec


def lay_out_prompts(plan: Plan, tools: Tools) -> Plan:
    """Write the arguments of calls that sample a model in one order.

    Names stand in the order of the parameters; further names, and the keys of objects, in
    alphabetical order. Equal arguments are then rendered to equal bytes, which a server that
    keeps prefixes computes once.
    """
    nodes = tuple(
        _laid_out(node, tools[node.tool]) if effect(tools, node.tool).kind == "samples" else node
        for node in plan.nodes
    )
    if all(map(is_, nodes, plan.nodes)):
        return plan
    return replace(plan, nodes=nodes)


def _laid_out(node: Node, spec: ToolSpec) -> Node:
    place = {parameter.name: i for i, parameter in enumerate(spec.parameters)}
    last = len(place)
    names = [name for name, _ in node.kwargs]
    if sorted(names, key=lambda name: (place.get(name, last), name)) == names and all(
        map(_in_order, node.values())
    ):
        return node
    kwargs = sorted(node.kwargs, key=lambda item: (place.get(item[0], last), item[0]))
    return replace(
        node,
        args=tuple(map(_sorted, node.args)),
        kwargs=tuple((name, _sorted(value)) for name, value in kwargs),
    )


def _in_order(value: Arg) -> bool:
    kind = type(value)
    if kind is dict:
        return list(value) == _order(value) and all(map(_in_order, value.values()))
    if kind is list or kind is tuple:
        return all(map(_in_order, value))
    return _in_order(value.source) if kind is Each else True


def _sorted(value: Arg) -> Arg:
    kind = type(value)
    if kind is dict:
        return {key: _sorted(value[key]) for key in _order(value)}
    if kind is list or kind is tuple:
        return kind(map(_sorted, value))
    return Each(_sorted(value.source)) if kind is Each else value


def _order(keys: Iterable[Arg]) -> list[Arg]:
    """Alphabetical; as written if a key is not text."""
    keys = list(keys)
    return sorted(keys) if all(isinstance(key, str) for key in keys) else keys
