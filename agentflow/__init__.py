"""agentflow: an asyncio-native engine for agentic workflows.

The face of the package. Everything public is here, and is imported when first used, so that
``import agentflow`` stays light. May import every part.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentflow.budgets.allocation.cascade import CheapestFirst
    from agentflow.budgets.allocation.montecarlo import MonteCarlo
    from agentflow.budgets.allocation.situation import Allocator
    from agentflow.budgets.budget import Budget
    from agentflow.budgets.estimates import Estimates
    from agentflow.budgets.prices import Prices
    from agentflow.caches.caching import Caching
    from agentflow.caches.speculation.candidates import Candidate, CandidateSource
    from agentflow.caches.speculation.policy import Speculation
    from agentflow.caches.speculation.trail import Trail
    from agentflow.context import Context
    from agentflow.engine import Engine
    from agentflow.errors import AgentflowError
    from agentflow.executor.affinity.pool import Pool
    from agentflow.executor.journal.journal import Journal
    from agentflow.executor.run import Run
    from agentflow.executor.services import Limits
    from agentflow.executor.strategies.task import Task
    from agentflow.llms import llm
    from agentflow.planner.plan import Plan
    from agentflow.sessions import Session
    from agentflow.sync import run_sync
    from agentflow.tenants import Tenant
    from agentflow.tools.approval import Answer, Question
    from agentflow.tools.doubt import Done, NotDone
    from agentflow.tools.handle import Handle
    from agentflow.tools.streaming import Commit, Late, Stream, Warm
    from agentflow.tools.tool import Tool, tool
    from agentflow.tools.values import Outcome
    from agentflow.workflows import Workflow, first, gather, quorum, said, settled, workflow

__version__ = "0.1.0.dev0"

_HOME = {
    "AgentflowError": "errors",
    "Allocator": "budgets.allocation.situation",
    "Answer": "tools.approval",
    "Budget": "budgets.budget",
    "Caching": "caches.caching",
    "Candidate": "caches.speculation.candidates",
    "CandidateSource": "caches.speculation.candidates",
    "CheapestFirst": "budgets.allocation.cascade",
    "Commit": "tools.streaming",
    "Context": "context",
    "Done": "tools.doubt",
    "Engine": "engine",
    "Estimates": "budgets.estimates",
    "Handle": "tools.handle",
    "Journal": "executor.journal.journal",
    "Late": "tools.streaming",
    "Limits": "executor.services",
    "MonteCarlo": "budgets.allocation.montecarlo",
    "NotDone": "tools.doubt",
    "Outcome": "tools.values",
    "Plan": "planner.plan",
    "Pool": "executor.affinity.pool",
    "Prices": "budgets.prices",
    "Question": "tools.approval",
    "Run": "executor.run",
    "Session": "sessions",
    "Speculation": "caches.speculation.policy",
    "Stream": "tools.streaming",
    "Task": "executor.strategies.task",
    "Tenant": "tenants",
    "Tool": "tools.tool",
    "Trail": "caches.speculation.trail",
    "Warm": "tools.streaming",
    "Workflow": "workflows",
    "first": "workflows",
    "gather": "workflows",
    "llm": "llms",
    "quorum": "workflows",
    "run_sync": "sync",
    "said": "workflows",
    "settled": "workflows",
    "tool": "tools.tool",
    "workflow": "workflows",
}

__all__ = [
    "AgentflowError",
    "Allocator",
    "Answer",
    "Budget",
    "Caching",
    "Candidate",
    "CandidateSource",
    "CheapestFirst",
    "Commit",
    "Context",
    "Done",
    "Engine",
    "Estimates",
    "Handle",
    "Journal",
    "Late",
    "Limits",
    "MonteCarlo",
    "NotDone",
    "Outcome",
    "Plan",
    "Pool",
    "Prices",
    "Question",
    "Run",
    "Session",
    "Speculation",
    "Stream",
    "Task",
    "Tenant",
    "Tool",
    "Trail",
    "Warm",
    "Workflow",
    "first",
    "gather",
    "llm",
    "quorum",
    "run_sync",
    "said",
    "settled",
    "tool",
    "workflow",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'agentflow' has no attribute {name!r}")
    value = getattr(import_module(f"agentflow.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
