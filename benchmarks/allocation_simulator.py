"""Runs a plan on samples that are known beforehand, event by event: no loop, no tasks, no models.

An allocator is asked whenever a node is ready, a sample has ended or the time it gave has passed.
A sample has money set aside for all that it may cost, or for its part of what is left; one that
would cost more than that is cut, and has failed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from allocation_cases import Case, Draws, Record

from agentflow.budgets.allocation.situation import (
    Allocator,
    Decision,
    Job,
    Profile,
    Sample,
    Situation,
)

Beliefs = tuple[Mapping[str, Profile], ...]
"""By node and model, what an allocator is told."""

TINY = 1e-12
LEAST = 2e-3  # of what a sample may cost, the part below which it is not begun


@dataclass(frozen=True)
class Rules:
    """How work is done and paid.

    Attributes:
        cancel: Whether the first sample that passes ends its node. If not, all samples of a
            node that were begun together are waited for.
        refunds: Whether what is cancelled costs only what it had made by then.
        launch: Whether a sample is paid when it begins, at its real price, and nothing begins
            when that is more than is left: the whole run has failed then.
        step: Seconds that pass with every step of a decision.
        most: Samples of one node.
    """

    cancel: bool = True
    refunds: bool = True
    launch: bool = False
    step: float = 0.0
    most: int = 64


@dataclass(frozen=True)
class Batch(Job):
    """A job whose samples are waited for; `passed` says that one of those that ended has passed."""

    passed: bool = False


@dataclass
class Running:
    """A sample under way."""

    model: str
    began: float
    record: Record
    reserved: float

    @property
    def ends(self) -> float:
        return self.began + self.record.seconds


@dataclass
class Node:
    """What became of a node so far."""

    running: list[Running] = field(default_factory=list)
    begun: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    passed: bool = False
    done: bool = False


@dataclass
class Result:
    """What a run came to.

    Attributes:
        passed: Everything was done in time.
        usd: What was paid.
        seconds: When it ended.
        samples: How many were begun.
        decisions: How many nodes were ready and idle, and the processor seconds, of each decision.
        steps: How many steps they had.
        overdrawn: USD by which the limit was exceeded.
        why: What an engine said when it failed.
    """

    passed: bool = False
    usd: float = 0.0
    seconds: float = 0.0
    samples: int = 0
    decisions: list[tuple[int, float]] = field(default_factory=list)
    steps: int = 0
    overdrawn: float = 0.0
    why: str = ""


class Episode:
    """One run of a plan within `usd` and `seconds`; `run` gives what it came to."""

    def __init__(
        self, case: Case, limits: tuple[float, float], allocator: Allocator, rules: Rules, seed: str,
        beliefs: Beliefs | None = None,
    ) -> None:  # fmt: skip
        self.case, self.rules, self.allocator = case, rules, allocator
        self.limit, self.deadline = limits
        self.beliefs = beliefs or told(case, rules.refunds)
        self.draws: Draws = case.draws(seed)
        self.chance = random.Random(f"allocator {seed}")
        self.nodes = [Node() for _ in case.after]
        self.now = 0.0
        self.paid = 0.0
        self.again: float | None = None
        self.result = Result()

    def run(self) -> Result:
        """Go from event to event until all is done, or nothing more can be."""
        due = True
        while not self.done:
            if due and not self._decide():
                break
            moments = [sample.ends for node in self.nodes for sample in node.running]
            if self.again is not None:
                moments.append(self.again)
            if not moments or min(moments) > self.deadline:
                break
            self.now = max(self.now, min(moments))
            due = self._happens()
        return self._finish()

    @property
    def done(self) -> bool:
        return all(node.done for node in self.nodes)

    @property
    def reserved(self) -> float:
        return sum(sample.reserved for node in self.nodes for sample in node.running)

    @property
    def left(self) -> float:
        """USD that are neither paid nor set aside."""
        return self.limit - self.paid - self.reserved

    def situation(self) -> Situation:
        """What the allocator is told now."""
        jobs = tuple(self._job(n) for n, node in enumerate(self.nodes) if not node.done)
        return Situation(jobs, max(self.left, 0.0), max(self.deadline - self.now, 0.0))

    def _job(self, number: int) -> Job:
        node = self.nodes[number]
        after = tuple(n for n in self.case.after[number] if not self.nodes[n].done)
        room = self.rules.most - sum(node.begun.values())
        widths = tuple(width for width in self.case.widths if width <= room)
        running = tuple(Sample(s.model, self.now - s.began, s.reserved) for s in node.running)
        known = (
            number, after, self.beliefs[number], widths, self.case.agreement, not after,
            running, dict(node.failed),
        )  # fmt: skip
        return Job(*known) if self.rules.cancel else Batch(*known, passed=node.passed)

    def _decide(self) -> bool:
        """Ask the allocator and begin what it says; whether the run goes on."""
        situation = self.situation()
        began = time.process_time()
        decision, steps, waited = drained(self.allocator, situation, self.chance)
        ready = sum(job.ready and not job.running for job in situation.jobs)
        if ready:
            self.result.decisions.append((ready, time.process_time() - began))
            self.result.steps += steps
        self.now += waited + steps * self.rules.step
        self.again = None if decision.again is None else self.now + max(decision.again, 1e-3)
        return self._begin(decision)

    def _begin(self, decision: Decision) -> bool:
        """Set money aside and begin; False when the rules say that the run has failed."""
        wanted = [
            (start.job, start.model) for start in decision.starts for _ in range(start.samples)
        ]
        if self.rules.launch:
            return self._launch(wanted)
        for place, (number, model) in enumerate(wanted):
            bound = self._bound(number, model)
            share = min(bound, self.left / (len(wanted) - place))
            if bound and share < LEAST * bound:
                continue
            if (record := self._record(number, model)) is not None:
                self._run(number, model, cut(record, share), share)
        return True

    def _launch(self, wanted: Sequence[tuple[int, str]]) -> bool:
        """Pay for all that begins, or fail."""
        found = [(number, model, self._record(number, model)) for number, model in wanted]
        made = [(number, model, record) for number, model, record in found if record is not None]
        longest = max((record.seconds for _, _, record in made), default=0.0)
        if sum(record.usd for _, _, record in made) > self.left + TINY:
            return False
        for number, model, record in made:
            self._run(number, model, record, record.usd)
        return self.now + longest <= self.deadline

    def _bound(self, number: int, model: str) -> float:
        """The most that a sample may cost."""
        return self.case.most_tokens[number] * self.case.pools[number][model].price / 1e6

    def _record(self, number: int, model: str) -> Record | None:
        """The next sample of a model at a node, if it may have one more."""
        node = self.nodes[number]
        if sum(node.begun.values()) >= self.rules.most:
            return None
        node.begun[model] = index = node.begun.get(model, 0) + 1
        return self.draws.sample(number, model, index - 1)

    def _run(self, number: int, model: str, record: Record, reserved: float) -> None:
        self.nodes[number].running.append(Running(model, self.now, record, reserved))
        self.result.samples += 1

    def _happens(self) -> bool:
        """Take in all that has ended by now; whether the allocator is to be asked."""
        due = self.again is not None and self.again <= self.now
        for node in self.nodes:
            for sample in sorted(node.running, key=lambda sample: sample.ends):
                if sample.ends <= self.now and sample in node.running:
                    self._ended(node, sample)
                    due |= self.rules.cancel or not node.running
        return due

    def _ended(self, node: Node, sample: Running) -> None:
        node.running.remove(sample)
        self.paid += sample.record.usd
        if sample.record.passed:
            node.passed = True
            if self.rules.cancel:
                self._cancel(node, sample.ends)
        else:
            node.failed[sample.model] = node.failed.get(sample.model, 0) + 1
        node.done = node.passed and not node.running

    def _cancel(self, node: Node, now: float) -> None:
        """Stop what runs for a node, and pay for what it has made."""
        for sample in node.running:
            elapsed = (now - sample.began) / sample.record.seconds if self.rules.refunds else 1.0
            self.paid += sample.record.usd * min(max(elapsed, 0.0), 1.0)
        node.running.clear()

    def _finish(self) -> Result:
        passed = self.done and self.now <= self.deadline
        if any(node.running for node in self.nodes):
            self.now = self.deadline
        for node in self.nodes:
            self._cancel(node, self.now)
        self.result.passed, self.result.usd, self.result.seconds = passed, self.paid, self.now
        self.result.overdrawn = max(0.0, self.paid - self.limit - 1e-9)
        return self.result


def cut(record: Record, reserved: float) -> Record:
    """The sample, or what is left of it with less money than it takes: it has failed."""
    if record.usd <= reserved + TINY:
        return record
    part = reserved / record.usd
    return Record(record.seconds * part, int(record.tokens * part), reserved, False)


def told(case: Case, refunds: bool = True) -> Beliefs:
    """What is known of the samples of a case."""
    seen: dict[int, Profile] = {}
    beliefs = []
    for node in case.pools:
        for pool in node.values():
            seen.setdefault(id(pool), pool.profile(refunds))
        beliefs.append({name: seen[id(pool)] for name, pool in node.items()})
    return tuple(beliefs)


def drained(
    allocator: Allocator, situation: Situation, chance: random.Random
) -> tuple[Decision, int, float]:
    """A decision taken in one go, the number of its steps, and the seconds it asked to wait."""
    deciding = allocator.decide(situation, chance)
    steps, waited = 0, 0.0
    while True:
        try:
            waited += next(deciding)
        except StopIteration as end:
            return end.value, steps + 1, waited
        steps += 1
