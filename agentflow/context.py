"""What code inside a run can reach: the ambient run, and the `Context` a tool may ask for.

A leaf: it names what the executor provides by protocols and imports nothing of ours
but the clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from agentflow.clock import now


class Recorder(Protocol):
    """Collects the calls a workflow makes; `agentflow.planner` builds plans from them."""

    def record(self, call: Any) -> Any:
        """Note a call and return its handle."""
        ...


recorder: ContextVar[Recorder | None] = ContextVar("agentflow_recorder", default=None)
"""The workflow whose code is running now, or None inside tools and outside workflows."""

run_scope: ContextVar[Any] = ContextVar("agentflow_run_scope", default=None)
"""The run that the current code belongs to (inside tools too), or None."""


def _ignore(_data: Any) -> None:
    """The sink of a context outside a run."""


@dataclass(slots=True)
class Context:
    """Handed to a tool whose signature has a parameter annotated `Context`.

    Outside a run a tool gets a detached context, whose `emit` does nothing.

    Attributes:
        run: Id of the run, empty when detached.
        node: Id of the call in its run.
        attempt: Counts from 1.
        deadline: Loop time after which the run gives up, or None.
        idempotency_key: The same for every attempt of this step, also after a resume.
    """

    run: str = ""
    node: int = 0
    attempt: int = 1
    deadline: float | None = None
    idempotency_key: str = ""
    sink: Callable[[Any], None] = _ignore

    def emit(self, data: Any) -> None:
        """Report progress: subscribers see a `NodeEmitted`, and the idle timeout starts anew.

        Safe to call from the tool's thread.
        """
        self.sink(data)

    def remaining(self) -> float | None:
        """Seconds until the deadline, never negative; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - now())

    async def checkpoint(self) -> None:
        """Let other work run, and be cancelled here if the run is."""
        await asyncio.sleep(0)
