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
    notes = [_note(node) for node in plan.nodes]
    marked = [f"{line}  # {note}" if note else line for line, note in zip(lines, notes)]
    return marked + lines[len(notes) :]


def _lines(change: Change) -> Iterator[str]:
    yield f"{change.name}:"
    before, after = annotated(change.before), annotated(change.after)
    for line in difflib.ndiff(before, after):
        if not line.startswith("?"):
            yield f"  {line}"


def _note(node: Node) -> str:
    notes = []
    if node.after:
        notes.append("after " + ", ".join(f"${index}" for index in node.after))
    if node.rank:
        notes.append(f"rank {node.rank:g}")
    if node.speculable:
        notes.append("speculable")
    return ", ".join(notes)
