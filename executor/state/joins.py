"""Join policies: when a gather or a map has its value, and when it can no longer have one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentflow.executor.state.bind import Values, bind
from agentflow.executor.state.commands import DONE, FAILED, Status
from agentflow.planner.plan import ALL, JOIN_ALL, Arg, Each, Join, Node, Ref, refs
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
class Gathering:
    """The intrinsic ``gather``.

    Attributes:
        join: Its policy.
        inputs: Slots that the policy is about, in the order written.
        required: Slots it needs whatever the policy: of its guard, and of what stands inside
            lists and texts.
        wanted: How many inputs must succeed; None to wait for all of them to settle.
    """

    join: Join = JOIN_ALL
    inputs: list[int] = field(default_factory=list)
    required: frozenset[int] = frozenset()
    wanted: int | None = None

    def reachable(self, status: Sequence[Status]) -> bool:
        """Whether enough inputs are done, or may still be."""
        return self.wanted is None or self.wanted <= sum(
            status[slot] <= DONE for slot in self.inputs
        )

    def value(self, calls: Calls, args: Sequence[Arg]) -> Any:
        """The value, once the policy is met.

        Raises:
            LookupError: A path does not lead anywhere.
        """
        if self.join.kind == "all":
            return [bind(calls, arg) for arg in args]
        outcomes = [_outcome(calls, arg) for arg in args]
        if sum(outcome.ok for outcome in outcomes) < _least(self.join):
            raise next(o.error for o in outcomes if isinstance(o.error, LookupError))
        return _joined(self.join, outcomes)


def gathering(node: Node, slots: Sequence[int]) -> Gathering:
    """What a `gather` watches; `slots` are by plan id."""
    inputs = [slots[arg.node] for arg in node.args if type(arg) is Ref]
    required = frozenset(slots[use] for use in node.uses()) - set(inputs)
    if node.guard is not None:
        required |= {slots[node.guard.node]}
    wanted = None
    if node.join.kind in ("first", "quorum"):
        wanted = max(0, _least(node.join) - (len(node.args) - len(inputs)))
    return Gathering(node.join, inputs, required, wanted)


@dataclass(slots=True)
class Fanning:
    """A map.

    Attributes:
        join: Its policy.
        elements: Their slots; None until their number is known.
        done: How many are done.
        ended: How many have ended without a value.
        followers: Maps over this one, whose elements wait for its elements.
    """

    join: Join = JOIN_ALL
    elements: list[int] | None = None
    done: int = 0
    ended: int = 0
    followers: list[int] = field(default_factory=list)

    def verdict(self, calls: Calls) -> tuple[Status, Any] | None:
        """The status and value (or the slot to blame) once it is certain, else None."""
        assert self.elements is not None
        count, open_ = len(self.elements), len(self.elements) - self.done - self.ended
        kind = self.join.kind
        wanted = count if kind == "all" else _least(self.join)
        if kind == "settled":
            certain = open_ == 0
        else:
            if self.done + open_ < wanted:
                return FAILED, self._blame(calls)
            certain = self.done >= wanted
        if not certain:
            return None
        ended = [slot for slot in self.elements if calls.status[slot] >= DONE]
        return DONE, _joined(self.join, [calls.outcome(slot) for slot in ended])

    def _blame(self, calls: Calls) -> int | None:
        """The first element that ended without a value; None if there are no elements."""
        ended = [s for s in self.elements or () if calls.status[s] > DONE]
        failed = [s for s in ended if calls.status[s] is FAILED]
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


def streamed(node: Node) -> set[int]:
    """Ids that a map uses only to go over their elements."""
    wholly: set[int] = set()
    others: set[int] = set() if node.guard is None else {node.guard.node}
    for arg in node.values():
        source = arg.source if type(arg) is Each else None
        streams = type(source) is Ref and source.path[:1] in ((), (ALL,))
        (wholly if streams else others).update(ref.node for ref in refs(arg))
    return wholly - others


def _least(join: Join) -> int:
    """How many values a policy asks for at least."""
    return {"first": 1, "quorum": join.count}.get(join.kind, 0)


def _outcome(calls: Calls, arg: Arg) -> Outcome[Any]:
    if type(arg) is not Ref:
        return Outcome("done", bind(calls, arg))
    slot = calls.slots[arg.node]
    if calls.status[slot] < DONE:
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
