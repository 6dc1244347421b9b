"""Chooses for each job who tries it, so that as many scenarios as possible end well, and cheaply."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from agentflow.budgets.allocation.draws import Column
from agentflow.budgets.allocation.situation import Job
from agentflow.budgets.allocation.batches import Batch, Group
from agentflow.budgets.allocation.tables import Tables, Tail
from agentflow.budgets.allocation.value import Board, Room, Steps

_SWEEPS = 3
_AGES = 2.0  # ages are told apart that differ by a factor of e to the inverse of this
_PACES = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # what time is worth beside money, in a start


@dataclass(frozen=True, slots=True)
class Choice:
    """Who tries a job.

    Attributes:
        tail: Whose batches follow, one after the other, until a sample passes.
        new: What is begun now.
    """

    tail: Tail
    new: tuple[Group, ...] = ()


@dataclass(frozen=True, slots=True)
class Scored:
    """What a choice is worth, in probability, and the choice."""

    worth: float
    choice: Choice


class Search:
    """One decision: the choices of all jobs, improved one after the other.

    Args:
        jobs: Each after those it waits for.
        tables: What may become of each of them.
        board: The same jobs, within their limits.
        hand: USD that new samples can take now.
        price: What a USD is worth, in probability.
    """

    def __init__(
        self, jobs: Sequence[Job], tables: Sequence[Tables], board: Board, hand: float, price: float
    ) -> None:
        self.jobs, self.tables, self.board = jobs, tables, board
        self._hand, self._price = hand, price
        self.choices: list[Choice | None] = [None] * len(jobs)
        self._batches: dict[tuple[int, tuple[Group, ...]], Batch] = {}

    def improve(self, known: dict[int, Tail]) -> Steps:
        """Find the best choices, from those of the decision before or from a fresh start."""
        yield from self._begin(known)
        for _ in range(_SWEEPS):
            changed = False
            for number in self._order():
                best = yield from self._best(number)
                if best != self.choices[number]:
                    changed = True
                    self._take(number, best)
                    yield from self.board.update()
            if not changed:
                return

    def _order(self) -> list[int]:
        """Jobs about which something is to be decided now come first."""
        numbers = [n for n, job in enumerate(self.jobs) if job.widths]
        return sorted(numbers, key=lambda n: not self.jobs[n].ready)

    def _begin(self, known: dict[int, Tail]) -> Steps:
        tables = zip(self.jobs, self.tables, strict=True)
        for number, (job, table) in enumerate(tables):
            if not job.widths:
                self.board.put(number, *table.alone(_running(job)))
            elif tail := known.get(job.id):
                self._take(number, self._first(number, tail))
            yield 0.0
        if any(job.widths and job.id not in known for job in self.jobs):
            yield from self._fresh()
        yield from self.board.update()

    def _first(self, number: int, tail: Tail) -> Choice:
        job = self.jobs[number]
        if not job.ready or job.running:
            return Choice(tail)
        return Choice(tail, (self._group(*tail),))

    def _fresh(self) -> Steps:
        """Take the best of some starts, in each of which time has the same price for all jobs."""
        best, starts = -math.inf, []
        costs: list[dict[Tail, tuple[float, float]]] = []
        for number, job in enumerate(self.jobs):
            costs.append({})
            for tail in _tails(job):
                seconds, usd = self.tables[number].tail(tail)
                costs[-1][tail] = (_mean(seconds, self.board.seconds), _mean(usd, self.board.usd))
                yield 0.0
        scale = self._scale(costs)
        for pace in _PACES:
            chosen = [
                min(tails, key=lambda tail: tails[tail][1] + pace * scale * tails[tail][0])
                if tails
                else None
                for tails in costs
            ]
            if chosen in starts:
                continue
            starts.append(chosen)
            for number, tail in enumerate(chosen):
                if tail:
                    self._take(number, self._first(number, tail))
            yield from self.board.update()
            if (worth := self.worth()) > best:
                best, kept = worth, list(self.choices)
        for number, choice in enumerate(kept):
            if choice:
                self._take(number, choice)

    def _scale(self, costs: Sequence[dict[Tail, tuple[float, float]]]) -> float:
        """USD for a second, by which cost and time of a job weigh the same."""
        seconds = sum(min(t for t, _ in tails.values()) for tails in costs if tails)
        usd = sum(min(cost for _, cost in tails.values()) for tails in costs if tails)
        return usd / seconds if seconds > 0 else 1.0

    def worth(self) -> float:
        """The share of scenarios that end well, less what they cost."""
        return self.probability() - self._price * self.usd()

    def probability(self) -> float:
        """The share of scenarios in which everything is done within the limits."""
        return self.board.within() / len(self.board.total)

    def usd(self) -> float:
        """The mean cost."""
        return _mean(self.board.total, self.board.usd)

    def _take(self, number: int, choice: Choice) -> None:
        self.choices[number] = choice
        self.board.put(number, *self._columns(number, choice))

    def _columns(self, number: int, choice: Choice) -> tuple[Column, Column]:
        seconds, usd = self.tables[number].tail(choice.tail)
        groups = _running(self.jobs[number]) + choice.new
        if not groups:
            return seconds, usd
        batch = self._batch(number, groups)
        took = [
            t if t < math.inf else end + more
            for t, end, more in zip(batch.first, batch.end, seconds, strict=True)
        ]
        rows = zip(batch.first, batch.paid, batch.lost, usd, strict=True)
        return took, [paid if t < math.inf else lost + more for t, paid, lost, more in rows]

    def _batch(self, number: int, groups: tuple[Group, ...]) -> Batch:
        key = (number, groups)
        if key not in self._batches:
            last = self.tables[number].batch(groups[-1], len(groups) - 1)
            earlier = groups[:-1]
            self._batches[key] = self._batch(number, earlier).beside(last) if earlier else last
        return self._batches[key]

    def _best(self, number: int) -> Generator[float, None, Choice]:
        job, room = self.jobs[number], self.board.room(number)
        chosen = self.choices[number]
        if not job.ready and not job.running:
            return (yield from self._best_tail(number, room, chosen))
        return (yield from self._best_now(number, room, chosen))

    def _best_tail(self, number: int, room: Room, chosen: Choice) -> Generator[float, None, Choice]:
        table, best = self.tables[number], (-math.inf, chosen)
        for tail in [chosen.tail, *_tails(self.jobs[number])]:
            seconds, usd = table.tail(tail)
            worth = room.holds(seconds, usd) - self._price * _paid(usd, room.usd)
            if worth > best[0] + 1e-9:
                best = (worth, Choice(tail))
            yield 0.0
        return best[1]

    def _best_now(self, number: int, room: Room, chosen: Choice) -> Generator[float, None, Choice]:
        scored = []
        for new in self._news(number):
            scored.append((self._outcome(number, room, new, chosen.tail), new))
            yield 0.0
        scored.sort(key=lambda pair: -pair[0])
        for new in self._pairs([new for _, new in scored if new]):
            scored.append((self._outcome(number, room, new, chosen.tail), new))
            yield 0.0
        scored.sort(key=lambda pair: -pair[0])
        best = (-math.inf, chosen)
        for _, new in scored[:3]:
            rest = _Rest(self._batch(number, _running(self.jobs[number]) + new), room)
            for tail in [chosen.tail, *_tails(self.jobs[number])]:
                wins, usd = rest.then(*self.tables[number].tail(tail))
                worth = wins - self._price * usd
                if worth > best[0] + 1e-9:
                    best = (worth, Choice(tail, new))
            yield 0.0
        return best[1]

    def _outcome(self, number: int, room: Room, new: tuple[Group, ...], tail: Tail) -> float:
        groups = _running(self.jobs[number]) + new
        wins, usd = _Rest(self._batch(number, groups), room).then(*self.tables[number].tail(tail))
        return wins - self._price * usd

    def _news(self, number: int) -> Iterator[tuple[Group, ...]]:
        job = self.jobs[number]
        if job.running:
            yield ()
        if job.ready:
            for model, width in _tails(job):
                yield (self._group(model, width),)

    def _pairs(self, ranked: Sequence[tuple[Group, ...]]) -> Iterator[tuple[Group, ...]]:
        for first, (one,) in enumerate(ranked[:3]):
            for (other,) in ranked[first + 1 : 7]:
                if one.model != other.model:
                    count = one.count + other.count
                    yield tuple(
                        Group(g.model, g.count, most=self._hand / count) for g in (one, other)
                    )

    def _group(self, model: str, width: int) -> Group:
        return Group(model, width, most=self._hand / width)


class _Rest:
    """What is left to do, and with what, when a batch has ended."""

    def __init__(self, batch: Batch, room: Room) -> None:
        self._wins, self._usd = 0, 0.0
        self._failed: list[tuple[int, float, float]] = []
        columns = (batch.first, batch.paid, batch.end, batch.lost, room.seconds, room.usd)
        for scenario, (t, usd, end, lost, most, left) in enumerate(zip(*columns, strict=True)):
            if t < math.inf:
                self._wins += t <= most and usd <= left
                self._usd += usd if usd < left else max(left, 0.0)
            elif lost <= left:
                self._usd += lost
                self._failed.append((scenario, most - end, left - lost))
            else:
                self._usd += max(left, 0.0)

    def then(self, seconds: Column, usd: Column) -> tuple[int, float]:
        """Scenarios that end well and USD in all, if these columns follow."""
        wins, paid = self._wins, self._usd
        for scenario, most, left in self._failed:
            cost = usd[scenario]
            if cost > left:
                paid += left
            else:
                paid += cost
                wins += seconds[scenario] <= most
        return wins, paid


def _tails(job: Job) -> list[Tail]:
    return [(model, width) for width in sorted(job.widths) for model in job.models]


def _running(job: Job) -> tuple[Group, ...]:
    """Samples under way, those of one model and about the same age together."""
    ages: dict[tuple[str, int], list[float]] = {}
    for sample in job.running:
        near = round(math.log1p(sample.age) * _AGES)
        ages.setdefault((sample.model, near), []).append(sample.age)
    return tuple(
        Group(model, len(same), sum(same) / len(same)) for (model, _), same in ages.items()
    )


def _mean(column: Column, most: float) -> float:
    return sum([value if value < most else most for value in column]) / len(column)


def _paid(usd: Column, left: Column) -> float:
    """USD in all, of each cost no more than is left for it."""
    return sum([c if c < most else max(most, 0.0) for c, most in zip(usd, left, strict=True)])
