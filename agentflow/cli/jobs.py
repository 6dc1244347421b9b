"""What ``agentflow run`` hands to an engine."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from agentflow.budgets.budget import Budget
from agentflow.cli.compiling import call_plan, compiled_text
from agentflow.cli.endpoint import Endpoint
from agentflow.cli.session import read_session
from agentflow.cli.targets import Member, PlanText, Question, Target
from agentflow.cli.toolset import toolbox
from agentflow.errors import DefinitionError
from agentflow.executor.strategies.task import Task
from agentflow.planner.plan import Answer, Plan
from agentflow.planner.verify import line_id
from agentflow.sessions import Session
from agentflow.tools.tool import Tool
from agentflow.workflows import Workflow


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Job:
    """Something to run.

    Attributes:
        target: As `Engine.start` takes it.
        args: For the target.
        kwargs: For the target.
        tools: Tools of the engine.
        streams: Whether the value is an answer that comes as text.
        shown: What of the value is shown.
        session: The conversation that it goes on with, or None.
    """

    target: Any
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    tools: tuple[Tool[..., Any], ...] = ()
    streams: bool = False
    shown: Callable[[Any], Any] = _same
    session: Session | None = None


def job_for(target: Target, options: Any, endpoint: Endpoint) -> Job:
    """The job that a target and the options describe.

    Raises:
        PlanError: The plan cannot be run.
        DefinitionError: An option is not usable.
    """
    budget = Budget(options.budget, options.budget_tokens, options.deadline)
    if isinstance(target, Question):
        return _question(target, options, endpoint, budget)
    if options.session is not None:
        raise DefinitionError("--session is for a question: a workflow has sessions of its own")
    if isinstance(target, PlanText):
        return _plan(target, options, budget)
    return _member(target, budget)


def _question(target: Question, options: Any, endpoint: Endpoint, budget: Budget) -> Job:
    given = {} if options.max_tokens is None else {"max_tokens": options.max_tokens}
    session = None if options.session is None else read_session(options.session)
    strategy: Literal["plan", "react"] = options.strategy or (
        "plan" if session is None else "react"
    )
    task = Task(target.text, strategy, budget=budget, session=session, **given)
    # Only what was named is shown to somebody else's model; the stand-in may look around here.
    tools = toolbox(options, root="." if endpoint.stand_in else None)
    return Job(task, tools=tuple(tools.values()), streams=True, session=session)


def _plan(target: PlanText, options: Any, budget: Budget) -> Job:
    tools = toolbox(options, root=".")
    plan = compiled_text(target.text, {name: tool.spec for name, tool in tools.items()}).final
    return Job(
        plan,
        kwargs={"budget": budget},
        tools=tuple(tools.values()),
        shown=lambda value: _by_line(plan, value),
    )


def _member(target: Member, budget: Budget) -> Job:
    if isinstance(target.tool, Workflow):
        workflow = copy.copy(target.tool)
        workflow.budget = tighter(workflow.budget, budget)
        beside = {tool.name: tool for tool in target.beside}  # what it may call, for guesses
        return Job(workflow, target.args, target.kwargs, tuple(beside.values()))
    return Job(call_plan(target), kwargs={"budget": budget}, tools=(target.tool,))


def tighter(own: Budget | None, given: Budget) -> Budget:
    """The budget that keeps within both."""
    if own is None:
        return given
    pairs = ((own.usd, given.usd), (own.tokens, given.tokens), (own.deadline, given.deadline))
    least: list[Any] = [min((x for x in pair if x is not None), default=None) for pair in pairs]
    return replace(own, **dict(zip(("usd", "tokens", "deadline"), least, strict=True)))


def _by_line(plan: Plan, value: Any) -> Any:
    """The results of a plan that returns nothing, by the id of their line."""
    if not isinstance(plan.result, Answer):
        return value
    return {f"${line_id(node, plan.nodes[node])}": result for node, result in value.items()}
