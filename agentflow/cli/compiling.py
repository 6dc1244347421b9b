"""Targets that have a plan before anything runs: texts, workflows and tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from agentflow.cli.targets import Member
from agentflow.planner.check import read_plan
from agentflow.planner.lower import lower
from agentflow.planner.passes import PASSES, SEGMENT_PASSES, Change, Pass, optimise
from agentflow.planner.plan import Answer, Node, Plan, Ref
from agentflow.planner.script import Return, Script
from agentflow.tools.spec import ToolSpec
from agentflow.workflows import Workflow

Specs: TypeAlias = Mapping[str, ToolSpec]


@dataclass(frozen=True)
class Compiled:
    """A plan, and how it came about.

    Attributes:
        script: What was read; None where the plan was not a text.
        plan: Before any pass.
        final: After all passes.
        specs: Of the tools it calls.
        changes: What each pass did.
    """

    script: Script | None
    plan: Plan
    final: Plan
    specs: Specs
    changes: list[Change] = field(default_factory=list)


def compiled_text(text: str, specs: Specs) -> Compiled:
    """The plan of a text in the notation.

    Raises:
        PlanError: It cannot be read, or cannot be run.
    """
    script = read_plan(text, specs)
    if not script.lines and not isinstance(script.end, Return):
        nothing = Plan((), Answer.JOIN)
        return Compiled(script, nothing, nothing, specs)  # it can be shown, and not be run
    return _optimised(script, lower(script, specs), specs, PASSES)


def compiled_member(member: Member) -> Compiled:
    """The plan of a workflow as far as it is known, or of one call of a tool.

    Raises:
        PlanError: It cannot be run.
    """
    if not isinstance(member.tool, Workflow):
        return _optimised(None, call_plan(member), {member.tool.name: member.tool.spec}, PASSES)
    plan = member.tool.plan(*member.args, **member.kwargs)
    specs = {tool.name: tool.spec for tool in member.beside}
    if not plan.nodes or any(node.tool not in specs for node in plan.nodes):
        return Compiled(None, plan, plan, specs)  # tools from elsewhere: what they do is not known
    return _optimised(None, plan, specs, SEGMENT_PASSES)


def call_plan(member: Member) -> Plan:
    """A plan of one call, which gives its value."""
    call = Node(member.tool.name, member.args, tuple(member.kwargs.items()))
    return Plan((call,), Ref(0))


def _optimised(
    script: Script | None, plan: Plan, specs: Specs, passes: tuple[Pass, ...]
) -> Compiled:
    changes: list[Change] = []
    final = optimise(plan, specs, passes, changes)
    return Compiled(script, plan, final, specs, changes)
