"""What an allocator is told, and what it answers: ids, numbers and names, no objects of a run."""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """What to expect of one sample of one model at one kind of task.

    Attributes:
        probability: That a sample passes, on average over the tasks of this kind.
        won: Seconds and USD of samples that passed, as they were or may be.
        lost: The same of samples that did not.
        start: USD of a sample that are spent when it begins: its input.
        doubt: Standard deviation of `probability`, for how little of it is known.
        refunds: Whether a sample that is cancelled costs only what it had made by then.
        bound: USD that are set aside for a sample, or 0 for what the dearest of these costs.
    """

    probability: float
    won: Sequence[tuple[float, float]]
    lost: Sequence[tuple[float, float]]
    start: float = 0.0
    doubt: float = 0.0
    refunds: bool = True
    bound: float = 0.0

    @property
    def usd(self) -> float:
        """USD that a sample costs, on average."""
        shares = (self.probability, self.won), (1.0 - self.probability, self.lost)
        known = [(share, pool) for share, pool in shares if pool]
        total = sum(share for share, _ in known)
        means = [share * sum(usd for _, usd in pool) / len(pool) for share, pool in known]
        return sum(means) / total if total else 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample that is under way.

    Attributes:
        model: Who makes it.
        age: Seconds since it began.
        reserved: USD set aside for it.
    """

    model: str
    age: float
    reserved: float = 0.0


@dataclass(frozen=True, slots=True)
class Job:
    """A node of a plan that is not done.

    Attributes:
        id: Names it.
        after: Jobs that must be done first.
        models: Who may try it, in the order the user listed them.
        widths: How many samples of a model may be started at once. Without any the job runs by
            itself when it is ready: one sample of its only model, and no other.
        agreement: How much the outcomes of samples of one job have in common, from 0
            (independent) to below 1, whoever makes them: the correlation of what decides them.
        ready: Everything it waits for is there.
        running: Its samples under way.
        failed: By model, how many of its samples did not pass.
        room: How many samples may still be begun, or None without limit.
    """

    id: int
    after: tuple[int, ...]
    models: Mapping[str, Profile]
    widths: tuple[int, ...] = (1,)
    agreement: float = 0.0
    ready: bool = False
    running: tuple[Sample, ...] = ()
    failed: Mapping[str, int] = field(default_factory=dict)
    room: int | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """What is left to do, and with what.

    Attributes:
        jobs: What is not done, each after those it waits for. What is done is left out, also
            of `Job.after`.
        usd: USD that can still be set aside (what is reserved is gone), or None without limit.
        seconds: Until the deadline, or None without one.
        spent: USD that the run has cost already, of which nothing comes back if it is given up.
    """

    jobs: tuple[Job, ...]
    usd: float | None = None
    seconds: float | None = None
    spent: float = 0.0


@dataclass(frozen=True, slots=True)
class Start:
    """Begin so many samples of a model at a job."""

    job: int
    model: str
    samples: int = 1


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now.

    Attributes:
        starts: Samples to begin, the most important first.
        again: Seconds after which to ask again although nothing has ended, or None.
        probability: That everything is done within both limits, as far as can be told.
        usd: USD that is still expected to be spent, or None if that is not estimated.
        hopeless: Jobs that are given up: nothing more is started for them.
    """

    starts: tuple[Start, ...] = ()
    again: float | None = None
    probability: float | None = None
    usd: float | None = None
    hopeless: tuple[int, ...] = ()


Deciding = Generator[float, None, Decision]
"""A decision in small steps, each of a millisecond or less.

Between two of them others may run. It yields seconds to wait before the next step, 0 as a rule.
"""


class Allocator(Protocol):
    """Decides for one run; it may remember what it worked out for the decision before."""

    def decide(self, situation: Situation, chance: random.Random) -> Deciding:
        """Choose what to begin, whenever a job is ready or a sample has ended.

        A sample that passes ends its job: what still runs for it is cancelled. A job that is
        ready, has nothing under way and is started nothing for is asked about again at `again`
        or at the next end; if nothing at all is under way and nothing starts, it has failed.
        """
        ...
