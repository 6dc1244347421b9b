"""Rewriting plans: small passes, a pipeline of them, and the driver that checks each.

A pass is a function ``Plan, Tools -> Plan``; it gives the plan it was given if it has nothing
to do. `docs/passes.md` says what each does and when that is legal.
"""

from agentflow.planner.passes.driver import PASSES, SEGMENT_PASSES, Pass, optimise, run_passes
from agentflow.planner.passes.drop_unused import drop_unused
from agentflow.planner.passes.explain import Change, annotated, explain
from agentflow.planner.passes.fold_constants import fold_constants
from agentflow.planner.passes.fuse_batches import fuse_batches
from agentflow.planner.passes.lay_out_prompts import lay_out_prompts
from agentflow.planner.passes.mark_speculable import mark_speculable
from agentflow.planner.passes.merge_equal import merge_equal
from agentflow.planner.passes.order_effects import order_effects
from agentflow.planner.passes.rank import rank

__all__ = [
    "PASSES",
    "SEGMENT_PASSES",
    "Change",
    "Pass",
    "annotated",
    "drop_unused",
    "explain",
    "fold_constants",
    "fuse_batches",
    "lay_out_prompts",
    "mark_speculable",
    "merge_equal",
    "optimise",
    "order_effects",
    "rank",
    "run_passes",
]
