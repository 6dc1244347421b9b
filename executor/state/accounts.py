"""What has become of each call, by the id it has in the plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentflow.errors import DependencyFailed
from agentflow.executor.state.commands import CANCELLED, DONE, FAILED, SKIPPED
from agentflow.executor.state.gates import Gate
from agentflow.executor.state.schedule import Schedule
from agentflow.planner.plan import Node
from agentflow.tools.values import Outcome

_OUTCOME = {
    DONE: "done",
    FAILED: "failed",
    SKIPPED: "skipped",
    CANCELLED: "cancelled",
}


class Accounts(Schedule):
    """A schedule that knows which slot is which call.

    Attributes:
        slots: Slot by plan id.
    """

    def __init__(self, gates: Callable[[Node], Gate], window: int) -> None:
        super().__init__(gates, window)
        self.slots: list[int] = []
        self._ids: dict[int, int] = {}  # plan id by slot, where they differ
        self._parents: dict[int, tuple[int, int]] = {}  # of elements: the map's slot, and index

    def slot(self, node: int) -> int:
        """The slot of a plan id."""
        return self.slots[node]

    def where(self, slot: int) -> tuple[int, int | None]:
        """The plan id of a slot, and the index of the element if it is one."""
        if not self._ids and not self._parents:
            return slot, None
        if (parent := self._parents.get(slot)) is not None:
            return self.where(parent[0])[0], parent[1]
        return self._ids.get(slot, slot), None

    def place(self, slot: int) -> int | str:
        """The plan id of a slot, as ``3[0]`` if it is an element."""
        node, element = self.where(slot)
        return node if element is None else f"{node}[{element}]"

    def outcome(self, slot: int) -> Outcome[Any]:
        """How a settled call ended."""
        return Outcome(
            _OUTCOME[self.status[slot]],  # type: ignore[arg-type]  # the four literals
            self.values[slot],
            self.errors.get(slot),
        )

    def results(self) -> dict[int, Any]:
        """Value by plan id, of everything that is done."""
        return {
            node: self.values[slot]
            for node, slot in enumerate(self.slots)
            if self.status[slot] is DONE
        }

    def failures(self) -> dict[int, BaseException]:
        """Exception by plan id, of every failure that does not follow from another."""
        return {
            node: self.errors[slot]
            for node, slot in enumerate(self.slots)
            if self.status[slot] is FAILED and not isinstance(self.errors[slot], DependencyFailed)
        }

    def pending(self) -> list[int]:
        """Plan ids that are not settled, or were cancelled before they were."""
        return [
            node
            for node, slot in enumerate(self.slots)
            if self.status[slot] < DONE or self.status[slot] is CANCELLED
        ]
