"""The names of a run's calls that outlive the run: steps, idempotency keys, call paths."""

from __future__ import annotations

import threading
from collections.abc import Callable

from agentflow.executor.accounts import Accounts
from agentflow.planner.steps import Step, StepTable
from agentflow.tools.spec import ToolSpec


class Naming:
    """Names the calls of one run. Safe to use from threads: tools ask for their keys from theirs.

    Args:
        root: Id of the outermost run.
        path: Call path that leads to the run.
        state: The calls.
        spec: The spec of a tool by name, or None.
    """

    def __init__(
        self, root: str, path: str, state: Accounts, spec: Callable[[str], ToolSpec | None]
    ) -> None:
        self._root = root
        self._path = path
        self._state = state
        self._steps = StepTable(path, spec)
        self._lock = threading.Lock()

    def key(self, node: int) -> str:
        """The idempotency key of a call: the same for all attempts, also after a resume."""
        return self._step(node).key(self._root)

    def path_of(self, place: int | str) -> str:
        """The call path of a run that a call of this one starts; ``3[0]`` is a map's element."""
        node, bracket, element = str(place).partition("[")
        if int(node) >= len(self._state.slots):
            return self._path
        return f"{self._step(int(node))}{bracket}{element}"

    def _step(self, node: int) -> Step:
        state = self._state
        with self._lock:
            return self._steps.step([state.nodes[slot] for slot in state.slots], node)
