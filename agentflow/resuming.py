"""Runs that go on: how what they run is written down, and found again."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from importlib import import_module
from typing import Any

from agentflow.budgets.budget import Budget
from agentflow.errors import DefinitionError, HistoryMismatch, JournalError, PlanError
from agentflow.executor.journal.book import InDoubt
from agentflow.executor.journal.history import History, Reading
from agentflow.executor.journal.rows import RunRow
from agentflow.executor.journal.store import JournalStore
from agentflow.executor.journal.values import faithful, plain_data
from agentflow.executor.sessions.state import SessionState
from agentflow.executor.strategies.task import Task
from agentflow.planner.plan import Plan
from agentflow.planner.printer import print_plan
from agentflow.sessions import Session
from agentflow.starting import Target
from agentflow.tools.tool import Tool
from agentflow.workflows import Workflow


@dataclass(frozen=True, slots=True)
class Before:
    """An execution that a run goes on from.

    Attributes:
        row: What was listed of the run.
        history: What it did.
        again: What failed is tried again.
        live: Whether calls that it does not have are made.
        in_doubt: What becomes of calls that may have been made.
        budget: In place of the one it began with, or None.
        began_with: The budget it began with, or was given last; for a target that has none.
    """

    row: RunRow
    history: History
    again: bool = False
    live: bool = True
    in_doubt: InDoubt = "ask"
    budget: Budget | None = None
    began_with: Budget | None = None


def described(target: Target) -> dict[str, Any]:
    """A target as it is written down, so that `revived` finds it again."""
    data = _described(target)
    return {**data, "tenant": target.tenant} if target.tenant else data


def _described(target: Target) -> dict[str, Any]:
    what, kwargs = target.what, dict(target.kwargs)
    if isinstance(what, Workflow):
        return _workflow(what, target.args, kwargs)
    if isinstance(what, Plan):
        data = {"kind": "plan", "text": print_plan(what), "budget": _limits(kwargs.get("budget"))}
        return {**data, "deadline": kwargs.get("deadline"), "tools": _names(kwargs.get("tools"))}
    assert isinstance(what, Task)
    plain = {f.name: getattr(what, f.name) for f in fields(Task)} | {"tools": _names(what.tools)}
    session = None if what.session is None else what.session.data()
    return {"kind": "task", "fields": plain | {"budget": _limits(what.budget), "session": session}}


def _workflow(workflow: Workflow[..., Any], args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    fn = workflow.fn
    data: dict[str, Any] = {"kind": "workflow", "module": fn.__module__, "name": fn.__qualname__}
    with suppress(TypeError):
        data["file"] = inspect.getsourcefile(fn)
    validate = workflow.signature.validate
    if faithful(given := validate(args, kwargs), validate):
        data["arguments"] = {"args": plain_data(given[0]), "kwargs": plain_data(given[1])}
    return {**data, "budget": _limits(workflow.budget)}


def read_before(store: JournalStore, run: str, in_doubt: InDoubt, budget: Budget | None) -> Before:
    """Read what a run did, which is this process's to go on with from now on.

    Runs in the journal's thread.

    Raises:
        JournalError: It has finished, or somebody goes on with it.
    """
    row = store.run(run)
    if row.state == "finished":
        raise JournalError(
            f"run {run} has finished: there is nothing to go on with; replay it, or start anew",
            path=str(store.path),
            run=run,
        )
    store.claim(run)
    again = row.state == "failed"
    history = Reading(run, store.blob).read(store.records(run), again=again)
    began_with = recorded_budget(row.target)
    return Before(
        row, history, again=again, in_doubt=in_doubt, budget=budget, began_with=began_with
    )


def recorded_budget(data: Mapping[str, Any]) -> Budget | None:
    """The budget that a run was given when it was written down, or when it went on last."""
    return _budget(data.get("budget") or data.get("fields", {}).get("budget"))


def with_budget(data: Mapping[str, Any], budget: Budget) -> dict[str, Any]:
    """A target as it is written down, with another budget."""
    limits = _limits(budget)
    if "fields" in data:
        return {**data, "fields": {**data["fields"], "budget": limits}}
    return {**data, "budget": limits}


def with_arguments(target: Target, data: Mapping[str, Any]) -> Target:
    """A target with the arguments that were written down, if it is a workflow or a session."""
    if isinstance(target.what, SessionState) and "fields" in data:
        task = _task(data["fields"], None)
        return replace(target, what=replace(task, session=target.what))
    given = data.get("arguments")
    if given is None or not isinstance(target.what, Workflow):
        return target
    return replace(target, args=tuple(given["args"]), kwargs=given["kwargs"])


def check_same(row: RunRow, target: Target) -> None:
    """Check that a run is of the workflow that it is to go on with.

    Raises:
        HistoryMismatch: It is of another one.
    """
    session = target.what.session if isinstance(target.what, Task) else None
    if session is not None and (began := row.target.get("fields", {}).get("session")):
        session.check_begins(began, row.id)
    name = getattr(target.what, "name", row.name)
    if row.kind == "workflow" and isinstance(target.what, Workflow) and name != row.name:
        raise HistoryMismatch(f"run {row.id} is of the workflow {row.name}, and not of {name}")


def check_policy(in_doubt: str) -> None:
    """Check what is to become of calls in doubt.

    Raises:
        DefinitionError: There is no such policy.
    """
    if in_doubt not in ("ask", "retry", "fail"):
        raise DefinitionError(f"in_doubt is 'ask', 'retry' or 'fail', not {in_doubt!r}")


def revived(data: Mapping[str, Any], tools: Mapping[str, Tool[..., Any]], read: Any) -> Target:
    """The target of a run that was written down.

    Args:
        data: What `described` gave.
        tools: Of the engine, by name.
        read: Reads a plan: ``read(text, tools=...)``.

    Raises:
        DefinitionError: It is not here; say what to do.
    """
    kind, budget = data.get("kind"), _budget(data.get("budget"))
    if kind == "workflow":
        return _found(data, budget)
    if kind == "plan":
        box = _tools(data.get("tools"), tools)
        try:
            plan = read(data["text"], tools=box.values())
        except PlanError as error:
            raise DefinitionError(
                f"the plan of this run cannot be read again ({error}): give it, or its tools"
            ) from error
        given = {"tools": box.values(), "budget": budget, "deadline": data.get("deadline")}
        return Target(plan, kwargs=given)
    if kind == "task":
        return Target(_task(data["fields"], tools))
    raise DefinitionError(f"this journal does not say what the run was of ({kind!r}): give it")


def _task(fields: Mapping[str, Any], tools: Mapping[str, Tool[..., Any]] | None) -> Task:
    """A task that was written down; without its session and its tools if none are given."""
    given = {**fields, "budget": _budget(fields.get("budget"))}
    session, given["session"] = given.get("session"), None
    if tools is None:
        return Task(**{**given, "tools": None, "model": None})
    if session is not None:
        given["session"] = Session.of(session, tools.values())
        return Task(**given)
    return Task(**{**given, "tools": tuple(_tools(given.get("tools"), tools).values())})


def _found(data: Mapping[str, Any], budget: Budget | None) -> Target:
    name, module = data.get("name", ""), data.get("module", "")
    where = f"{module}.{name}"
    try:
        found: Any = sys.modules[module] if module == "__main__" else import_module(module)
        for part in str(name).split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, KeyError, ValueError) as error:
        raise DefinitionError(
            f"the workflow of this run, {where}, is not found ({error}): give it, as in "
            "engine.resume(run, target=flow, args=(...))"
        ) from None
    if not isinstance(found, Workflow):
        raise DefinitionError(f"{where} is no workflow any more")
    if "arguments" not in data:
        raise DefinitionError(
            f"the arguments of {where} have no form in JSON that gives them back: give them, as "
            "in engine.resume(run, args=(...))"
        )
    given = data["arguments"]
    workflow = found if budget == found.budget else found.within(budget or Budget())
    return Target(workflow, tuple(given["args"]), given["kwargs"])


def _tools(
    names: Iterable[str] | None, tools: Mapping[str, Tool[..., Any]]
) -> Mapping[str, Tool[..., Any]]:
    """The tools of these names, or all of them.

    Raises:
        DefinitionError: One is missing.
    """
    if names is None:
        return tools
    if missing := [name for name in names if name not in tools]:
        raise DefinitionError(f"the run may call {', '.join(missing)}: give the engine these tools")
    return {name: tools[name] for name in names}


def _names(tools: Iterable[Tool[..., Any]] | None) -> list[str] | None:
    return None if tools is None else [tool.name for tool in tools]


def _limits(budget: Budget | None) -> dict[str, Any] | None:
    if budget is None:
        return None
    usd = None if budget.usd is None else f"{budget.usd:f}"
    return {
        "usd": usd,
        "tokens": budget.tokens,
        "deadline": budget.deadline,
        "when_spent": budget.when_spent,
        "least_chance": budget.least_chance,
    }


def _budget(limits: Mapping[str, Any] | None) -> Budget | None:
    return None if limits is None else Budget(**limits)
