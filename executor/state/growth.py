"""How a plan grows while it runs: segments join, and calls that are not plain start to watch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count

from agentflow.executor.state.accounts import Accounts
from agentflow.executor.state.commands import DONE, RUNNING, Command, Extended
from agentflow.executor.state.gates import Gate
from agentflow.executor.state.joins import Fanning, Gathering, gathering, streamed
from agentflow.executor.state.losses import out_of_reach
from agentflow.executor.state.schedule import End
from agentflow.planner.plan import GATHER, Node, Plan


class Growth(Accounts):
    """A schedule that further nodes may join, whatever has become of those they use."""

    def __init__(self, gates: Callable[[Node], Gate], window: int) -> None:
        super().__init__(gates, window)
        self._joins: dict[int, Gathering | Fanning] = {}
        self._before: dict[int, tuple[int, ...]] = {}  # what else comes before a slot
        self._left: dict[int, list[int]] = {}  # what had not ended when a call that comes after had

    def plain(self, slot: int) -> bool:
        """Whether it is a call and no join or map, nor an element of one."""
        return slot not in self._joins and slot not in self._parents

    def _on_extended(self, happening: Extended, out: list[Command]) -> None:
        plan = happening.plan
        assert plan.base == len(self.slots), "segments join in order"
        edges = plan.edges
        aligned = len(self.nodes) == plan.base  # no map has expanded yet: slots are plan ids
        first = self._join(plan.nodes, edges.indegree)
        self.slots += range(first, first + len(plan.nodes))
        if aligned:
            self._users[first:] = edges.users
        else:
            self._ids.update(zip(range(first, len(self.nodes)), count(plan.base), strict=False))
        lost = self._connect(plan, first, aligned) if plan.base or not aligned else []
        for position in edges.special:
            self._prepare(first + position, plan.nodes[position])
        for slot, source in lost:
            self._lose(slot, source)
        missing = self._missing
        self._ripe += [slot for slot in range(first, len(missing)) if not missing[slot]]
        if self.halted:
            for slot in range(first, len(missing)):
                self._drop(slot, out)

    def _connect(self, plan: Plan, first: int, aligned: bool) -> list[tuple[int, int]]:
        """Edges from earlier segments; all edges once slots are no longer plan ids.

        Returns:
            Slots and what they wait for, where that has ended without a value.
        """
        lost = []
        for slot, node in enumerate(plan.nodes, first):
            for dep in node.waits_for():
                if aligned and dep >= plan.base:
                    continue
                source = self.slots[dep]
                if self.status[source] < DONE:
                    self._wait(slot, source)
                    continue
                self._missing[slot] -= 1
                if source in self._left and dep in node.after:
                    self._wait_for_all(slot, self._still_before(source))
                if self.status[source] is not DONE:
                    lost.append((slot, source))
        return lost

    def _lose(self, slot: int, source: int) -> None:
        """What a call waits for has ended without a value before the call was there."""
        if (end := self._without(slot, source)) is not None:
            self._ends.append((slot, *end))

    # Calls that come after others without using their values

    def _hold_back(self, slot: int) -> None:
        if earlier := self._still_before(slot):
            self._left[slot] = earlier
            for user in self._users[slot]:
                if self.status[user] < DONE and self._only_after(user, slot):
                    self._wait_for_all(user, earlier)

    def _still_before(self, slot: int) -> list[int]:
        """Calls that have not ended, and that whoever comes after `slot` has to come after."""
        found: dict[int, None] = {}
        seen, todo = {slot}, [slot]
        while todo:
            for other in self._earlier(todo.pop()):
                if self.status[other] < DONE:
                    found[other] = None
                elif other in self._left and other not in seen:
                    seen.add(other)
                    todo.append(other)
        return list(found)

    def _earlier(self, slot: int) -> list[int]:
        if slot in self._left:
            return self._left[slot]
        join = self._joins.get(slot)
        elements = (join.elements or ()) if isinstance(join, Fanning) else ()
        return [
            *(self.slots[index] for index in self.nodes[slot].after),
            *self._before.get(slot, ()),
            *(element for element in elements if self.status[element] is RUNNING),
        ]

    def _only_after(self, user: int, slot: int) -> bool:
        return self.where(slot)[0] in self.nodes[user].after or slot in self._before.get(user, ())

    def _wait_for_all(self, slot: int, others: list[int]) -> None:
        self._before[slot] = (*self._before.get(slot, ()), *others)
        for other in others:
            self._wait(slot, other)
        self._missing[slot] += len(others)

    # What special calls watch

    def _prepare(self, slot: int, node: Node) -> None:
        """What a call that is not plain must watch while it waits."""
        self._special.add(slot)
        if node.tool == GATHER:
            self._prepare_gather(slot, node)
        elif node.mapped:
            self._joins[slot] = Fanning(node.join)
            for source in streamed(node).difference(node.after):
                self._hasten(slot, self.slots[source])

    def _prepare_gather(self, slot: int, node: Node) -> None:
        join = self._joins[slot] = gathering(node, self.slots)
        if join.wanted is None:
            return
        done = sum(self.status[i] is DONE for i in join.inputs)
        self._missing[slot] = max(0, join.wanted - done)
        for source, times in Counter(join.inputs).items():
            if self.status[source] < DONE:
                for _ in range(times - 1):
                    self._wait(slot, source)  # one value that counts twice
        if (end := self._unreachable(slot, join)) is not None:
            self._ends.append((slot, *end))

    def _hasten(self, slot: int, source: int) -> None:
        """A map over a map waits for its length only; then its elements wait for elements.

        Under any other policy than ``all`` the value is more than the list of the elements.
        """
        joined = self._joins.get(source)
        if self.status[source] >= DONE or not isinstance(joined, Fanning):
            return
        if joined.join.kind == "all":
            self._users[source] = [user for user in self._users[source] if user != slot]
            joined.followers.append(slot)
            if joined.elements is not None:
                self._missing[slot] -= 1

    def used(self, slot: int, but: int | None = None) -> bool:
        """Whether a call that has not ended waits for this one."""
        join = self._joins.get(slot)
        followers = join.followers if isinstance(join, Fanning) else ()
        return any(self.status[u] < DONE and u != but for u in (*self._users[slot], *followers))

    def _unreachable(self, slot: int, join: Gathering) -> End | None:
        """How a gather ends because too few of its inputs are left."""
        if join.reachable(self.status):
            return None
        cause = next((self.errors[i] for i in join.inputs if i in self.errors), None)
        return out_of_reach(join.join, len(join.inputs), self.where(slot)[0], cause)
