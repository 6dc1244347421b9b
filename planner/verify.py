"""Verification: a plan that passes can be run, as far as that is known without running it.

Whole plans are verified as they were read, and again after every pass that changed them; the
calls of a streamed plan one by one, as they join it.
"""

from __future__ import annotations

from typing import NoReturn

from agentflow.errors import ArgumentError, PlanError
from agentflow.planner.literals import mismatch
from agentflow.planner.plan import (
    GATHER,
    JOIN_ALL,
    JOIN_KINDS,
    Answer,
    Arg,
    Each,
    Node,
    Plan,
    Ref,
    refs,
)
from agentflow.planner.specs import Tools
from agentflow.tools.spec import ToolSpec, unknown_tool
from agentflow.wording import nearest

READING = "reading"
"""What `verify` is told of a plan that no pass has touched."""

_HOLDERS = frozenset((list, tuple, dict))


def verify(plan: Plan, tools: Tools, after: str = READING, before: Plan | None = None) -> None:
    """Check that every line of a plan can be run.

    Args:
        plan: What to check.
        tools: Specs of the tools it may call.
        after: Name of the pass that made the plan, for messages.
        before: A verified plan: of calls it shares with `plan` only the order is checked.

    Raises:
        PlanError: A line cannot be run; `kind` and `at` say why and where.
    """
    known = set() if before is None else set(map(_call, before.nodes))
    try:
        if not plan.nodes and not plan.base and isinstance(plan.result, Answer):
            raise PlanError("empty_plan", "the plan has no calls: there is nothing to run")
        for index, node in plan.items():
            if not known or _call(node) not in known:
                verify_call(node, tools, line_id(index, node))
            _check_order(plan, index, node)
        _check_result(plan)
    except PlanError as error:
        if after == READING:
            raise
        broken = PlanError(error.kind, f"after {after}: {error}")
        broken.at = error.at
        raise broken from None


def _call(node: Node) -> tuple[str, int, int, int]:
    """The same for nodes that share their arguments and policy, as copies by `replace` do."""
    return node.tool, id(node.args), id(node.kwargs), id(node.join)


def verify_call(node: Node, tools: Tools, at: int | None) -> None:
    """Check one call by itself: its tool, its arguments and its policy.

    Raises:
        PlanError: It cannot be made; `at` is the line it names, None for a call without one.
    """
    spec = tools.get(node.tool)
    literal = _check_arguments(node, at)
    if spec is not None:
        _check_signature(node, spec, at)
        _check_literals(node, spec, literal, at)
    elif node.tool != GATHER:
        raise PlanError("unknown_tool", unknown_tool(node.tool, list(tools)), at)
    elif node.kwargs or node.mapped:
        raise PlanError("bad_args", f"{GATHER} takes values without names or 'each'", at)
    if node.join is not JOIN_ALL:
        _check_join(node, at)


def _check_arguments(node: Node, at: int | None) -> bool:
    """Check where `each` stands; whether every argument is a literal."""
    literal = True
    lengths: set[int] = set()
    for value in node.values():
        if type(value) is Each:
            literal = False
            if type(value.source) in (list, tuple):
                lengths.add(len(value.source))
            elif type(value.source) is not Ref:
                raise PlanError("bad_args", "'each' takes a reference or a list", at)
            value = value.source
        if type(value) in _HOLDERS and _holds_each(value):
            raise PlanError("bad_args", "'each' stands before a whole argument, not inside one", at)
        literal = literal and next(refs(value), None) is None
    if len(lengths) > 1:
        shown = " and ".join(map(str, sorted(lengths)))
        raise PlanError("bad_args", f"'each' of lists of {shown} elements do not pair up", at)
    return literal


def _holds_each(value: Arg) -> bool:
    items = value.values() if type(value) is dict else value
    return any(
        type(item) is Each or (type(item) in _HOLDERS and _holds_each(item)) for item in items
    )


def _check_signature(node: Node, spec: ToolSpec, at: int | None) -> None:
    """Check the number and the names of the arguments."""
    given = {name for name, _ in node.kwargs}
    positional = [p.name for p in spec.parameters if not p.keyword_only]
    if len(node.args) > len(positional) and not spec.rest:
        text = f"{spec.name} takes {_count(len(positional), 'argument')} by position"
        raise PlanError("arity", f"{text}, and {len(node.args)} are given: {_usage(spec)}", at)
    for name in positional[: len(node.args)]:
        if name in given:
            raise PlanError("arity", f"{spec.name} is given {name!r} twice: {_usage(spec)}", at)
    if len(given) < len(node.kwargs):
        raise PlanError("arity", f"{spec.name} is given a name twice: {_usage(spec)}", at)
    names = [p.name for p in spec.parameters]
    if not spec.open and (unknown := given.difference(names)):
        hint = nearest(min(unknown), names) if names else "It takes none."
        text = f"{spec.name} has no parameter {min(unknown)!r}. {hint}"
        raise PlanError("unknown_param", text, at)  # what is missing may be its symptom
    given.update(positional[: len(node.args)])
    for parameter in spec.parameters:
        if parameter.required and parameter.name not in given:
            text = f"{spec.name} needs {parameter.name!r}, which is not given: {_usage(spec)}"
            raise PlanError("arity", text, at)


