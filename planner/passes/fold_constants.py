"""Fold constants: what is known when the plan is read is not left for the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from operator import is_
from typing import Any

from agentflow.planner.plan import GATHER, JOIN_ALL, Arg, Each, Node, Plan, Ref, Template, refs
from agentflow.planner.specs import Tools
from agentflow.tools.paths import resolve

_Known = Mapping[int, list[Any]]
_SIMPLE = frozenset((str, int, float, bool, type(None), Ref))


def fold_constants(plan: Plan, tools: Tools) -> Plan:
    """Put known values where they are used.

    - A template without references is its text.
    - `gather` of literals is a list: paths into it are followed, guards that ask for it are
      dropped where it is true, and templates take text and whole numbers from it.
    - `each` over a literal list stays a map: its elements still run in parallel.

    A path that leads nowhere and a guard that is false are left as they are: they matter only
    when they are reached.
    """
    known: dict[int, list[Any]] = {}
    nodes = []
    for index, old in plan.items():
        node = _folded(old, known)
        nodes.append(node)
        if node.tool == GATHER and _is_literal_list(node):
            known[index] = list(node.args)
    result = _value(plan.result, known)
    if result is plan.result and all(map(is_, nodes, plan.nodes)):
        return plan
    return Plan(tuple(nodes), result, plan.base)


def _is_literal_list(node: Node) -> bool:
    if node.guard is not None or node.join != JOIN_ALL or node.kwargs or node.after:
        return False
    return not node.mapped and not any(True for value in node.args for _ in refs(value))


def _folded(node: Node, known: _Known) -> Node:
    if not known and all(type(value) in _SIMPLE for value in node.values()):
        return node
    args = tuple(_value(value, known) for value in node.args)
    kwargs = tuple((name, _value(value, known)) for name, value in node.kwargs)
    guard = node.guard
    if guard is not None and _literal(guard, known, False):
        guard = None
    same = guard is node.guard and all(map(is_, args, node.args))
    if same and all(new[1] is old[1] for new, old in zip(kwargs, node.kwargs, strict=True)):
        return node
    return replace(node, args=args, kwargs=kwargs, guard=guard)


def _value(value: Arg, known: _Known) -> Arg:
    """The argument with what is known put in; the same object if that changes nothing."""
    kind = type(value)
    if kind is Ref:
        return _literal(value, known, value)
    if kind is Template:
        return _text(value, known)
    if kind is Each:
        source = _value(value.source, known)
        return value if source is value.source or not _is_list(source) else Each(source)
    if kind is list or kind is tuple:
        items = kind(_value(item, known) for item in value)
        return value if all(map(is_, items, value)) else items
    if kind is dict:
        entries = {key: _value(item, known) for key, item in value.items()}
        return value if all(map(is_, entries.values(), value.values())) else entries
    return value


def _literal(ref: Ref, known: _Known, default: Any) -> Any:
    if ref.node not in known:
        return default
    try:
        return resolve(known[ref.node], ref.path)
    except LookupError:
        return default


def _text(template: Template, known: _Known) -> str | Template:
    parts: list[str | Ref] = []
    for part in template.parts:
        value = _literal(part, known, part) if type(part) is Ref else part
        if type(value) not in (str, int):
            parts.append(part)
        elif parts and isinstance(parts[-1], str):
            parts[-1] += str(value)
        else:
            parts.append(str(value))
    if not any(type(part) is Ref for part in parts):
        return "".join(map(str, parts))
    return template if tuple(parts) == template.parts else Template(tuple(parts))


def _is_list(value: Arg) -> bool:
    return isinstance(value, list | tuple)
