"""Which call starts next: in-degree counters, gates, and a window on what runs at once.

This half of the run state knows that calls wait for calls; `RunState` knows what values mean.
Calls live in *slots*, numbered in the order they joined. A node of the plan has one slot;
a map has one more for every element.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from agentflow.errors import CallCancelled
from agentflow.executor.state.commands import (
    CANCELLED,
    DONE,
    PARKED,
    RUNNING,
    WAITING,
    Command,
    MakeRoom,
    Parked,
    Queued,
    Settle,
    Start,
    Status,
    Stop,
    Wake,
)
from agentflow.executor.state.gates import OPEN, Gate
from agentflow.planner.plan import Node

End: TypeAlias = tuple[Status, Any]
"""How a call ends without running: its status, and its value or error."""


class Schedule:
    """Calls that wait for calls.

    Attributes:
        nodes: By slot.
        values: By slot, of calls that are done.
        errors: By slot, of calls that ended without a value.
        status: By slot.
        open: How many slots are not settled.
        halted: Nothing new starts.
        wake: Called when another run's call made way for one of ours; set by the driver.
    """

    def __init__(self, gates: Callable[[Node], Gate], window: int) -> None:
        self._gate_of = gates
        self._gates: list[Gate] = []
        self._free = window
        self._queue: list[tuple[float, int]] = []
        self._ripe: deque[int] = deque()
        self._ends: deque[tuple[int, Status, Any]] = deque()
        self._missing: list[int] = []
        self._users: list[list[int] | tuple[int, ...]] = []  # shared with the plan until they grow
        self._special: set[int] = set()
        self.nodes: list[Node] = []
        self.values: list[Any] = []
        self.errors: dict[int, BaseException] = {}
        self.status: list[Status] = []
        self.open = 0
        self.halted = False
        self.wake: Callable[[int], None] = self._nobody_wakes

    def _nobody_wakes(self, slot: int) -> None:
        raise AssertionError(f"slot {slot} was let through a gate, and no driver listens")

    def waits_at_gate(self, slot: int) -> bool:
        """Whether the call still wants to start."""
        return self.status[slot] is PARKED

    @property
    def crowded(self) -> bool:
        """Whether calls wait for a place in the window."""
        return bool(self._queue)

    def users(self, slot: int) -> Sequence[int]:
        """The slots of the calls that wait for a call."""
        return self._users[slot]

    # What the other half decides

    def _decide(self, slot: int, out: list[Command]) -> bool:
        """Whether a special call is to be started; if not, it has been dealt with."""
        raise NotImplementedError

    def _without(self, user: int, lost: int) -> End | None:
        """How `user` ends because `lost` has no value; None if it can do without."""
        raise NotImplementedError

    def _hold_back(self, slot: int) -> None:
        """A call has ended, perhaps before what it was to come after: see to who comes after it."""
        raise NotImplementedError

    def _ended(self, slot: int, out: list[Command]) -> None:
        """A call has settled: joins and policies that watch it."""
        raise NotImplementedError

    # Growing

    def _join(self, nodes: Sequence[Node], missing: Sequence[int]) -> int:
        """Give nodes slots, without edges yet; the first slot."""
        first, count = len(self.nodes), len(nodes)
        self.nodes += nodes
        self.values += [None] * count
        self.status += [WAITING] * count
        self._missing += missing
        self._users += [()] * count
        self._gates += map(self._gate_of, nodes)
        self.open += count
        return first

    def _wait(self, user: int, source: int) -> None:
        """One more call waits for `source`."""
        users = self._users[source]
        if isinstance(users, tuple):
            users = self._users[source] = list(users)
        users.append(user)

    # Starting

    def _drain(self, out: list[Command]) -> None:
        """Deal with everything that has become ripe or has ended, then start what can start."""
        starting: list[int] = []
        ripe, ends = self._ripe, self._ends
        while ripe or ends:
            if ends:
                self._end(*ends.popleft(), out)
                continue
            slot = ripe.popleft()
            status = self.status[slot]
            if status >= RUNNING:
                continue
            if slot in self._special and status is WAITING and not self._decide(slot, out):
                continue
            starting.append(slot)
        if starting:
            self._start(starting, out)

    def _start(self, starting: list[int], out: list[Command]) -> None:
        if len(starting) <= self._free:
            for slot in starting:
                if self.status[slot] < RUNNING:  # else it ended while it was ripe
                    self._admit(slot, out)
            return
        for slot in starting:
            if self.status[slot] < RUNNING:
                self._enqueue(slot)
        before = len(out)
        self._refill(out)
        at_gates = {command.slot for command in out[before:] if type(command) is Parked}
        for slot in starting:
            if self.status[slot] is PARKED and slot not in at_gates:
                out.append(Queued(slot))

    def widen(self) -> None:
        """Any number of calls may run at once."""
        self._free = 1 << 60

    def _enqueue(self, slot: int) -> None:
        """Wait for a place in the window."""
        self.status[slot] = PARKED
        heapq.heappush(self._queue, (-self.nodes[slot].rank, slot))

    def _admit(self, slot: int, out: list[Command]) -> None:
        gate = self._gates[slot]
        if gate.free > 0 or gate.room > 0:  # the first alone answers nearly always
            gate.free -= 1
            self._free -= 1
            self.status[slot] = RUNNING
            out.append(Start(slot))
            if gate.free < 0:  # unless the call takes a guest's place over when it starts
                out.append(MakeRoom(gate))
        else:
            self.status[slot] = PARKED
            gate.park(self.nodes[slot].rank, self, slot)
            out.append(Parked(slot))

    def _refill(self, out: list[Command]) -> None:
        while self._queue and self._free > 0:
            _, slot = heapq.heappop(self._queue)
            if self.status[slot] is PARKED:
                self._admit(slot, out)

    def _release(self, slot: int, out: list[Command]) -> None:
        """A running call ended: its place goes to the next in line."""
        gate = self._gates[slot]
        gate.give_back()
        self._free += 1
        if gate.queue:
            self._offer(gate, out)
        if self._queue:
            self._refill(out)

    def hand_over(self, slot: int) -> Gate:
        """Where a running call has its place; whoever asks gives it back from now on."""
        gate, self._gates[slot] = self._gates[slot], OPEN
        OPEN.free -= 1
        return gate

    def _offer(self, gate: Gate, out: list[Command]) -> None:
        """A place at a gate is free: it goes to the next in line who can take it."""
        while (waiter := gate.next()) is not None:
            state, slot = waiter
            if state is not self:
                out.append(Wake(state, slot))
                return
            if self._free > 0:
                self._admit(slot, out)
                return
            self._enqueue(slot)
            out.append(Queued(slot))

    def _enter(self, slot: int, out: list[Command]) -> None:
        """Another run made way at a gate; a call that cannot use the place passes it on."""
        if self.status[slot] is PARKED:
            if self._free > 0:
                self._admit(slot, out)
                return
            self._enqueue(slot)
            out.append(Queued(slot))
        self._offer(self._gates[slot], out)

    # Settling

    def _count_down(self, slot: int) -> None:
        """The call has its value: whoever waited for nothing else is ripe."""
        missing = self._missing
        for user in self._users[slot]:
            left = missing[user] - 1
            missing[user] = left
            if not left:
                self._ripe.append(user)

    def _end(self, slot: int, status: Status, value: Any, out: list[Command]) -> None:
        """End a call that does not run, or not to its end."""
        if self.status[slot] >= DONE:
            return
        self.status[slot] = status
        self.open -= 1
        out.append(Settle(slot))
        self._hold_back(slot)
        if status is DONE:
            self.values[slot] = value
            self._count_down(slot)
        else:
            self.errors[slot] = value
            self._bereave(slot)
        self._ended(slot, out)

    def _bereave(self, slot: int) -> None:
        """The value will never exist: whoever cannot do without it ends too."""
        for user in self._users[slot]:
            if self.status[user] >= DONE:
                continue
            if (end := self._without(user, slot)) is not None:
                self._ends.append((user, *end))
            elif self._waits_for_loss(user):
                self._missing[user] -= 1
                if not self._missing[user]:
                    self._ripe.append(user)

    def _waits_for_loss(self, _user: int) -> bool:
        """Whether the end of an input counts even when it has no value."""
        return True

    def _drop(self, slot: int, out: list[Command]) -> None:
        """Cancel a call, wherever it is."""
        if self.status[slot] is RUNNING:
            out.append(Stop(slot))
        elif self.status[slot] < DONE:
            tool = self.nodes[slot].tool
            error = CallCancelled(f"{tool} was cancelled before it started", tool=tool)
            self._ends.append((slot, CANCELLED, error))

    def _halt(self, out: list[Command]) -> None:
        """Nothing new starts; what runs is stopped and what waits is cancelled."""
        if not self.halted:
            self.halted = True
            for slot, status in enumerate(self.status):
                if status < DONE:
                    self._drop(slot, out)
