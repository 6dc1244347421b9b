"""An agent task: a sentence, the tools it may use, and how to go about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agentflow.budgets.budget import Budget
from agentflow.errors import DefinitionError
from agentflow.executor.run import Body, Run
from agentflow.executor.sessions.state import SessionState
from agentflow.tools.tool import Tool
from agentflow.tools.toolbox import Toolbox


@dataclass(frozen=True)
class Task:
    """A sentence for a model.

    Attributes:
        question: What is wanted.
        strategy: ``plan`` writes plans and joins their results; ``react`` calls tools turn by turn.
        tools: What it may call; the engine's tools by default.
        model: Name of the model; the engine's default by default.
        budget: What it may spend, and how long it may take.
        rounds: Plans (or turns) at most; by default 3 plans or 12 turns.
        max_tokens: Upper bound of one reply.
        commit: When writes of a streamed plan may start: at the ``plan``'s end, when all of it
            has been read and checked, or at the end of their own ``line``.
        show_remaining: Whether the model is told what is left of the limits, at the end of a
            request: always, never, or (None) once half of one of them is gone.
        session: The conversation that it goes on with, which says the tools and the model.
    """

    question: str
    strategy: Literal["plan", "react"] = "plan"
    tools: Iterable[Tool[..., Any]] | None = None
    model: str | None = None
    budget: Budget | None = None
    rounds: int | None = None
    max_tokens: int = 2048
    commit: Literal["plan", "line"] = "plan"
    show_remaining: bool | None = None
    session: SessionState | None = None

    def __post_init__(self) -> None:
        if not self.question.strip():
            raise DefinitionError("a task needs a question")
        if self.strategy not in ("plan", "react"):
            raise DefinitionError(f"there is no strategy {self.strategy!r}: 'plan' or 'react'")
        if self.commit not in ("plan", "line"):
            raise DefinitionError(
                f"writes commit with the 'plan' or the 'line', not {self.commit!r}"
            )
        if self.rounds is not None and self.rounds < 1:
            raise DefinitionError(f"a task needs at least one round, not {self.rounds}")
        if self.max_tokens < 1:
            raise DefinitionError(f"a reply needs at least one token, not {self.max_tokens}")
        if self.session is not None and (self.tools is not None or self.model is not None):
            raise DefinitionError("a session says its tools and its model: Session(tools=..., ...)")

    def toolbox(self, default: Mapping[str, Tool[..., Any]]) -> Mapping[str, Tool[..., Any]]:
        """What it may call.

        Args:
            default: The tools of the engine.
        """
        if self.session is not None:
            return self.session.toolbox(default)
        return default if self.tools is None else Toolbox(self.tools)

    def body(self) -> Body[str]:
        """What a run of the task does."""
        from agentflow.executor.strategies.plan import plan_task
        from agentflow.executor.strategies.react import react_task

        strategy = plan_task if self.strategy == "plan" else react_task

        async def body(run: Run[str]) -> str:
            run.said(self.question)
            return await strategy(run, self)

        return body
