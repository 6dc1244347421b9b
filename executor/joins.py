"""Join policies: when a gather or a map has its value, and when it can no longer have one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentflow.executor.bind import Values, bind
from agentflow.executor.commands import Status
from agentflow.planner.plan import JOIN_ALL, Arg, Each, Join, Node, Ref
from agentflow.tools.paths import resolve
from agentflow.tools.values import Outcome


class Calls(Values, Protocol):
    """What a policy reads of the run state."""

    @property
    def status(self) -> Sequence[Status]:
        """Status by slot."""
        ...

    def outcome(self, slot: int) -> Outcome[Any]:
        """How a settled call ended."""
        ...


@dataclass(slots=True)
class Joining:
    """What a call that is not plain remembers while it waits.

    Attributes:
        lost: Slots it uses that had ended without a value before it joined the plan.
    """

    lost: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Gathering(Joining):
    """The intrinsic ``gather``. `inputs` are slots, in the order written."""

    join: Join = JOIN_ALL
    inputs: list[int] = field(default_factory=list)

    def wanted(self, literals: int) -> int | None:
        """How many inputs must succeed; None to wait for all of them to settle."""
        if self.join.kind == "first":
            return max(0, 1 - literals)
        return max(0, self.join.count - literals) if self.join.kind == "quorum" else None

    def value(self, calls: Calls, args: Sequence[Arg]) -> Any:
        """The value, once the policy is met."""
        if self.join.kind == "all":
            return [bind(calls, arg) for arg in args]
        outcomes = [_outcome(calls, arg) for arg in args]
        return _joined(self.join, outcomes)


@dataclass(slots=True)
class Fanning(Joining):
    """A map. `elements` are the slots of its elements; None until their number is known."""

    join: Join = JOIN_ALL
    elements: list[int] | None = None
    done: int = 0
    ended: int = 0

    def verdict(self, calls: Calls) -> tuple[Status, Any] | None:
        """The status and value (or the slot to blame) once it is certain, else None."""
        assert self.elements is not None
        count, open_ = len(self.elements), len(self.elements) - self.done - self.ended
        kind = self.join.kind
        wanted = {"first": 1, "quorum": self.join.count}.get(kind, count)
        if kind == "settled":
            certain = open_ == 0
        else:
            if self.done + open_ < wanted:
                return Status.FAILED, self._blame(calls)
            certain = self.done >= wanted
        if not certain:
            return None
        return Status.DONE, _joined(self.join, [calls.outcome(slot) for slot in self.elements])

    def _blame(self, calls: Calls) -> int | None:
        """The first element that ended without a value; None if there are no elements."""
        ended = [s for s in self.elements or () if calls.status[s] > Status.DONE]
        failed = [s for s in ended if calls.status[s] is Status.FAILED]
        return next(iter(failed or ended), None)


def expand(node: Node, columns: Mapping[int, Sequence[Any]], index: int) -> Node:
    """One element of a map. `columns` holds the items by the identity of the argument."""

    def item(arg: Arg) -> Arg:
        return columns[id(arg)][index] if type(arg) is Each else arg

    return Node(
        node.tool,
        tuple(item(arg) for arg in node.args),
        tuple((name, item(arg)) for name, arg in node.kwargs),
        options=node.options,
        rank=node.rank,
        label=node.label,
    )


def common_length(columns: Sequence[Sequence[Any]]) -> int:
    """The number of elements of a map.

    Raises:
        ValueError: Its lists differ in length.
    """
    lengths = {len(column) for column in columns}
    if len(lengths) != 1:
        raise ValueError(
            f"several 'each' arguments go in step, but their lists have "
            f"{', '.join(map(str, sorted(lengths)))} elements"
        )
    return lengths.pop()


def _outcome(calls: Calls, arg: Arg) -> Outcome[Any]:
    if type(arg) is not Ref:
        return Outcome("done", bind(calls, arg))
    slot = calls.slots[arg.node]
    if calls.status[slot] < Status.DONE:
        return Outcome("cancelled")
    outcome = calls.outcome(slot)
    if not outcome.ok or not arg.path:
        return outcome
    try:
        return Outcome("done", resolve(outcome.value, arg.path))
    except LookupError as error:
        return Outcome("failed", error=error)


def _joined(join: Join, outcomes: Sequence[Outcome[Any]]) -> Any:
    if join.kind == "settled":
        return list(outcomes)
    values = [outcome.value for outcome in outcomes if outcome.ok]
    if join.kind == "first":
        return values[0]
    return values[: join.count] if join.kind == "quorum" else values
