"""Errors as a paragraph for people, and as data for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from agentflow.cli.account.tally import Call
from agentflow.cli.output import counted
from agentflow.errors import (
    AgentflowError,
    ArgumentError,
    BackendError,
    BudgetExceeded,
    CallError,
    DeadlineExceeded,
    ModelError,
    NoReplica,
    OutOfReach,
    PlanError,
    RunError,
    RunFailed,
)
from agentflow.tools.builtin.addresses import AddressRefused
from agentflow.wording import root_cause

Calls: TypeAlias = Mapping[int, Call]
"""The calls of the run that failed, by plan id."""

_ADVICE: tuple[tuple[type[BaseException], str], ...] = (
    (DeadlineExceeded, "Give it longer with --deadline."),
    (BudgetExceeded, "Give it more with --budget or --budget-tokens."),
    (OutOfReach, "'agentflow plan --budget USD --deadline TIME' says what would do."),
    (NoReplica, "Are these servers running and well? 'agentflow doctor' looks at each of them."),
    (BackendError, "'agentflow doctor' looks at the endpoint."),
    (ModelError, "Ask again, differently, or try another --model."),
    (AddressRefused, "--allow-private opens loopback and private networks."),
    (AgentflowError, ""),
    (OSError, ""),
)
_SHOWN = 5


def explained(error: BaseException, calls: Calls | None = None) -> str:
    """What went wrong, where, and what to do, in one paragraph."""
    cause = root_cause(error)
    sentences = [_what(error, cause, calls or {}), *_further(error, cause, calls or {})]
    if isinstance(cause, DeadlineExceeded) and cause.__cause__ is not None:
        sentences.append(_what(cause.__cause__, cause.__cause__, {}))
    if not isinstance(cause, AgentflowError | OSError):
        sentences.append("--debug shows where.")
    elif advice := _advice(cause):
        sentences.append(advice)
    return " ".join(sentences)


def failure_json(error: BaseException, code: int, calls: Calls | None = None) -> dict[str, Any]:
    """An error, and the exit code it leads to, as the JSON of a command that failed."""
    cause = root_cause(error)
    told: dict[str, Any] = {
        "kind": type(cause).__name__,
        "message": explained(error, calls),
        "exit": code,
    }
    if isinstance(cause, PlanError):
        told |= {"error": cause.kind, "at": cause.at}
    if isinstance(error, RunError):
        told["results"] = {
            _named(node, calls or {}).partition(" ")[0]: value
            for node, value in error.results.items()
        }
    return {"ok": False, "error": told}


def _advice(cause: BaseException) -> str:
    if isinstance(cause, BudgetExceeded) and cause.unit == "seconds":
        return "Give it longer with --deadline."
    if isinstance(cause, OutOfReach | DeadlineExceeded) and isinstance(
        cause.__cause__, BackendError
    ):
        return _advice(cause.__cause__)
    return next(text for kind, text in _ADVICE if isinstance(cause, kind))


def _what(error: BaseException, cause: BaseException, calls: Calls) -> str:
    text = str(cause).strip() or type(cause).__name__
    if not isinstance(cause, AgentflowError):
        text = f"{type(cause).__name__}: {text}"
    node = _node(error, cause)
    if node is not None:
        tool = calls[node].tool if node in calls else ""
        text = f"{_named(node, calls)} failed: {text.removeprefix(f'{tool}: ')}"
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _further(error: BaseException, cause: BaseException, calls: Calls) -> list[str]:
    """A sentence on the other calls that failed."""
    if not isinstance(error, RunFailed):
        return []
    others = [node for node, failure in error.failures.items() if failure is not cause]
    if not others:
        return []
    names = ", ".join(_named(node, calls) for node in others[:_SHOWN])
    more = ", ..." if len(others) > _SHOWN else ""
    return [f"{counted(len(others), 'further call')} failed: {names}{more}."]


def _node(error: BaseException, cause: BaseException) -> int | None:
    if isinstance(error, RunFailed):
        for node, failure in error.failures.items():
            if failure is cause:
                return node
    if isinstance(cause, CallError) and not isinstance(cause, ArgumentError):
        return cause.node
    return None


def _named(node: int, calls: Calls) -> str:
    return calls[node].name if node in calls else f"${node + 1}"
