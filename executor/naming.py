"""The names of a run's calls that outlive the run: steps, idempotency keys, call paths."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from agentflow.planner.plan import Node
from agentflow.planner.steps import Step, StepTable
from agentflow.tools.spec import ToolSpec


class Naming:
    """Names the calls of one run. Safe to use from threads: tools ask for their keys from theirs.

    Args:
        root: Id of the outermost run.
        path: Call path that leads to the run.
        spec: The spec of a tool by name, or None.

    Attributes:
        path: As given.
        nodes: The calls, by plan id.
    """

    def __init__(self, root: str, path: str, spec: Callable[[str], ToolSpec | None]) -> None:
        self._root = root
        self.path = path
        self.nodes: list[Node] = []
        self._steps = StepTable(path, spec)
        self._texts: dict[int, str] = {}
        self._lock = threading.Lock()

    def joined(self, nodes: Iterable[Node]) -> None:
        """Calls joined the plan."""
        with self._lock:
            self.nodes += nodes

    def key(self, node: int) -> str:
        """The idempotency key of a call: the same for all attempts, also after a resume."""
        return self._step(node).key(self._root)

    def path_of(self, place: int | str) -> str:
        """The call path of a run that a call of this one starts; ``3[0]`` is a map's element."""
        node, bracket, element = str(place).partition("[")
        if int(node) >= len(self.nodes):
            return self.path
        return f"{self._step(int(node))}{bracket}{element}"

    def step(self, node: int, element: int | None = None) -> str:
        """The step of a call, or of an element of a map, as text."""
        step = self._texts.get(node)
        if step is None:
            step = self._texts[node] = str(self._step(node))
        return step if element is None else f"{step}[{element}]"

    def _step(self, node: int) -> Step:
        with self._lock:
            return self._steps.step(self.nodes, node)
