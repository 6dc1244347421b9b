"""What code inside a run can reach: the ambient run, and the `Context` a tool may ask for.

A leaf: it names what the executor provides by protocols and imports nothing of ours
but the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol

from agentflow.clock import now


class Recorder(Protocol):
    """Collects the calls a workflow makes; `agentflow.planner` builds plans from them."""

    def record(
        self, tool: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, mapped: bool = False
    ) -> Any:
        """Note a call of a tool and return its handle."""
        ...


recorder: ContextVar[Recorder | None] = ContextVar("agentflow_recorder", default=None)
"""The workflow whose code is running now, or None inside tools and outside workflows."""

run_scope: ContextVar[Any] = ContextVar("agentflow_run_scope", default=None)
"""The run that the current code belongs to (inside tools too), or None."""

# structlog merges the context variables of this prefix into every line that is logged.
logged_run: ContextVar[str] = ContextVar("structlog_run")
logged_node: ContextVar[int | str] = ContextVar("structlog_node")


def current_node() -> int | None:
    """Plan id of the call that the current code belongs to; None outside of one."""
    place = logged_node.get(None)
    return None if place is None else int(str(place).partition("[")[0])


def remaining() -> float | None:
    """Seconds until the run that the current code belongs to gives up; None for never."""
    deadline: float | None = getattr(run_scope.get(), "deadline", None)
    return None if deadline is None else max(0.0, deadline - now())


def _ignore(_data: Any) -> None:
    """The sink of a context outside a run."""


class Context:
    """Handed to a tool whose signature has a parameter annotated `Context`.

    Outside a run a tool gets a detached context, whose `emit` does nothing.

    Attributes:
        run: Id of the run, empty when detached.
        node: Id of the call in its run.
        attempt: Counts from 1.
        deadline: Loop time after which the run gives up, or None.
    """

    __slots__ = ("_clock", "_key", "_sink", "attempt", "deadline", "node", "run")

    def __init__(
        self,
        run: str = "",
        node: int = 0,
        attempt: int = 1,
        deadline: float | None = None,
        sink: Callable[[Any], None] = _ignore,
        key: Callable[[], str] = str,
        clock: Callable[[], float] = now,
    ) -> None:
        self.run = run
        self.node = node
        self.attempt = attempt
        self.deadline = deadline
        self._sink = sink
        self._key = key
        self._clock = clock

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this step, also after a resume; empty when detached."""
        return self._key()

    def emit(self, data: Any) -> None:
        """Report progress: subscribers see a `NodeEmitted`, and the idle timeout starts anew.

        Safe to call from the tool's thread.
        """
        self._sink(data)

    def remaining(self) -> float | None:
        """Seconds until the deadline, never negative; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - self._clock())
