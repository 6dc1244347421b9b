"""A run state without a loop: the test says what happens and sees what is commanded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from agentflow.executor.state.commands import (
    Admitted,
    Command,
    Dropped,
    Extended,
    Failed,
    Finished,
    Halted,
    Happening,
    MakeRoom,
    Parked,
    Queued,
    Settle,
    Start,
    Status,
    Stop,
    Stopped,
    Wake,
)
from agentflow.executor.state.gates import Gate
from agentflow.executor.state.run_state import RunState
from agentflow.planner.plan import Node, Plan


class Machine:
    """Tells a `RunState` what happens, carries out nothing, and checks what must always hold.

    Args:
        nodes: The first segment.
        window: Calls at once.
        limits: Gates by tool; of the others any number may run.
        nullable: Tools whose parameters accept None.
    """

    def __init__(
        self,
        *nodes: Node,
        window: int = 1000,
        fail_fast: bool = False,
        limits: Mapping[str, Gate] | None = None,
        nullable: Iterable[str] = (),
    ) -> None:
        self.gates = dict(limits or {})
        self.window = window
        self.state = RunState(
            self._gate,
            window=window,
            fail_fast=fail_fast,
            takes_none=lambda node, used: node.tool in nullable,
        )
        self.state.wake = self.wake
        self.before: list[set[int]] = []  # by plan id, what it has to come after
        self.running: set[int] = set()
        self.stopping: set[int] = set()
        self.settled: set[int] = set()
        self.started: list[int] = []
        if nodes:
            self.extend(*nodes)

    def _gate(self, node: Node) -> Gate:
        return self.gates.setdefault(node.tool, Gate(1_000_000))

    # What happens

    def extend(self, *nodes: Node) -> list[str]:
        return self.extend_by(Plan(nodes, base=len(self.state.slots)))

    def extend_by(self, plan: Plan) -> list[str]:
        for node in plan.nodes:
            through = [self.before[index] for index in node.after]
            self.before.append(set(node.after).union(*through))
        return self.tell(Extended(plan))

    def finish(self, slot: int, value: Any = ...) -> list[str]:
        """The value is ``v`` and the slot unless the test gives one."""
        return self.tell(Finished(slot, f"v{slot}" if value is ... else value))

    def fail(self, slot: int, error: BaseException | None = None) -> list[str]:
        return self.tell(Failed(slot, error or ValueError(f"boom {slot}")))

    def wake(self, slot: int) -> None:
        self.tell(Admitted(slot))

    def stopped(self, slot: int) -> list[str]:
        return self.tell(Stopped(slot))

    def drop(self, slot: int) -> list[str]:
        return self.tell(Dropped(slot))

    def halt(self) -> list[str]:
        return self.tell(Halted())

    def tell(self, happening: Happening) -> list[str]:
        """Let it happen; the commands as words: ``start 3``, ``settle 1``, ``stop 2``."""
        match happening:
            case Finished(slot) if slot in self.running:
                self.settled.add(slot)
                self.running.remove(slot)
            case Failed(slot) | Stopped(slot) if slot in self.running:
                self.running.remove(slot)
        self.stopping &= self.running
        commands = self.state.react(happening)
        words = [self._note(command) for command in commands]
        self.check()
        for command in commands:
            if isinstance(command, Wake):
                command.state.wake(command.slot)
        return words

    def _note(self, command: Command) -> str:
        match command:
            case Start(slot):
                assert slot not in self.running and slot not in self.settled, f"{slot} again"
                node = self.state.nodes[slot]
                for used in node.waits_for():
                    source = self.state.slots[used]
                    assert self.state.status[source] >= Status.DONE, f"{slot} before {source}"
                place = self.state.where(slot)[0]
                assert not self.before[place] & {self.state.where(s)[0] for s in self.running}
                self.running.add(slot)
                self.started.append(slot)
                return f"start {slot}"
            case Settle(slot):
                assert slot not in self.settled, f"{slot} settled twice"
                assert slot not in self.running, f"{slot} settled while running"
                self.settled.add(slot)
                return f"settle {slot}"
            case Stop(slot):
                assert slot in self.running, f"{slot} does not run"
                self.stopping.add(slot)
                return f"stop {slot}"
            case Wake(_, slot):
                return f"wake {slot}"
            case Parked(slot):
                return f"park {slot}"
            case Queued(slot):
                return f"queue {slot}"
            case MakeRoom():
                return "make room"

    # What must hold

    def check(self) -> None:
        state = self.state
        assert {s for s, status in enumerate(state.status) if status is Status.RUNNING} == (
            self.running
        )
        assert len(self.running) <= self.window
        assert state.open == sum(status < Status.DONE for status in state.status)
        done = {s for s, status in enumerate(state.status) if status >= Status.DONE}
        assert done == self.settled
        for gate in self.gates.values():
            assert 0 <= gate.free <= gate.limit

    def check_over(self) -> None:
        """Nothing is left: every slot is settled and every gate is free."""
        self.check()
        assert self.state.open == 0, self.words()
        assert not self.running
        assert all(gate.free == gate.limit for gate in self.gates.values())

    # What came of it

    def word(self, slot: int) -> str:
        return self.state.status[slot].name.lower()

    def words(self) -> list[str]:
        """How every plan id stands."""
        return [self.word(slot) for slot in self.state.slots]

    def value(self, node: int) -> Any:
        slot = self.state.slots[node]
        assert self.state.status[slot] is Status.DONE, self.state.errors.get(slot, self.word(slot))
        return self.state.values[slot]

    def error(self, node: int) -> BaseException:
        return self.state.errors[self.state.slots[node]]


@pytest.fixture
def machine() -> type[Machine]:
    return Machine
