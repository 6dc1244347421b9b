"""Random plans under random happenings: what `Machine.check` demands holds at every step."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from agentflow.executor.state.gates import Gate
from agentflow.planner.plan import GATHER, Each, Join, Node, Ref

if TYPE_CHECKING:
    from tests.executor.conftest import Machine

JOINS = (Join(), Join("settled"), Join("first"), Join("quorum", 2))


def node(chance: random.Random, known: int) -> Node:
    """A call that uses up to three of the calls before it."""
    uses = [Ref(chance.randrange(known)) for _ in range(chance.randrange(4))] if known else []
    guard = Ref(chance.randrange(known)) if known and chance.random() < 0.15 else None
    after = (chance.randrange(known),) if known and chance.random() < 0.2 else ()
    join = chance.choice(JOINS)
    rank = float(chance.randrange(5))
    kind = chance.random()
    if kind < 0.2:
        return Node(GATHER, tuple(uses) or (1, 2), guard=guard, join=join)
    if kind < 0.4:
        source: Any = uses[0] if uses else tuple(range(chance.randrange(3)))
        more = tuple(uses[1:2])
        return Node("m", (Each(source), *more), guard=guard, join=join, after=after, rank=rank)
    tool = chance.choice("abc")
    return Node(tool, tuple(uses), guard=guard, after=after, rank=rank)


def value(chance: random.Random) -> Any:
    return chance.choice([0, True, [], [1, 2], [0], ["x"] * 3, {"k": 1}, None])


class Walk:
    """One random walk over machines that share their gates."""

    def __init__(self, machine: type[Machine], seed: int) -> None:
        self.chance = random.Random(seed)
        gates = {tool: Gate(self.chance.randrange(1, 4)) for tool in "abm"}
        self.machines = [
            machine(
                window=self.chance.choice((1, 2, 5, 1000)),
                fail_fast=self.chance.random() < 0.3,
                limits=gates,
                nullable=("b",),
            )
            for _ in range(self.chance.choice((1, 1, 2, 3)))
        ]
        self.trouble = self.chance.choice((0.0, 0.1, 0.4))

    def grow(self, m: Machine) -> None:
        known = len(m.state.slots)
        m.extend(*(node(self.chance, known + n) for n in range(self.chance.randrange(1, 6))))

    def step(self, m: Machine) -> None:
        """Something happens to a call that runs, or to any call."""
        slot = self.chance.choice(sorted(m.running))
        dice = self.chance.random()
        if slot in m.stopping and dice < 0.7:
            m.stopped(slot)
        elif dice < self.trouble:
            m.fail(slot)
        elif dice < self.trouble * 1.3:
            m.drop(self.chance.randrange(len(m.state.nodes)))
        elif dice < self.trouble * 1.35:
            m.halt()
        elif dice < self.trouble * 1.5:
            m.finish(self.chance.randrange(len(m.state.nodes)), "late")
        else:
            m.finish(slot, value(self.chance))

    def run(self) -> None:
        for m in self.machines:
            self.grow(m)
        for _ in range(self.chance.randrange(60)):
            m = self.chance.choice(self.machines)
            if self.chance.random() < 0.1:
                self.grow(m)
            elif m.running:
                self.step(m)
        while busy := [m for m in self.machines if m.running]:
            self.step(self.chance.choice(busy))
        for m in self.machines:
            m.check_over()


@pytest.mark.parametrize("batch", range(20))
def test_every_walk_settles_every_call_once_and_leaves_every_gate_free(
    machine: type[Machine], batch: int
) -> None:
    for seed in range(batch * 50, batch * 50 + 50):
        try:
            Walk(machine, seed).run()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
