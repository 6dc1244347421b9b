"""Steps: which call this is, told from the program alone.

A step is (call path, tool, canonical arguments, k). A reference inside the arguments is
identified by the step it refers to, so an identity covers all a call depends on, as in a
Merkle tree; k counts equal calls of one path in program order. When anything ran, in which
order it ended, and where in the plan it stands do not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from agentflow.planner.builder import effect_of
from agentflow.planner.canonical import bound, canonical, encoded
from agentflow.planner.plan import Node, Ref
from agentflow.tools.spec import ToolSpec

UNNAMED = "-"
"""The digest of a call whose arguments have no canonical form."""


class Step(NamedTuple):
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
        self._identities: list[bytes] = []  # of the steps, as references to them are spelled
        self._count: dict[tuple[str, str], int] = {}

    def step(self, nodes: Sequence[Node], index: int) -> Step:
        """The step of the node at `index`; `nodes` are all of the path, by id."""
        for position in range(len(self._steps), index + 1):
            self._add(nodes[position])
        return self._steps[index]

    def _add(self, node: Node) -> None:
        tool = node.tool
        spec = self._spec(tool) if self._spec is not None else None
        digest = self._digest(node, spec)
        k = self._count.get((tool, digest), 0)
        self._count[tool, digest] = k + 1
        self._steps.append(Step(self.path, tool, digest, k))
        pure = digest != UNNAMED and effect_of(tool, spec).kind == "pure"
        identity = (f"{tool}:{digest}" if pure else f"{tool}:{digest}#{k}").encode()
        self._identities.append(b"$%d:%b" % (len(identity), identity))

    def _digest(self, node: Node, spec: ToolSpec | None) -> str:
        try:
            arguments, spell = bound(node, spec), self._spell
            names = sorted(arguments, key=str) if len(arguments) > 1 else arguments
            spelled = b"".join([b"%b=%b" % (f"{n}".encode(), spell(arguments[n])) for n in names])
        except (TypeError, RecursionError):
            return UNNAMED
        return hashlib.blake2b(spelled, digest_size=8).hexdigest()

    def _spell(self, value: Any) -> bytes:
        """An argument as bytes that no other argument has; what is usual goes quickly."""
        kind = type(value)
        if kind is Ref:
            return self._referred(value)
        if kind is str:
            text = value.encode("utf-8", "surrogatepass")
            return b"s%d:%b" % (len(text), text)
        if kind is int:
            return b"i%x;" % value
        if kind is list or kind is tuple:
            return b"%b%d:%b" % (
                kind.__name__.encode(),
                len(value),
                b"".join(map(self._spell, value)),
            )
        other = encoded(canonical(value), self._referred)
        return b"x%d:%b" % (len(other), other)

    def _referred(self, ref: Ref) -> bytes:
        identity = self._identities[ref.node]
        if not ref.path:
            return identity
        path = encoded(ref.path, self._referred)
        return b"%b%d:%b" % (identity, len(path), path)
