"""The run state: every decision of a run, and no I/O.

`RunState.react` takes what happened and returns commands. It reads no clock, awaits nothing
and starts nothing, so a run can be tested, and replayed, without a loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from agentflow.errors import CallCancelled
from agentflow.executor.state.bind import Element
from agentflow.executor.state.commands import (
    CANCELLED,
    DONE,
    FAILED,
    PARKED,
    RUNNING,
    SKIPPED,
    Admitted,
    Command,
    Dropped,
    Extended,
    Failed,
    Finished,
    Halted,
    Happening,
    Known,
    Stopped,
)
from agentflow.executor.state.gates import Gate
from agentflow.executor.state.growth import Growth
from agentflow.executor.state.joins import (
    Fanning,
    Gathering,
    common_length,
    expand,
)
from agentflow.executor.state.losses import (
    cannot_begin,
    guard_was_false,
    needs_lost,
    too_few_elements,
)
from agentflow.executor.state.schedule import End
from agentflow.planner.order import EffectOrder
from agentflow.planner.plan import ALL, Each, Node, Ref
from agentflow.tools.effects import Resource
from agentflow.tools.paths import resolve


class RunState(Growth):
    """The state of one run.

    Args:
        gates: The gate that a node's calls go through.
        window: How many calls of this run may run at once.
        fail_fast: A failure that no join policy tolerates halts the run.
        writes: The resources that a call writes to.
        takes_none: Whether the parameter of a node that uses a plan id accepts None.

    Attributes:
        mapped: A map has expanded: further slots are not plan ids.
        first_failure: Slot of the first failure that no join policy tolerated, or None.
        spare: Which of the slots that lost a race (and how often each took part) are needed
            all the same; set by whoever knows of more than the plan.
    """

    def __init__(
        self,
        gates: Callable[[Node], Gate],
        *,
        window: int,
        fail_fast: bool,
        takes_none: Callable[[Node, int], bool],
        writes: Callable[[Node], tuple[Resource, ...]] = lambda _node: (),
    ) -> None:
        super().__init__(gates, window)
        self._fail_fast = fail_fast
        self._takes_none = takes_none
        self._writes = writes
        self.mapped = False
        self.first_failure: int | None = None
        self.spare: Callable[[Counter[int]], set[int]] = lambda _losers: set()
        self._reactions: Mapping[type, Callable[[Any, list[Command]], None]] = {
            Finished: self._on_finished,
            Known: self._on_known,
            Extended: self._on_extended,
            Failed: self._on_failed,
            Stopped: self._on_stopped,
            Admitted: self._on_admitted,
            Dropped: self._on_dropped,
            Halted: self._on_halted,
        }

    def react(self, happening: Happening) -> list[Command]:
        """Take in what happened; what is to be done about it."""
        out: list[Command] = []
        self._reactions[type(happening)](happening, out)
        if self._ripe or self._ends:
            self._drain(out)
        return out

    def _on_finished(self, happening: Finished, out: list[Command]) -> None:
        slot = happening.slot
        if self.status[slot] is not RUNNING:
            return  # it came too late
        self.values[slot] = happening.value
        self.status[slot] = DONE
        self.open -= 1
        self._release(slot, out)
        if self._users[slot]:
            self._count_down(slot)
        if slot in self._parents:
            self._ended(slot, out)

    def _on_known(self, happening: Known, _out: list[Command]) -> None:
        if self.status[happening.slot] is PARKED:
            self._ends.append((happening.slot, DONE, happening.value))

    def _on_failed(self, happening: Failed, out: list[Command]) -> None:
        if self.status[happening.slot] is RUNNING:
            self._release(happening.slot, out)
            self._ends.append((happening.slot, FAILED, happening.error))

    def _on_stopped(self, happening: Stopped, out: list[Command]) -> None:
        slot = happening.slot
        if self.status[slot] is RUNNING:
            self._release(slot, out)
            tool = self.nodes[slot].tool
            error = CallCancelled(f"{tool} was cancelled", tool=tool, node=self.where(slot)[0])
            self._ends.append((slot, CANCELLED, error))

    def _on_admitted(self, happening: Admitted, out: list[Command]) -> None:
        self._enter(happening.slot, out)

    def _on_dropped(self, happening: Dropped, out: list[Command]) -> None:
        self._drop(happening.slot, out)

    def _on_halted(self, _happening: Halted, out: list[Command]) -> None:
        self._halt(out)

    # Calls that are not plain

    def _decide(self, slot: int, out: list[Command]) -> bool:
        node, join = self.nodes[slot], self._joins.get(slot)
        if isinstance(join, Gathering) and any(self.status[s] < DONE for s in join.required):
            self._missing[slot] = 1  # the policy is met; look again at the next end
            return False
        if (end := self._guarded(slot, node)) is not None:
            self._ends.append((slot, *end))
        elif isinstance(join, Gathering):
            self._gather(slot, node, join, out)
        elif isinstance(join, Fanning):
            self._expand(slot, node, join)
        else:
            return True
        return False

    def _guarded(self, slot: int, node: Node) -> End | None:
        """How the call ends because of its guard; None if the guard holds."""
        if node.guard is None:
            return None
        try:
            if resolve(self.values[self.slots[node.guard.node]], node.guard.path):
                return None
        except Exception as error:  # noqa: BLE001  # a path leads nowhere, or a value raises
            return cannot_begin(error, node.tool, self.where(slot)[0])
        return guard_was_false(node.tool, self.where(slot)[0])

    def _gather(self, slot: int, node: Node, join: Gathering, out: list[Command]) -> None:
        try:
            end: End = DONE, join.value(self, node.args)
        except Exception as error:  # noqa: BLE001  # as above, or a copy fails
            end = cannot_begin(error, node.tool, self.where(slot)[0])
        self._ends.append((slot, *end))
        self._drop_losers(slot, join, out)

    def _drop_losers(self, slot: int, join: Gathering, out: list[Command]) -> None:
        """A gather needs no further values: calls that nobody else needs are cancelled."""
        losers = Counter(loser for loser in join.inputs if self.status[loser] < DONE)
        spared = self.spare(losers) if losers else ()
        for loser in losers:
            if loser not in spared and not self.used(loser, but=slot):
                self._drop(loser, out)

    def _expand(self, slot: int, node: Node, join: Fanning) -> None:
        """Make the elements of a map."""
        try:
            columns = {
                id(arg): self._column(arg.source) for arg in node.values() if type(arg) is Each
            }
            length = common_length(list(columns.values()))
        except Exception as error:  # noqa: BLE001  # as above
            self._ends.append((slot, *cannot_begin(error, node.tool, self.where(slot)[0])))
            return
        self.status[slot] = PARKED  # it runs as its elements do
        join.elements = []
        order = EffectOrder()
        for index in range(length):
            element = self._join((expand(node, columns, index),), (0,))
            self._parents[element] = (slot, index)
            self.mapped = True
            join.elements.append(element)
            for column in columns.values():
                if type(column[index]) is Element:
                    self._await(element, column[index].slot)
            if written := self._writes(self.nodes[element]):
                self._queue_up(element, order.write(element, written))
            if not self._missing[element]:
                self._ripe.append(element)
        for follower in join.followers:
            self._missing[follower] -= 1
            if not self._missing[follower]:
                self._ripe.append(follower)
        self._judge(slot, join)

    def _queue_up(self, element: int, before: tuple[int, ...]) -> None:
        """Elements that write to one resource do so in their order."""
        self._before[element] = before
        for other in before:
            self._wait(element, other)
        self._missing[element] += len(before)

    def _column(self, source: Any) -> list[Any]:
        """The items a map goes over: values, or elements to come."""
        if type(source) is not Ref:
            return list(source)
        slot = self.slots[source.node]
        joined = self._joins.get(slot)
        if self.status[slot] < DONE and isinstance(joined, Fanning) and joined.elements:
            return [Element(element, source.path[1:]) for element in joined.elements]
        if self.status[slot] < DONE:
            return []  # a map over an empty map that is about to settle
        path = source.path if ALL in source.path else (*source.path, ALL)
        items: list[Any] = resolve(self.values[slot], path)
        return items

    def _await(self, element: int, source: int) -> None:
        if self.status[source] < DONE:
            self._wait(element, source)
            self._missing[element] += 1

    # Policies

    def _ended(self, slot: int, out: list[Command]) -> None:
        joined = self._joins.get(slot)
        if isinstance(joined, Gathering) and self.status[slot] is CANCELLED:
            self._drop_losers(slot, joined, out)
        elif isinstance(joined, Fanning):
            for element in joined.elements or ():
                self._drop(element, out)  # not needed any more
            if self.status[slot] is not DONE:
                for follower in joined.followers:  # whatever has been decided of them
                    self._ends.appendleft((follower, *self._consequence(follower, slot)))
        if slot in self._parents:
            parent = self._parents[slot][0]
            join = self._joins[parent]
            assert isinstance(join, Fanning)
            if self.status[slot] is DONE:
                join.done += 1
            else:
                join.ended += 1
            self._judge(parent, join)
        elif self.status[slot] is FAILED and self.first_failure is None:
            self._note_failure(slot, out)

    def _judge(self, slot: int, join: Fanning) -> None:
        """Settle a map if its policy says what becomes of it."""
        if self.status[slot] >= DONE or (verdict := join.verdict(self)) is None:
            return
        status, value = verdict
        if status is DONE:
            self._ends.append((slot, status, value))
        elif value is None:
            tool, node = self.nodes[slot].tool, self.where(slot)[0]
            end = too_few_elements(join.join, len(join.elements or ()), tool, node)
            self._ends.append((slot, *end))
        else:
            self._ends.append((slot, self.status[value], self.errors[value]))

    def _note_failure(self, slot: int, out: list[Command]) -> None:
        users = self._users[slot]
        if users and all(self._tolerates(user) for user in users):
            return
        self.first_failure = slot
        if self._fail_fast:
            self._halt(out)

    def _tolerates(self, user: int) -> bool:
        join = self._joins.get(user)
        return isinstance(join, Gathering) and join.join.kind != "all"

    def _waits_for_loss(self, user: int) -> bool:
        join = self._joins.get(user)
        return not isinstance(join, Gathering) or join.join.kind in ("all", "settled")

    def _without(self, user: int, lost: int) -> End | None:
        node, join = self.nodes[user], self._joins.get(user)
        if isinstance(join, Gathering) and join.join.kind != "all" and lost not in join.required:
            return self._unreachable(user, join)
        source, element = self.where(lost)
        if element is not None:
            if lost in self._before.get(user, ()):
                return None  # it only had to come after
        elif source not in node.uses():
            return None  # likewise
        elif self.status[lost] is SKIPPED and self._takes_none(node, source):
            return None
        return self._consequence(user, lost)

    def _consequence(self, user: int, lost: int) -> End:
        """How a call ends that needs a value which will never exist."""
        tool, node = self.nodes[user].tool, self.where(user)[0]
        source = self.nodes[lost].tool
        return needs_lost(tool, node, source, self.status[lost], self.errors[lost])
