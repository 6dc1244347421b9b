"""Errors as a paragraph for people, and as data for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.cli.output import counted
from agentflow.errors import (
    AgentflowError,
    ArgumentError,
    BackendError,
    BudgetExceeded,
    CallError,
    DeadlineExceeded,
    ModelError,
    PlanError,
    RunError,
    RunFailed,
)

Tools = Mapping[int, str]
"""Names of the tools that were called, by the id of their node."""

_ADVICE: tuple[tuple[type[BaseException], str], ...] = (
    (DeadlineExceeded, "Give it longer with --deadline."),
    (BudgetExceeded, "Give it more with --budget or --budget-tokens."),
    (BackendError, "'agentflow doctor' looks at the endpoint."),
    (ModelError, "Ask again, differently, or try another --model."),
    (AgentflowError, ""),
    (OSError, ""),
)
_SHOWN = 5


def explained(error: BaseException, tools: Tools | None = None) -> str:
    """What went wrong, where, and what to do, in one paragraph."""
    cause = _root(error)
    sentences = [_what(error, cause, tools or {}), *_further(error, cause, tools or {})]
    if not isinstance(cause, AgentflowError | OSError):
        sentences.append("--debug shows where.")
    elif advice := next(text for kind, text in _ADVICE if isinstance(cause, kind)):
        sentences.append(advice)
    return " ".join(sentences)


def failure_json(error: BaseException, code: int, tools: Tools | None = None) -> dict[str, Any]:
    """An error, and the exit code it leads to, as the JSON of a command that failed."""
    cause = _root(error)
    told: dict[str, Any] = {
        "kind": type(cause).__name__,
        "message": explained(error, tools),
        "exit": code,
    }
    if isinstance(cause, PlanError):
        told |= {"error": cause.kind, "at": cause.at}
    if isinstance(error, RunError):
        told["results"] = {str(node + 1): value for node, value in error.results.items()}
    return {"ok": False, "error": told}


def _root(error: BaseException) -> BaseException:
    """What ended a run; any other error itself."""
    if isinstance(error, RunFailed) and error.__cause__ is not None:
        return _root(error.__cause__)
    return error


def _what(error: BaseException, cause: BaseException, tools: Tools) -> str:
    text = str(cause).strip() or type(cause).__name__
    if not isinstance(cause, AgentflowError):
        text = f"{type(cause).__name__}: {text}"
    node = _node(error, cause)
    if node is not None:
        text = f"{_named(node, tools)} failed: {text}"
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _further(error: BaseException, cause: BaseException, tools: Tools) -> list[str]:
    """A sentence on the other calls that failed."""
    if not isinstance(error, RunFailed):
        return []
    others = [node for node, failure in error.failures.items() if failure is not cause]
    if not others:
        return []
    names = ", ".join(_named(node, tools) for node in others[:_SHOWN])
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


def _named(node: int, tools: Tools) -> str:
    return f"${node + 1} {tools[node]}" if node in tools else f"${node + 1}"
