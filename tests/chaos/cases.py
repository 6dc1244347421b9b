"""What a seed decides: programs, what is switched on, limits, and what happens from outside."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pprint import pformat

from agentflow import Budget
from tests.chaos.faults import Blow, Mood, blows
from tests.chaos.programs import KINDS, Maker, Program

MOODS: tuple[Mood, ...] = ("calm", "bearable", "hostile", "hostile", "hostile")


@dataclass(frozen=True)
class Switches:
    """What is switched on."""

    cache: bool = False
    store: bool = False
    speculation: bool = False
    partial: bool = False
    hedge: float | bool = False
    pool: bool = False
    tenant: bool = False
    deaf_reader: bool = False
    journal: bool = False
    disk: bool = False

    @classmethod
    def draw(cls, chance: random.Random) -> Switches:
        cache = chance.random() < 0.8
        return cls(
            cache=cache,
            store=cache and chance.random() < 0.4,
            speculation=cache and chance.random() < 0.4,
            partial=chance.random() < 0.7,
            hedge=chance.choice((False, False, 1.0)),
            pool=chance.random() < 0.25,
            tenant=chance.random() < 0.2,
            deaf_reader=chance.random() < 0.1,
            journal=chance.random() < 0.12,
            disk=cache and chance.random() < 0.04,
        )


@dataclass(frozen=True)
class Pass:
    """One run of a program: its name, its limits, how it is started, and after how long."""

    owner: str
    program: Program
    budget: Budget | None
    way: str
    delay: float


@dataclass(frozen=True)
class Case:
    """All that a seed decides."""

    seed: int
    mood: Mood
    switches: Switches
    passes: tuple[Pass, ...]
    budget: Budget | None
    blows: tuple[Blow, ...]

    @classmethod
    def draw(cls, seed: int) -> Case:
        chance = random.Random(seed)
        mood = MOODS[seed % len(MOODS)]
        passes = tuple(_pass(f"p{n}", chance, mood) for n in range(chance.choice((1, 1, 2, 3))))
        budget = _budget(chance) if mood == "hostile" and chance.random() < 0.3 else None
        return cls(seed, mood, Switches.draw(chance), passes, budget, tuple(blows(chance, mood)))

    def calm(self) -> Case:
        """The same programs, and nothing else."""
        return replace(self, mood="calm", switches=Switches(), blows=())

    def show(self) -> str:
        """The case as a person reads it."""
        head = f"seed {self.seed} ({self.mood}); again: pytest tests/chaos --chaos-seed {self.seed}"
        head += f"\nbudget {self.budget}\n{pformat(self.switches)}"
        parts = [
            f"{one.owner} ({one.program.kind}, {one.way}, after {one.delay} s, {one.budget}):\n"
            + one.program.show(one.owner)
            for one in self.passes
        ]
        return "\n\n".join([head, f"from outside: {pformat(self.blows)}", *parts])


def _pass(owner: str, chance: random.Random, mood: Mood) -> Pass:
    kind = chance.choice(KINDS)
    maker = Maker(chance, limits=mood == "hostile")
    program = maker.program(kind, models=chance.random() < 0.4)
    budget = _budget(chance) if mood == "hostile" and chance.random() < 0.5 else None
    way = chance.choice(("run", "start", "stream"))
    return Pass(owner, program, budget, way, chance.choice((0.0, 0.0, 0.3, 4.0)))


def _budget(chance: random.Random) -> Budget:
    return Budget(
        usd=chance.choice((None, None, 0, "0.01", "0.025")),
        tokens=chance.choice((None, None, None, 0, 900, 4000)),
        deadline=chance.choice((None, 0.0, 0.3, 1.0, 3.0, 9.0, 30.0)),
        when_spent=chance.choice(("finish", "cancel")),
    )
