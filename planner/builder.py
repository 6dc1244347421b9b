"""Grows plans: value numbering and order by effects, one node at a time.

The same builder serves whole plans, streamed lines and the segments of a workflow: a run
keeps one builder, and each segment is the part of the plan that joined since the last.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace

from agentflow.planner.canonical import bound, canonical
from agentflow.planner.order import EffectOrder
from agentflow.planner.plan import GATHER, Answer, Arg, Each, Node, Plan, Ref, Template
from agentflow.tools.effects import PURE, UNDECLARED, Effect
from agentflow.tools.spec import ToolSpec


class Builder:
    """Builds one plan, or the segments of one, node by node.

    Args:
        spec: The spec of a tool by name; None for one that declares nothing.
        base: Id of the first node.
    """

    def __init__(self, spec: Callable[[str], ToolSpec | None], base: int = 0) -> None:
        self._spec = spec
        self._ids: dict[Hashable, int] = {}
        self._forgotten: set[int] = set()
        self._order = EffectOrder()
        self._nodes: list[Node] = []
        self._base = base

    @property
    def next_id(self) -> int:
        """The id that the next new node gets."""
        return self._base + len(self._nodes)

    def add(self, node: Node) -> int:
        """Add a call and return its id; an equal pure call gives the id it has already."""
        spec = self._spec(node.tool)
        effect = effect_of(node.tool, spec)
        if effect.kind == "pure":
            return self._intern(node, spec)
        index = self.next_id
        if effect.resources and spec is not None:
            note = self._order.write if effect.kind == "writes" else self._order.read
            after = note(index, effect.touched(spec.bind(node.args, dict(node.kwargs))))
            if after:
                node = replace(node, after=tuple(dict.fromkeys((*node.after, *after))))
        self._nodes.append(node)
        return index

    def forget(self, index: int) -> None:
        """A pure call failed or was cancelled: an equal call is made anew."""
        self._forgotten.add(index)

    def moved(self, homes: Mapping[int, Ref], next_id: int) -> None:
        """Passes rewrote the nodes of the last cut: where their values are now."""
        self._base = next_id
        self._order.moved({old: home.node for old, home in homes.items()})
        for key, index in list(self._ids.items()):
            if (home := homes.get(index)) is not None:
                if home.path:
                    del self._ids[key]
                else:
                    self._ids[key] = home.node

    def cut(self, result: Arg | Answer = Answer.NOTHING) -> Plan:
        """The nodes added since the last cut, as a plan of their own."""
        plan = Plan(tuple(self._nodes), result, self._base)
        self._base += len(self._nodes)
        self._nodes = []
        return plan

    def _intern(self, node: Node, spec: ToolSpec | None) -> int:
        index = self.next_id
        try:
            key = _key(node, spec)
            known = self._ids.setdefault(key, index)
        except (TypeError, RecursionError):  # it is equal to nothing else
            known = index
        if known != index and known not in self._forgotten:
            return known
        if known != index:
            self._ids[key] = index
        self._nodes.append(node)
        return index


def effect_of(tool: str, spec: ToolSpec | None) -> Effect:
    """The effect of calls of a tool; `gather` is pure."""
    if spec is None:
        return PURE if tool == GATHER else UNDECLARED
    return spec.effect


def identity(node: Node, spec: ToolSpec | None = None) -> Hashable:
    """Equal for calls that are interchangeable if their tool is pure; None if it has no key."""
    try:
        key = _key(node, spec)
        hash(key)
    except (TypeError, RecursionError):  # an argument, or the options, cannot be compared
        return None
    return key


def _key(node: Node, spec: ToolSpec | None) -> Hashable:
    join = None if node.join.kind == "all" else node.join
    return (node.tool, _arguments(node, spec), node.guard, join, node.options, node.after)


def _arguments(node: Node, spec: ToolSpec | None) -> Hashable:
    """The arguments' key: by position as far as they fill the parameters, then by name."""
    if not node.kwargs:
        return tuple([canonical(value) for value in node.args])
    given = bound(node, spec)
    first: list[Hashable] = []
    for parameter in () if spec is None else spec.parameters:
        if parameter.keyword_only or parameter.name not in given:
            break
        first.append(canonical(given.pop(parameter.name)))
    rest = frozenset([(name, canonical(value)) for name, value in given.items()])
    return (*first, rest) if rest else tuple(first)


def renumbered(value: Arg, ids: Callable[[Ref], Ref]) -> Arg:
    """An argument with every reference replaced by `ids` of it."""
    kind = type(value)
    if kind is Ref:
        return ids(value)
    if kind is Template:
        return Template(tuple(ids(part) if type(part) is Ref else part for part in value.parts))
    if kind is Each:
        return Each(renumbered(value.source, ids))
    if kind is list or kind is tuple:
        return kind(renumbered(item, ids) for item in value)
    if kind is dict:
        return {key: renumbered(item, ids) for key, item in value.items()}
    return value


def rewired(node: Node, ids: Callable[[Ref], Ref]) -> Node:
    """A node with every use of a value replaced by `ids` of it."""
    return replace(
        node,
        args=tuple(renumbered(value, ids) for value in node.args),
        kwargs=tuple((name, renumbered(value, ids)) for name, value in node.kwargs),
        guard=None if node.guard is None else ids(node.guard),
        after=tuple(dict.fromkeys(ids(Ref(index)).node for index in node.after)),
    )
