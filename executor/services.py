"""What the runs of one engine share: threads, gates, composed calls, and who cleans up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from agentflow.executor.calls import BoundCall, bind_call
from agentflow.executor.gates import Gate
from agentflow.executor.threads import DaemonThreads
from agentflow.tools.policy import Policy
from agentflow.tools.tool import Tool


@dataclass(frozen=True, slots=True)
class Limits:
    """Ceilings, sized for calls that mostly wait.

    Attributes:
        run: Calls of one run at once.
        turn: Calls that one reply of a model may ask for.
        nodes: Calls that one plan of a model may hold.
        backend: Requests to one backend at once.
        threads: Threads for plain functions.
        grace: Seconds that cancelled work has to end before it is abandoned.
    """

    run: int = 1000
    turn: int = 64
    nodes: int = 256
    backend: int = 64
    threads: int = 64
    grace: float = 2.0


class Services:
    """Shared by the runs of an engine, and by nothing else."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.threads = DaemonThreads(limits.threads)
        self._gates: dict[int, Gate] = {}
        self._calls: dict[tuple[int, Policy], BoundCall] = {}
        self._kept: list[Tool[..., Any]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self.abandoned: list[str] = []

    def call(self, tool: Tool[..., Any], policy: Policy | None) -> BoundCall:
        """The composed call of a tool; calls of one tool share its gate, whatever their policy."""
        tool = tool.origin
        key = (id(tool), policy or tool.policy)
        if (call := self._calls.get(key)) is None:
            if (gate := self._gates.get(id(tool))) is None:
                gate = self._gates[id(tool)] = Gate(tool.policy.limit)
                self._kept.append(tool)  # its id stays its own
            call = self._calls[key] = bind_call(tool, policy or tool.policy, gate, self.threads)
        return call

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start a task that the engine owns; it is cancelled when the engine closes."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def abandon(self, task: asyncio.Task[Any], name: str) -> None:
        """A task does not end although it was cancelled: name it, and wait no longer."""
        self.abandoned.append(name)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # nobody else will look at it

    async def aclose(self) -> list[str]:
        """Cancel what is left; the names of tasks and threads that would not end."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self.limits.grace)
        self.threads.shutdown()
        return [task.get_name() for task in tasks if not task.done()] + self.threads.abandoned
