"""Plans for other programs: text, Mermaid and DOT to look at, JSON, a networkx graph.

Equal plans give equal text. An edge is solid where a value is used, dashed for a guard, and
dotted where a call only comes after another; calls that write stand out by their shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from agentflow.planner.plan import Answer, Plan, refs
from agentflow.planner.plan_json import plan_from_json, to_json
from agentflow.planner.printer import print_node, print_plan, print_value
from agentflow.planner.specs import Tools, effect
from agentflow.tools.spec import ToolSpec

if TYPE_CHECKING:
    import networkx  # type: ignore[import-untyped]  # it has no types

Edge: TypeAlias = tuple[int, int, str]
"""From, to, and how the second waits: ``value``, ``guard`` or ``after``, the strongest of them."""

LABEL_LIMIT = 100
"""Characters of a line that a box shows."""

_NO_TOOLS: Mapping[str, ToolSpec] = MappingProxyType({})

_MERMAID_SHAPES = {
    "pure": ('("', '")'),
    "reads": ('(["', '"])'),
    "samples": ('{{"', '"}}'),
    "writes": ('[["', '"]]'),
    "undeclared": ('["', '"]'),
}
_MERMAID_CLASSES = {
    "samples": "fill:#eef,stroke:#558",
    "writes": "fill:#fee,stroke:#a33,stroke-width:2px",
    "undeclared": "fill:#fff8e0,stroke:#a80",
}
_MERMAID_DASHES = {"guard": "6 4", "after": "1 4"}
_MERMAID_ESCAPES = str.maketrans({c: f"#{ord(c)};" for c in '"#<>&`\\\n\r'})

_DOT_NODES = {
    "pure": "shape=box, style=rounded",
    "reads": "shape=ellipse",
    "samples": "shape=hexagon",
    "writes": "shape=box, peripheries=2, color=firebrick",
    "undeclared": "shape=box, color=darkorange",
}
_DOT_EDGES = {"value": "", "guard": " [style=dashed, label=if]", "after": " [style=dotted]"}
_DOT_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})


def to_text(plan: Plan) -> str:
    """The plan in the notation."""
    return print_plan(plan)


def to_mermaid(plan: Plan, tools: Tools = _NO_TOOLS) -> str:
    """The plan as a Mermaid flowchart.

    Args:
        plan: The plan.
        tools: Specs that tell the effects of its calls.
    """
    lines = ["flowchart TD"]
    for index in _earlier(plan):
        lines.append(f'  n{index}["${index + 1}"]')
    for index, node in plan.items():
        looks = effect(tools, node.tool).kind
        left, right = _MERMAID_SHAPES[looks]
        mark = f":::{looks}" if looks in _MERMAID_CLASSES else ""
        label = _label(print_node(index, node)).translate(_MERMAID_ESCAPES)
        lines.append(f"  n{index}{left}{label}{right}{mark}")
    links = list(edges(plan))
    lines += [f"  n{a} -->{'|if|' if kind == 'guard' else ''} n{b}" for a, b, kind in links]
    if end := _end(plan):
        lines.append(f'  result(["{_label(end).translate(_MERMAID_ESCAPES)}"])')
        lines += [f"  n{index} --> result" for index in _last(plan)]
    for place, (_, _, kind) in enumerate(links):
        if kind in _MERMAID_DASHES:
            lines.append(f"  linkStyle {place} stroke-dasharray:{_MERMAID_DASHES[kind]}")
    lines += [f"  classDef {kind} {style}" for kind, style in _MERMAID_CLASSES.items()]
    return "".join(f"{line}\n" for line in lines)


def to_dot(plan: Plan, tools: Tools = _NO_TOOLS) -> str:
    """The plan as a Graphviz digraph.

    Args:
        plan: The plan.
        tools: Specs that tell the effects of its calls.
    """
    lines = ["digraph plan {", "  node [fontname=monospace];"]
    for index in _earlier(plan):
        lines.append(f'  n{index} [shape=plaintext, label="${index + 1}"];')
    for index, node in plan.items():
        label = _label(print_node(index, node)).translate(_DOT_ESCAPES)
        style = _DOT_NODES[effect(tools, node.tool).kind]
        lines.append(f'  n{index} [{style}, label="{label}"];')
    lines += [
        f"  n{source} -> n{target}{_DOT_EDGES[kind]};" for source, target, kind in edges(plan)
    ]
    if end := _end(plan):
        lines.append(f'  result [shape=plaintext, label="{_label(end).translate(_DOT_ESCAPES)}"];')
        lines += [f"  n{index} -> result;" for index in _last(plan)]
    return "".join(f"{line}\n" for line in [*lines, "}"])


def to_networkx(plan: Plan, tools: Tools = _NO_TOOLS) -> networkx.DiGraph:
    """The plan as a networkx DiGraph.

    Nodes are ids, with ``tool``, ``text``, ``effect``, ``rank`` and ``speculable``; those of
    earlier segments have no attributes. Edges have a ``kind``: ``value``, ``guard`` or ``after``.

    Args:
        plan: The plan.
        tools: Specs that tell the effects of its calls.
    """
    import networkx as nx  # a tenth of a second, for exports only

    graph = nx.DiGraph()
    graph.add_nodes_from(_earlier(plan))
    for index, node in plan.items():
        graph.add_node(
            index,
            tool=node.tool,
            text=print_node(index, node),
            effect=str(effect(tools, node.tool)),
            rank=node.rank,
            speculable=node.speculable,
        )
    for source, target, kind in edges(plan):
        graph.add_edge(source, target, kind=kind)
    return graph


def edges(plan: Plan) -> Iterator[Edge]:
    """Who waits for whom, in program order of who waits."""
    for index, node in plan.items():
        kinds = dict.fromkeys(node.waits_for(), "after")
        if node.guard is not None:
            kinds[node.guard.node] = "guard"
        for value in node.values():
            kinds.update((ref.node, "value") for ref in refs(value))
        for source in sorted(kinds):
            yield source, index, kinds[source]


def _earlier(plan: Plan) -> list[int]:
    """Ids of earlier segments that the plan uses."""
    used = {dep for node in plan.nodes for dep in node.waits_for()} | set(_last(plan))
    return sorted(index for index in used if index < plan.base)


def _last(plan: Plan) -> list[int]:
    """Ids whose values make the result."""
    if plan.result is Answer.NOTHING:
        return []
    if plan.result is Answer.JOIN:
        users = zip(plan.items(), plan.edges.users, strict=True)
        return [index for (index, _), waiting in users if not waiting]
    return sorted({ref.node for ref in refs(plan.result)})


def _end(plan: Plan) -> str:
    if isinstance(plan.result, Answer):
        return "join()" if plan.result is Answer.JOIN else ""
    return f"return {print_value(plan.result, shift=1)}"


def _label(text: str) -> str:
    return text if len(text) <= LABEL_LIMIT else f"{text[: LABEL_LIMIT - 1]}…"


__all__ = [
    "LABEL_LIMIT",
    "Edge",
    "edges",
    "plan_from_json",
    "to_dot",
    "to_json",
    "to_mermaid",
    "to_networkx",
    "to_text",
]
