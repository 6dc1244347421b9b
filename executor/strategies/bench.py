"""The workbench of a strategy: calls started one by one, and what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

from agentflow import events
from agentflow.executor.commands import DONE
from agentflow.executor.metering import MeteredModel
from agentflow.executor.models.base import Delta, ReasoningPiece, TextPiece
from agentflow.executor.run import Run
from agentflow.executor.state import RunState
from agentflow.planner.builder import Builder
from agentflow.planner.plan import Node
from agentflow.planner.prompting import shown
from agentflow.tools.spec import ToolSpec
from agentflow.tools.values import Outcome


class Workbench:
    """Starts calls in a run, and knows how they ended.

    Args:
        run: The run of the task.
        model: Name of the model, or None for the default one.

    Attributes:
        specs: The tools by name.
        model: The model, paid by the run.
        builder: Grows the run's plan.
    """

    def __init__(self, run: Run[Any], model: str | None) -> None:
        self._run = run
        self.specs: Mapping[str, ToolSpec] = {n: tool.spec for n, tool in run.tools.items()}
        self.model = MeteredModel(run.host.model(model), run)
        self.builder = Builder(self.specs.get)
        self.limits = run.host.services.limits

    def add(self, node: Node) -> int:
        """Start a call; the id of its node."""
        index = self.builder.add(node)
        self.flush()
        return index

    def flush(self, *, held: bool = False) -> None:
        """Start what was added to the builder; nobody hears of `held` calls before `commit`."""
        plan = self.builder.cut()
        if plan.nodes:
            self._run.extend(plan, held=held)

    def commit(self, node: int) -> None:
        """A held call belongs to the plan."""
        self._run.commit(node)

    def retract(self, node: int) -> None:
        """A held call does not belong to the plan: it is cancelled, and was never there."""
        self.builder.forget(node)
        self._run.retract(node)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task beside the strategy."""
        return self._run.host.services.spawn(work, f"run {self._run.id}")

    async def settled(self, nodes: Iterable[int]) -> None:
        """Wait until these calls have ended."""
        loop = asyncio.get_running_loop()
        open_ = 0
        over = loop.create_future()

        def count(_state: RunState, _slot: int) -> None:
            nonlocal open_
            open_ -= 1
            if not open_ and not over.done():
                over.set_result(None)

        for node in set(nodes):
            if not self.ended(node):
                open_ += 1
                self._run.driver.watch(node, count)
        if open_:
            await over

    def ended(self, node: int) -> bool:
        """Whether a call has ended."""
        state = self._run.driver.state
        return state.status[state.slot(node)] >= DONE

    def outcome(self, node: int) -> Outcome[Any]:
        """How a call ended."""
        state = self._run.driver.state
        slot = state.slot(node)
        return state.outcome(slot) if state.status[slot] >= DONE else Outcome("cancelled")

    def report(self, node: int) -> str:
        """How a call ended, as a model is told."""
        outcome = self.outcome(node)
        if outcome.ok:
            return shown(outcome.value)
        if outcome.status == "failed":
            self.builder.forget(node)
            error = outcome.error
            return f"failed: {type(error).__name__}: {shown(str(error), 600)}"
        return f"{outcome.status}: {outcome.error}" if outcome.error else outcome.status

    def effect(self, tool: str) -> str:
        """The kind of a tool's effect."""
        return self.specs[tool].effect.kind

    # Telling the subscribers

    def say(self, text: str, role: str) -> None:
        """More text of a reply."""
        if text and self._run.watched:
            self._run.emit(events.TextDelta(self._run.id, _now(), text, role))

    def show(self, delta: Delta, role: str) -> None:
        """A piece of a reply; reasoning counts as thought."""
        if isinstance(delta, TextPiece):
            self.say(delta.text, role)
        elif isinstance(delta, ReasoningPiece):
            self.say(delta.text, "thought")

    def round(self, kind: str, number: int, reason: str = "") -> None:
        """A round begins."""
        if self._run.watched:
            self._run.emit(events.RoundStarted(self._run.id, _now(), kind, number, reason))


def _now() -> float:
    return asyncio.get_running_loop().time()
