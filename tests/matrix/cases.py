"""What a seed decides: programs in lanes, and limits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from agentflow import Budget
from tests.chaos.programs import Program
from tests.matrix.programs import KINDS, Weaver

AMPLE = Budget(usd=100, deadline="30d")
"""Limits that bind nothing."""


@dataclass(frozen=True)
class Pass:
    """One run of a program.

    Attributes:
        owner: Its name; it begins with that of its lane.
        program: What it does.
        tight: Limits that may bind it, or None.
        line: Whether a plan that a model writes commits line by line.
        outside: Whether somebody else writes before it begins.
    """

    owner: str
    program: Program
    tight: Budget | None
    line: bool
    outside: bool


@dataclass(frozen=True)
class Case:
    """All that a seed decides: passes of each lane, one after the other."""

    seed: int
    lanes: tuple[tuple[Pass, ...], ...]

    @classmethod
    def draw(cls, seed: int) -> Case:
        chance = random.Random(f"matrix {seed}")
        tight = seed % 8 == 7
        lanes = chance.choice((1, 1, 2))
        return cls(seed, tuple(_lane(f"p{n}", chance, tight) for n in range(lanes)))

    @property
    def binds(self) -> bool:
        """Whether limits may bind the outcome."""
        return any(one.tight is not None for one in self.passes)

    @property
    def passes(self) -> Sequence[Pass]:
        """All passes."""
        return [one for lane in self.lanes for one in lane]

    @property
    def programs(self) -> dict[str, Program]:
        """By the name of the pass."""
        return {one.owner: one.program for one in self.passes}

    def show(self) -> str:
        """The case as a person reads it."""
        head = f"seed {self.seed}; again: pytest tests/matrix --matrix-seed {self.seed}"
        parts = [
            f"{one.owner} ({one.program.kind}, {one.tight}"
            f"{', by line' * one.line}{', somebody else writes before' * one.outside}):\n"
            + one.program.show(one.owner)
            for one in self.passes
        ]
        return "\n\n".join([head, *parts])


def _lane(name: str, chance: random.Random, tight: bool) -> tuple[Pass, ...]:
    """Some programs, one of them twice: the second time much is known of it."""
    weaver = Weaver(chance)
    count = chance.choice((1, 1, 2))
    programs = [
        weaver.program(chance.choice(KINDS), models=chance.random() < 0.6) for _ in range(count)
    ]
    programs.append(programs[0])
    return tuple(
        Pass(
            f"{name}-{number}",
            program,
            _budget(chance) if tight else None,
            line=chance.random() < 0.3,
            outside=number > 0 and chance.random() < 0.4,
        )
        for number, program in enumerate(programs)
    )


def _budget(chance: random.Random) -> Budget:
    return Budget(
        usd=chance.choice((None, "0.0005", "0.002", "0.02")),
        tokens=chance.choice((None, None, 900, 4000)),
        deadline=chance.choice((None, 0.3, 2.0, 9.0)),
        when_spent=chance.choice(("finish", "cancel")),
    )
