"""What each pass changed, as lines a person can read."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agentflow.planner.plan import Node, Plan
from agentflow.planner.printer import print_plan

CONTEXT = 2
"""Unchanged lines shown before and after a change."""


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
    """The name of the pass, and what it changed with a few lines around."""
    yield f"{change.name}:"
    before, after = annotated(change.before), annotated(change.after)
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for number, group in enumerate(matcher.get_grouped_opcodes(CONTEXT)):
        if number:
            yield "    ..."
        for tag, old, old_end, new, new_end in group:
            gone, come = before[old:old_end], after[new:new_end]
            if tag == "equal":
                yield from (f"    {line}" for line in come)
            elif len(gone) == len(come):
                for pair in zip(gone, come, strict=True):
                    yield from (f"  {sign} {line}" for sign, line in zip("-+", pair, strict=True))
            else:
                yield from (f"  - {line}" for line in gone)
                yield from (f"  + {line}" for line in come)


def _note(node: Node) -> str:
    """What passes noted on a node; its order by effects is printed with the plan."""
    rank = f"rank {node.rank:g}" if node.rank else ""
    return ", ".join(filter(None, (rank, "speculable" if node.speculable else "")))
