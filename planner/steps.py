"""Steps: which call this is, told from the program alone.

A step is (call path, tool, canonical arguments, k). A reference inside the arguments is
identified by the step it refers to, so an identity covers all a call depends on, as in a
Merkle tree; k counts equal calls of one path in program order. When anything ran, in which
order it ended, and where in the plan it stands do not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentflow.planner.builder import effect_of
from agentflow.planner.canonical import bound, canonical, encoded, framed
from agentflow.planner.plan import Node, Ref
from agentflow.tools.spec import ToolSpec

UNNAMED = "-"
"""The digest of a call whose arguments have no canonical form."""


@dataclass(frozen=True, slots=True)
class Step:
    """The identity of a call, the same in every run of the same program.

    Attributes:
        path: Path of calls that leads to the plan or workflow the call belongs to.
        tool: Name of the tool.
        digest: Of the arguments, in hexadecimal; `UNNAMED` if they have no canonical form.
        k: How many equal calls of the same path come before it.
    """

    path: str
    tool: str
    digest: str
    k: int = 0

    def __str__(self) -> str:
        """A stable text, such as ``brief/search:3f2a9c1be45d0817#0``."""
        return f"{self.path}/{self.tool}:{self.digest}#{self.k}"

    def key(self, run: str) -> str:
        """The idempotency key of the step in a run; all attempts share it."""
        return f"{run}:{self}"


class StepTable:
    """Numbers the steps of one call path, in program order and only when asked.

    A call whose arguments have no canonical form is identified by its place among the calls
    of the same tool that have none. References to a pure call leave out its k: an equal call
    has the same value, so it does not matter whether the two were merged.

    Args:
        path: The call path.
        spec: The spec of a tool by name; None for one that declares nothing. With it, arguments
            count the same by position and by name, and pure calls are known.
    """

    def __init__(self, path: str, spec: Callable[[str], ToolSpec | None] | None = None) -> None:
        self.path = path
        self._spec = spec
        self._steps: list[Step] = []
        self._count: dict[tuple[str, str], int] = {}

    def step(self, nodes: Sequence[Node], index: int) -> Step:
        """The step of the node at `index`; `nodes` are all of the path, by id."""
        for position in range(len(self._steps), index + 1):
            self._steps.append(self._next(nodes[position]))
        return self._steps[index]

    def _next(self, node: Node) -> Step:
        digest = self._digest(node)
        k = self._count.get((node.tool, digest), 0)
        self._count[node.tool, digest] = k + 1
        return Step(self.path, node.tool, digest, k)

    def _digest(self, node: Node) -> str:
        spec = self._spec(node.tool) if self._spec is not None else None
        try:
            arguments = frozenset((k, canonical(v)) for k, v in bound(node, spec).items())
            spelled = encoded(arguments, self._referred)
        except (TypeError, RecursionError):
            return UNNAMED
        return hashlib.blake2b(spelled, digest_size=8).hexdigest()

    def _referred(self, ref: Ref) -> bytes:
        step = self._steps[ref.node]
        k = b"" if self._is_pure(step) else b"%d" % step.k
        identity = framed(b"s", [step.tool.encode(), step.digest.encode(), k])
        return framed(b"$", [identity, encoded(ref.path, self._referred)])

    def _is_pure(self, step: Step) -> bool:
        spec = self._spec(step.tool) if self._spec is not None else None
        return step.digest != UNNAMED and effect_of(step.tool, spec).kind == "pure"
