"""Fuse batches: many small calls of a tool that can do many at once become one call."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from agentflow.planner.builder import identity
from agentflow.planner.canonical import bound
from agentflow.planner.passes.rewrite import Rewrite
from agentflow.planner.plan import JOIN_ALL, Answer, Arg, Node, Plan, Ref
from agentflow.planner.specs import Tools
from agentflow.tools.spec import ToolSpec


def fuse_batches(plan: Plan, tools: Tools) -> Plan:
    """Make one call of `Tool.batch` out of calls that become ready together.

    Legal in plans that say what they return (where a model reads the results, it reads them
    line by line), for calls of one tool that

    - differ in the first parameter only; the batch tool has all the others they give by name;
    - are not maps, and have no join policy or options of their own;
    - wait for the same calls, and have the same guard: so none depends on another, and none
      is held up by what only another needs;
    - compute, read or sample, as the batch tool does.

    The value of the k-th is then element k of the batch's value; a failure of the batch is
    the failure of each.
    """
    groups = {} if isinstance(plan.result, Answer) else _groups(plan, tools)
    if not groups:
        return plan
    rewrite = Rewrite(plan)
    for index, node in plan.items():
        group = groups.get(index)
        if group is None:
            rewrite.keep(index, node)
        elif group[0] == index:
            calls = [rewrite.rewired(plan.nodes[member - plan.base]) for member in group]
            batch = rewrite.add(_batch(calls, tools))
            for position, member in enumerate(group):
                rewrite.move(member, Ref(batch, (position,)))
    return rewrite.finish()


def _groups(plan: Plan, tools: Tools) -> dict[int, list[int]]:
    """For each call that can be fused the ids of all it is fused with, in order."""
    alike: dict[Hashable, list[int]] = {}
    for index, node in plan.items():
        spec = tools.get(node.tool)
        if spec is not None and spec.batch and (key := _key(node, spec, tools)) is not None:
            alike.setdefault(key, []).append(index)
    return {index: group for group in alike.values() if len(group) > 1 for index in group}


def _key(node: Node, spec: ToolSpec, tools: Tools) -> Hashable:
    """Equal for calls that can be fused; None for one that cannot be."""
    batch = tools.get(spec.batch)
    if batch is None or not (spec.effect.kind == batch.effect.kind and spec.effect.starts_early):
        return None
    if node.mapped or node.join != JOIN_ALL or node.options is not None:
        return None
    item, others = _split(node, spec)
    if item is None or not _fits({name for name, _ in others}, batch):
        return None
    shared = identity(Node(node.tool, kwargs=others, guard=node.guard))
    return None if shared is None else (shared, frozenset(node.waits_for()))


def _split(node: Node, spec: ToolSpec) -> tuple[Arg, tuple[tuple[str, Arg], ...]]:
    """The first parameter's argument, None if there is none, and the others by name."""
    named = bound(node, spec)
    item = named.pop(spec.parameters[0].name, None) if spec.parameters else None
    return item, tuple((str(name), value) for name, value in named.items())


def _fits(names: set[str], batch: ToolSpec) -> bool:
    """Whether the batch tool can be called with a list and arguments of these names."""
    if not batch.parameters:
        return False
    rest = batch.parameters[1:]
    required = {p.name for p in rest if p.required}
    return required <= names and (batch.open or names <= {p.name for p in rest})


def _batch(calls: list[Node], tools: Tools) -> Node:
    """The one call that does them all."""
    spec = tools[calls[0].tool]
    items = [_split(call, spec)[0] for call in calls]
    _, others = _split(calls[0], spec)
    name = tools[spec.batch].parameters[0].name
    return replace(calls[0], tool=spec.batch, args=(), kwargs=((name, items), *others))
