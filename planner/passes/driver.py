"""The pipeline of passes, and the driver that verifies a plan after each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from agentflow.planner.passes.drop_unused import drop_unused
from agentflow.planner.passes.explain import Change
from agentflow.planner.passes.fold_constants import fold_constants
from agentflow.planner.passes.fuse_batches import fuse_batches
from agentflow.planner.passes.lay_out_prompts import lay_out_prompts
from agentflow.planner.passes.mark_speculable import mark_speculable
from agentflow.planner.passes.merge_equal import merge_equal
from agentflow.planner.passes.order_effects import order_effects
from agentflow.planner.passes.rank import rank
from agentflow.planner.plan import Plan
from agentflow.planner.specs import Tools
from agentflow.planner.verify import verify

Pass: TypeAlias = Callable[[Plan, Tools], Plan]

PASSES: tuple[Pass, ...] = (
    fold_constants,
    merge_equal,
    drop_unused,
    order_effects,
    fuse_batches,
    lay_out_prompts,
    rank,
    mark_speculable,
)
"""What is done to a whole plan, in this order."""

SEGMENT_PASSES: tuple[Pass, ...] = (fuse_batches, lay_out_prompts, rank)
"""What is left to do to a segment of a workflow: the builder has merged and ordered its calls."""


def optimise(
    plan: Plan,
    tools: Tools,
    passes: Sequence[Pass] = PASSES,
    trace: list[Change] | None = None,
) -> Plan:
    """Run passes over a plan, verifying it before the first and after each that changed it.

    Args:
        plan: The plan.
        tools: Specs of the tools it may call.
        passes: What to run, in order.
        trace: Takes a `Change` for every pass that changed something.

    Raises:
        PlanError: The plan cannot be run, or a pass broke it; the text names the pass.
    """
    verify(plan, tools)
    return run_passes(plan, tools, passes, trace)


def run_passes(
    plan: Plan,
    tools: Tools,
    passes: Sequence[Pass] = SEGMENT_PASSES,
    trace: list[Change] | None = None,
) -> Plan:
    """As `optimise`, for a plan that is known to be sound, such as a segment of a workflow.

    Raises:
        PlanError: A pass broke the plan; the text names it.
    """
    for step in passes:
        before, plan = plan, step(plan, tools)
        if plan is before:
            continue
        name = pass_name(step)
        verify(plan, tools, after=name, before=before)
        if trace is not None:
            trace.append(Change(name, before, plan))
    return plan


def pass_name(step: Pass) -> str:
    """The name of a pass; of a `functools.partial` that of its function."""
    function = getattr(step, "func", step)
    return str(getattr(function, "__name__", type(function).__name__))
