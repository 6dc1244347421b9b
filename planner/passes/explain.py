"""What each pass changed, as lines a person can read."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agentflow.planner.plan import Node, Plan
from agentflow.planner.printer import print_plan


@dataclass(frozen=True, slots=True)
class Change:
    """What one pass did to a plan."""

    name: str
    before: Plan
    after: Plan


def explain(trace: Sequence[Change]) -> str:
    """The changes of every pass: lines that went after ``-``, lines that came after ``+``."""
    if not trace:
        return "no pass changed the plan"
    return "\n\n".join("\n".join(_lines(change)) for change in trace)


def annotated(plan: Plan) -> list[str]:
    """The printed lines of a plan, with what the notation does not say in a comment."""
    lines = print_plan(plan).splitlines()
    for position, node in enumerate(plan.nodes):
        if note := _note(node):
            lines[position] += f", {note}" if node.after else f"  # {note}"
    return lines


def _lines(change: Change) -> Iterator[str]:
    yield f"{change.name}:"
    for line in difflib.ndiff(annotated(change.before), annotated(change.after)):
        if not line.startswith("?"):
            yield f"  {line}"


def _note(node: Node) -> str:
    """What passes noted on a node; its order by effects is printed with the plan."""
    rank = f"rank {node.rank:g}" if node.rank else ""
    return ", ".join(filter(None, (rank, "speculable" if node.speculable else "")))
