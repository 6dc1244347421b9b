"""How calls end that are not made, and runs that fail, and what their errors say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.errors import (
    BudgetExceeded,
    CallCancelled,
    CallSkipped,
    DependencyFailed,
    OutOfReach,
    PathError,
    RunFailed,
)
from agentflow.executor.state.commands import CANCELLED, FAILED, SKIPPED, Status
from agentflow.executor.state.schedule import End
from agentflow.planner.plan import GATHER, Join
from agentflow.wording import described, root_cause


def guard_was_false(tool: str, node: int) -> End:
    """The call is skipped."""
    why = f"{tool} was skipped: its guard was false"
    return SKIPPED, CallSkipped(why, tool=tool, node=node)


def needs_lost(tool: str, node: int, lost: str, status: Status, cause: BaseException) -> End:
    """The call needs the value of a call of `lost`, which ended with `status` instead."""
    why = f"{tool} needs the value of {lost}, which"
    if status is FAILED:
        if isinstance(cause, DependencyFailed) and cause.__cause__ is not None:
            cause = cause.__cause__  # the root: a long chain would repeat all its links
        error = DependencyFailed(f"{why} failed: {described(cause)}", tool=tool, node=node)
        error.__cause__ = cause
        return FAILED, error
    if status is CANCELLED:
        return CANCELLED, CallCancelled(f"{why} was cancelled", tool=tool, node=node)
    return SKIPPED, CallSkipped(f"{why} was skipped", tool=tool, node=node)


def out_of_reach(join: Join, inputs: int, node: int, cause: Any) -> End:
    """Too few inputs of a gather are left for its policy."""
    why = f"{join} of {inputs} calls can no longer be reached"
    error = DependencyFailed(why, tool=GATHER, node=node)
    error.__cause__ = cause
    return FAILED, error


def cannot_begin(error: Exception, tool: str, node: int) -> End:
    """What the call would begin with is not there, or cannot be copied."""
    return FAILED, path_error(error, tool, node) if isinstance(error, LookupError) else error


def path_error(error: LookupError, tool: str, node: int) -> PathError:
    """A path that leads nowhere, told of the call that follows it."""
    why = error.args[0] if error.args else error
    return PathError(f"{tool} (${node + 1}): {why}", tool=tool, node=node)


def too_few_elements(join: Join, elements: int, tool: str, node: int) -> End:
    """The policy of a map asks for more elements than there are."""
    why = f"{tool}: {join} of {elements} elements cannot be met"
    return FAILED, DependencyFailed(why, tool=tool, node=node)


def run_failed(
    name: str, error: BaseException, failures: Mapping[int, BaseException], **kept: Any
) -> RunFailed:
    """The error of a run that failed with another; `kept` are further fields of `RunFailed`."""
    message = f"{name} failed: {described(root_cause(error))}"
    failed = RunFailed(message, failures=failures, **kept)
    failed.__cause__ = error
    return failed


def spares(error: BaseException | None) -> bool:
    """Whether calls that run are finished when a run ends with this error.

    So it is if a call did not fit into a budget that says so: what runs is paid for.
    """
    cause = None if error is None else root_cause(error)
    return isinstance(cause, BudgetExceeded | OutOfReach) and cause.when_spent == "finish"
