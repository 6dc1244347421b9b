"""Monte Carlo portfolio planning as published (Wang et al., 2026), made fast without other answers.

A decision gives every node that is ready and idle one model and width. Candidates and the
policies that go on after them (one model and width for all nodes, again and again) are rolled out
64 times; the pair that succeeds most often wins, the earliest of equals. After its first batch a
node no longer depends on others but by when it can start, so a rollout is the sum of the nodes'
costs and the longest way over their times: columns of both, drawn afresh for every decision, are
shared by all pairs. A pair whose nodes, each by itself, already fail too often is not worked out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, cycle, islice, product
from operator import le, sub

from allocation_rivals import idle

from agentflow.budgets.allocation.situation import (
    Deciding,
    Decision,
    Job,
    Profile,
    Situation,
    Start,
)

WIDTHS = (1, 4, 16, 64)
ROLLOUTS = 64
FREE = 3  # nodes whose options are all combined
MOST = 2048  # candidates
MADE = 200  # samples of a model that others are drawn from
STOCK = 2048  # batches of one sample drawn beforehand; of wider ones fewer, which vary less

Option = tuple[str, int]
Column = list[float]
Sample = tuple[float, float, float, bool]
"""Seconds, USD, USD a second, and whether it passed."""
NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Columns:
    """Times and costs of rollouts, and where they passed."""

    seconds: Column
    usd: Column
    passed: list[bool]


class Stock:
    """Batches of one model and width, and how long it takes, repeated, until one has passed."""

    def __init__(self, profile: Profile, width: int, cancel: bool, chance: random.Random) -> None:
        samples = made(profile)
        batches = [
            batch(chance.choices(samples, k=width), cancel, profile.refunds)
            for _ in range(round(STOCK / width**0.5))
        ]
        self._size = len(batches)
        self._first = Columns(*map(list, zip(*batches, strict=True)))
        seconds, usd = NEVER, NEVER
        rest = []
        for took, paid, passed in reversed(batches + batches):
            seconds, usd = (took, paid) if passed else (took + seconds, paid + usd)
            rest.append((seconds, usd))
        rest = rest[len(batches) :]
        chance.shuffle(rest)  # neighbours have batches in common
        self._rest = [list(column) for column in zip(*rest, strict=True)]

    def first(self, chance: random.Random) -> Columns:
        """One batch in every rollout."""
        at = chance.randrange(self._size - ROLLOUTS)
        end, its = at + ROLLOUTS, self._first
        return Columns(its.seconds[at:end], its.usd[at:end], its.passed[at:end])

    def rest(self, chance: random.Random) -> tuple[Column, Column]:
        """In every rollout seconds and USD of batches until one has passed."""
        at = chance.randrange(self._size - ROLLOUTS)
        seconds, usd = self._rest
        return seconds[at : at + ROLLOUTS], usd[at : at + ROLLOUTS]


def made(profile: Profile) -> list[Sample]:
    """Samples, each as likely as any other, with the probability that is believed in."""
    won, lost = profile.won or profile.lost, profile.lost or profile.won
    passing = round(MADE * profile.probability)
    return [
        (seconds, usd, usd / max(seconds, 1e-9), number < passing)
        for number, (seconds, usd) in enumerate(
            [*islice(cycle(won), passing), *islice(cycle(lost), MADE - passing)]
        )
    ]


def batch(samples: Sequence[Sample], cancel: bool, refunds: bool) -> tuple[float, float, bool]:
    """Seconds, USD and success of samples that begin at once."""
    seconds, usd, rates, passed = zip(*samples, strict=True)
    if not any(passed):
        return max(seconds), sum(usd), False
    if not cancel:
        return max(seconds), sum(usd), True
    first = min(compress(seconds, passed))
    if not refunds:
        return first, sum(usd), True
    return first, sum(map(min, usd, [rate * first for rate in rates])), True


def bits(numbers: Sequence[float], limits: Sequence[float]) -> int:
    """One bit a rollout: whether its number keeps its limit."""
    return int.from_bytes(bytes(map(le, numbers, limits)), "little")


def candidates(
    options: Mapping[int, Sequence[Option]], first: Mapping[int, str], chance: random.Random
) -> Iterator[dict[int, Option]]:
    """What can be begun: the same for all nodes, then products; the earlier win ties."""
    ready = list(options)
    models = list(dict.fromkeys(model for its in options.values() for model, _ in its))
    widths = list(dict.fromkeys(width for its in options.values() for _, width in its))
    for width in widths:
        yield {job: (first[job], width) for job in ready}
        for model in models:
            if all((model, width) in options[job] for job in ready):
                yield dict.fromkeys(ready, (model, width))
    free = ready if len(ready) <= FREE else chance.sample(ready, FREE)
    others = [job for job in ready if job not in free]
    for shared in widths if others else (1,):
        rest = {job: (first[job], shared) for job in others}
        for choice in product(*(options[job] for job in free)):
            yield {**dict(zip(free, choice, strict=True)), **rest}


def distinct(found: Iterator[dict[int, Option]], ready: Sequence[int]) -> list[tuple[Option, ...]]:
    """The first `MOST` candidates, each once, as a row of options in the order of `ready`."""
    rows: dict[tuple[Option, ...], None] = {}
    for candidate in found:
        if len(rows) == MOST:
            break
        rows[tuple(candidate[job] for job in ready)] = None
    return list(rows)


class Portfolio:
    """Decides as published, for nodes that are ready and idle; what runs is not touched.

    Args:
        cancel: Whether it reckons that the first sample that passes ends its node. What it knows
            of a batch that is under way is the same.
        prune: Whether pairs that cannot win are skipped; the answer is the same.
    """

    def __init__(self, cancel: bool = False, prune: bool = True) -> None:
        self._cancel, self._prune = cancel, prune
        self._stocks: dict[tuple[int, int], Stock] = {}
        self._profiles: list[Profile] = []  # kept, so that no other takes their identity
        self._draws = random.Random(1)

    def decide(self, situation: Situation, chance: random.Random) -> Deciding:
        ready = list(idle(situation))
        if not ready or (situation.seconds is not None and situation.seconds <= 0):
            return Decision()
        yield 0.0
        rollouts = Rollouts(self, situation, ready, chance)
        best, share = rollouts.best(self._prune)
        starts = [Start(job.id, *option) for job, option in zip(ready, best, strict=True)]
        return Decision(tuple(starts), probability=share)

    @property
    def cancel(self) -> bool:
        return self._cancel

    def stock(self, profile: Profile, width: int) -> Stock:
        """Batches of a profile, drawn once."""
        key = (id(profile), width)
        if key not in self._stocks:
            self._profiles.append(profile)
            self._stocks[key] = Stock(profile, width, self._cancel, self._draws)
        return self._stocks[key]


class Rollouts:
    """The columns of one decision."""

    def __init__(
        self, its: Portfolio, situation: Situation, ready: Sequence[Job], chance: random.Random
    ) -> None:
        self._its, self._situation, self._ready, self._chance = its, situation, ready, chance
        self._options = {
            job.id: [(model, width) for model in job.models for width in WIDTHS] for job in ready
        }
        self._policies = list(
            dict.fromkeys(
                (model, width) for job in situation.jobs for model in job.models for width in WIDTHS
            )
        )
        self._running = [job for job in situation.jobs if job.running]
        self._later = [job for job in situation.jobs if not job.ready and not job.running]
        self._first = {
            (job.id, *option): its.stock(job.models[option[0]], option[1]).first(chance)
            for job in ready
            for option in self._options[job.id]
        }
        self._left = {job.id: self._remaining(job) for job in self._running}
        usd = NEVER if situation.usd is None else situation.usd
        self._usd = usd + sum(sample.reserved for job in self._running for sample in job.running)
        self._seconds = NEVER if situation.seconds is None else situation.seconds

    def best(self, prune: bool = True) -> tuple[tuple[Option, ...], float]:
        """The options of the first of the best pairs, and its share of success."""
        first = {job.id: next(iter(job.models)) for job in self._ready}
        found = candidates(self._options, first, self._chance)
        rows = distinct(found, [job.id for job in self._ready])
        tails = [Tail(self, policy) for policy in self._policies]
        most, winner = -1, rows[0]
        for row in rows:
            for tail in tails:
                hopeful = tail.hopeful(row)
                if prune and hopeful.bit_count() <= most:
                    continue
                successes = (hopeful & tail.affordable(row)).bit_count()
                if successes > most:
                    most, winner = successes, row
            if most == ROLLOUTS:
                break
        return winner, most / ROLLOUTS

    def _remaining(self, job: Job) -> Columns:
        """What is left of the samples under way, which have not ended by their age."""
        passed_before = getattr(job, "passed", False)
        found = []
        for _ in range(ROLLOUTS):
            left = [self._rest_of(job.models[s.model], s.age) for s in job.running]
            seconds, usd, passed = batch(left, self._its.cancel, False)
            found.append((seconds, usd, passed or passed_before))
        return Columns(*map(list, zip(*found, strict=True)))

    def _rest_of(self, profile: Profile, age: float) -> Sample:
        """Seconds until a sample ends, what it costs in all, and whether it passes."""
        passed = self._chance.random() < profile.probability
        records = (profile.won if passed else profile.lost) or [*profile.won, *profile.lost]
        longer = [record for record in records if record[0] > age] or [max(records)]
        seconds, usd = self._chance.choice(longer)
        return max(seconds - age, 0.0), usd, 0.0, passed


class Tail:
    """The rollouts of one policy that goes on after what is begun now."""

    def __init__(self, rollouts: Rollouts, policy: Option) -> None:
        self._its = rollouts
        jobs = rollouts._situation.jobs
        self._rest = {job.id: rollouts._its.stock(
            job.models[policy[0]], policy[1]).rest(rollouts._chance) for job in jobs}  # fmt: skip
        slack = self._slacks(jobs)
        usd = [rollouts._usd] * ROLLOUTS
        for job in rollouts._later:
            usd = list(map(sub, usd, self._rest[job.id][1]))
        self._mask = (1 << 8 * ROLLOUTS) - 1
        for job in rollouts._running:
            seconds, paid = self._whole(job, rollouts._left[job.id])
            self._mask &= bits(seconds, slack[job.id])
            usd = list(map(sub, usd, paid))
        self._usd = usd
        self._masks: list[dict[Option, int]] = []
        self._paid: list[dict[Option, Column]] = []
        for job in rollouts._ready:
            masks, costs = {}, {}
            for option in rollouts._options[job.id]:
                seconds, paid = self._whole(job, rollouts._first[(job.id, *option)])
                masks[option] = bits(seconds, slack[job.id]) & bits(paid, usd) & self._mask
                costs[option] = paid
            self._masks.append(masks)
            self._paid.append(costs)

    def hopeful(self, row: Sequence[Option]) -> int:
        """The rollouts in which every node is in time, and none costs too much by itself."""
        mask = self._mask
        for masks, option in zip(self._masks, row, strict=True):
            mask &= masks[option]
        return mask

    def affordable(self, row: Sequence[Option]) -> int:
        """The rollouts in which all nodes together cost no more than there is."""
        paid = [costs[option] for costs, option in zip(self._paid, row, strict=True)]
        return bits(
            paid[0] if len(paid) == 1 else list(map(_total, zip(*paid, strict=True))), self._usd
        )

    def _whole(self, job: Job, first: Columns) -> tuple[Column, Column]:
        """A batch and, where it fails, what goes on."""
        seconds, usd = self._rest[job.id]
        return (
            [
                a if passed else a + b
                for a, b, passed in zip(first.seconds, seconds, first.passed, strict=True)
            ],
            [
                a if passed else a + b
                for a, b, passed in zip(first.usd, usd, first.passed, strict=True)
            ],
        )

    def _slacks(self, jobs: Sequence[Job]) -> dict[int, Column]:
        """By job that can go on now, when it must have ended in every rollout."""
        latest: dict[int, Column] = {}
        for job in reversed(jobs):
            end = latest.setdefault(job.id, [self._its._seconds] * ROLLOUTS)
            if not job.after:
                continue
            begin = list(map(sub, end, self._rest[job.id][0]))
            for before in job.after:
                latest[before] = (
                    list(map(min, latest[before], begin)) if before in latest else begin
                )
        return latest


def _total(paid: tuple[float, ...]) -> float:
    return sum(paid)
