"""Exit codes, and which of them an error leads to."""

from __future__ import annotations

from agentflow.errors import (
    ArgumentError,
    BackendError,
    BudgetExceeded,
    DeadlineExceeded,
    DefinitionError,
    DependencyFailed,
    OutOfReach,
    PlanError,
    RunError,
    RunPaused,
)

OK = 0
FAILED = 1
USAGE = 2
PLAN = 3
BACKEND = 4
LIMIT = 5
WAITING = 6
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143

MEANINGS = {
    OK: "it went well",
    FAILED: "it failed: a call, the workflow's code, an unusable answer, an unreadable cache, a missing or unreadable journal",
    USAGE: "wrong usage: an option, a file, a setting or an argument",
    PLAN: "the plan cannot be run",
    BACKEND: "the model's endpoint failed",
    LIMIT: "the budget or the deadline was reached",
    WAITING: "the run waits for an answer: agentflow approve, or deny",
    INTERRUPTED: "interrupted (Ctrl-C); 143 when terminated, 141 when the output's reader left",
}


def code_of(error: BaseException) -> int:
    """The exit code for an error; for the end of a run that of its cause."""
    if isinstance(error, RunPaused):
        return WAITING
    if isinstance(error, BudgetExceeded):
        return LIMIT
    if isinstance(error, OutOfReach | DeadlineExceeded):
        return BACKEND if isinstance(error.__cause__, BackendError) else LIMIT
    if isinstance(error, RunError | DependencyFailed):
        cause = error.__cause__
        return FAILED if cause is None or isinstance(cause, ArgumentError) else code_of(cause)
    if isinstance(error, PlanError):
        return PLAN
    if isinstance(error, BackendError):
        return BACKEND
    if isinstance(error, DefinitionError | ArgumentError):
        return USAGE
    return FAILED