def _check_literals(node: Node, spec: ToolSpec, literal: bool, at: int | None) -> None:
    """Check the values that are known: by the tool itself if all are, else by their schemas."""
    if literal and spec.check is not None:
        try:
            spec.check(node.args, dict(node.kwargs))
        except ArgumentError as error:
            raise PlanError("bad_args", str(error), at) from None
        return
    bound = spec.bind(node.args, dict(node.kwargs))
    for parameter in spec.parameters:
        if not parameter.schema or parameter.name not in bound:
            continue
        value = bound[parameter.name]
        values = value.source if type(value) is Each else (value,)
        for one in values if isinstance(values, list | tuple) else ():
            where = f"{spec.name}: argument {parameter.name!r}:"
            if wrong := mismatch(one, parameter.schema, spec.definitions):
                raise PlanError("bad_args", f"{where} {wrong}", at)


def _check_join(node: Node, at: int | None) -> None:
    join = node.join
    if join.kind not in JOIN_KINDS:
        text = f"there is no join policy {join.kind!r}. {nearest(join.kind, JOIN_KINDS)}"
        raise PlanError("bad_join", text, at)
    if join.kind == "quorum" and join.count < 1:
        raise PlanError("bad_join", f"{join} never waits: write quorum(1) or more", at)
    if join.kind == "all" or node.mapped:
        return
    if node.tool != GATHER:
        text = f"{join} waits for several values: it goes with 'each' or with {GATHER}"
        raise PlanError("bad_join", text, at)
    if join.count > len(node.args) or (join.kind == "first" and not node.args):
        text = f"{join} can never be reached: {_count(len(node.args), 'value')} given"
        raise PlanError("bad_join", text, at)


def _check_order(plan: Plan, index: int, node: Node) -> None:
    """Check that everything the node waits for comes earlier."""
    for dep in node.waits_for():
        if not 0 <= dep < index:
            _fail_order(plan, index, node, dep)


def _fail_order(plan: Plan, index: int, node: Node, dep: int) -> NoReturn:
    names = {other: line_id(other, user) for other, user in plan.items()}
    at = names[index]
    if dep not in names:
        raise PlanError("missing_ref", f"it uses ${dep + 1}, and no line has that id", at)
    if dep == index:
        raise PlanError("self_ref", "it uses its own value", at)
    if cycle := _cycle(plan, index):
        way = " -> ".join(f"${names[step]}" for step in cycle)
        raise PlanError("cycle", f"the lines wait for each other: {way}", at)
    raise PlanError("forward_ref", f"it uses ${names[dep]}, which comes later: move it up", at)


def _cycle(plan: Plan, index: int) -> list[int]:
    """A cycle through a node, from it back to it; empty if there is none."""
    import networkx as nx  # type: ignore[import-untyped]  # no types; slow, and only mistakes need it

    graph = nx.DiGraph((i, dep) for i, node in plan.items() for dep in node.waits_for())
    for dep in graph.successors(index):
        if nx.has_path(graph, dep, index):
            return [index, *nx.shortest_path(graph, dep, index)]
    return []


def _check_result(plan: Plan) -> None:
    if isinstance(plan.result, Answer):
        return
    end = plan.base + len(plan.nodes)
    for ref in refs(plan.result):
        if not 0 <= ref.node < end:
            text = f"'return' uses ${ref.node + 1}, and no line has that id"
            raise PlanError("missing_ref", text)
    if type(plan.result) is Each or (type(plan.result) in _HOLDERS and _holds_each(plan.result)):
        raise PlanError("bad_args", "'return' takes a value: 'each' makes calls, and it makes none")


def line_id(index: int, node: Node) -> int:
    """The id that messages call a node by: that of its line, or the one it is printed with."""
    return index + 1 if node.label is None else node.label


def _usage(spec: ToolSpec) -> str:
    """The signature in short, with a question mark after what may be left out."""
    names = [p.name if p.required else f"{p.name}?" for p in spec.parameters]
    return f"{spec.name}({', '.join(names)})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
