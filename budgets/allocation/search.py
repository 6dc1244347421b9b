"""Chooses for each job who tries it, so that as many scenarios as possible end well, and cheaply."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import repeat
from operator import add
from typing import TypeVar

from agentflow.budgets.allocation.batches import Batch, Group
from agentflow.budgets.allocation.options import (
    Choice,
    New,
    groups,
    kind,
    mixed,
    running,
    single,
    tails,
)
from agentflow.budgets.allocation.situation import Job
from agentflow.budgets.allocation.tables import NOBODY, Columns, Tables, Tail
from agentflow.budgets.allocation.value import Board, Room, Steps, Weight

_SWEEPS = 3
_LOOKS = 24  # jobs that are looked at in a sweep; of the others the choices stand
_LEAST = 0.05  # the probability, if it is less, by which thrift is measured
_SOME = 64  # scenarios on which all options are tried
_FINALISTS = 4  # options that are tried on all scenarios
_PACES = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # what time is worth beside money, in a start

_Option = TypeVar("_Option")
_Means = Mapping[Tail, tuple[float, float]]  # by tail, seconds and USD


class Search:
    """One decision: the choices of all jobs, improved one after the other.

    Args:
        jobs: Each after those it waits for.
        tables: What may become of each of them.
        board: The same jobs, within their limits.
        hand: USD that new samples can take now.
        price: What a USD is worth, as a part of the probability.
    """

    def __init__(
        self, jobs: Sequence[Job], tables: Sequence[Tables], board: Board, hand: float, price: float
    ) -> None:
        self.jobs, self.tables, self.board = jobs, tables, board
        self.hand, self._price = hand, price
        self._rows = len(board.total)
        self._some = min(_SOME, self._rows)
        self.choices: dict[int, Choice] = {}
        self.running = [running(job) for job in jobs]
        self._batches: dict[tuple[int, tuple[Group, ...], int], Batch] = {}
        self.shortlists: dict[int, list[New]] = {}

    def improve(self, known: Mapping[int, Choice], kept: Mapping[int, list[New]]) -> Steps:
        """Find the best choices.

        Args:
            known: Choices to begin with, by job; a fresh start is made if there are new jobs.
            kept: By job, the only options that are tried now.
        """
        yield from self._begin(known)
        self._price *= max(self.probability(), _LEAST)
        self.shortlists = {n: kept[job.id] for n, job in enumerate(self.jobs) if job.id in kept}
        for _ in range(_SWEEPS):
            if not (yield from self._sweep()):
                return

    def _sweep(self) -> Generator[float, None, bool]:
        """Choose anew for each job; whether any choice is another."""
        changed = False
        for number in self._order():
            best = yield from self._best(number)
            if best != self.choices[number]:
                changed = True
                self.take(number, best)
                yield from self.board.update()
        return changed

    def worth(self) -> float:
        """The share of scenarios that end well, less what they cost."""
        return self.probability() - self._price * self.usd()

    def probability(self) -> float:
        """The share of scenarios in which everything is done within the limits."""
        return self.board.within() / self._rows

    def usd(self) -> float:
        """The mean cost."""
        return _mean(self.board.total, self.board.usd)

    def forlorn(self, least: float) -> Generator[float, None, list[int]]:
        """Jobs that nothing runs for and that hardly ever pass, whatever becomes of the others."""
        found = []
        for number, choice in self.choices.items():
            seconds, usd = self._columns(number, Choice(choice.tail))
            rows = zip(seconds, usd, strict=True)
            limits = self.board.seconds, self.board.usd
            passed = sum(t <= limits[0] and cost <= limits[1] for t, cost in rows)
            if passed < least * self._rows and not self.running[number]:
                found.append(self.jobs[number].id)
            yield 0.0
        return found

    def _order(self) -> list[int]:
        """Jobs about which something is to be decided now come first."""
        numbers = [n for n, job in enumerate(self.jobs) if job.widths]
        numbers.sort(key=lambda n: (not self.jobs[n].ready, n in self.shortlists))
        return numbers[:_LOOKS]

    def _begin(self, known: Mapping[int, Choice]) -> Steps:
        for number, job in enumerate(self.jobs):
            if not job.widths:
                self.board.put(number, *self.tables[number].alone(self.running[number]))
            elif job.id in known and _possible(known[job.id], tails(job)):
                self.take(number, self._first(number, known[job.id]))
            yield 0.0
        if any(job.widths and n not in self.choices for n, job in enumerate(self.jobs)):
            yield from self._fresh()
        yield from self.board.update()

    def _first(self, number: int, choice: Choice) -> Choice:
        """A choice made before for a job that is perhaps ready or running by now."""
        if self.running[number]:
            return Choice(choice.tail)
        if self.jobs[number].ready and not choice.new and choice.tail != NOBODY:
            return Choice(choice.tail, (choice.tail,))
        return Choice(choice.tail, choice.new)

    def _fresh(self) -> Steps:
        """Take the best of some starts, in each of which time has the same price for all jobs."""
        best, kept, starts = -math.inf, dict(self.choices), []
        means: dict[int, _Means] = {}
        alike: dict[object, _Means] = {}
        for number, job in enumerate(self.jobs):
            if job.widths and number not in self.choices:
                if (key := kind(job)) not in alike:
                    alike[key] = yield from self._means(number)
                means[number] = alike[key]
            yield 0.0
        scale = _scale(list(means.values()))
        for pace in _PACES if len(self.jobs) <= _LOOKS else _PACES[::3]:
            chosen = {number: _cheapest(its, pace * scale) for number, its in means.items()}
            if chosen in starts:
                continue
            starts.append(chosen)
            for number, tail in chosen.items():
                self.take(number, self._first(number, Choice(tail)))
                yield 0.0
            yield from self.board.update()
            if (worth := self.worth()) > best:
                best, kept = worth, dict(self.choices)
        for number, choice in kept.items():
            self.take(number, choice)
            yield 0.0

    def _means(self, number: int) -> Generator[float, None, _Means]:
        means = {}
        for tail in tails(self.jobs[number]):
            seconds, usd = self.tables[number].tail(tail, self._some)
            means[tail] = _mean(seconds, self.board.seconds), _mean(usd, self.board.usd)
            yield 0.0
        return means

    def take(self, number: int, choice: Choice) -> None:
        """Choose for a job; the board is to be updated."""
        self.choices[number] = choice
        self.board.put(number, *self._columns(number, choice))

    def _columns(self, number: int, choice: Choice) -> Columns:
        columns = self.tables[number].tail(choice.tail, self._rows)
        if choice.new or self.running[number]:
            return self._new(number, choice.new, self._rows, choice.hand).then(*columns)
        return columns

    def wait(self, number: int, choice: Choice) -> None:
        """Choose for a job that nothing is begun until the first of the others has ended."""
        if self.running[number]:
            return self.take(number, Choice(choice.tail))
        ends = [
            list(map(min, batch.first, batch.end))
            for other, batch in self._under_way()
            if other != number
        ]
        until = list(map(min, *ends, ends[0]))
        seconds, usd = self.tables[number].tail(choice.tail, self._rows)
        self.choices[number] = Choice(choice.tail)
        self.board.put(number, list(map(add, until, seconds)), usd)

    def _under_way(self) -> Iterator[tuple[int, Batch]]:
        for number, choice in self.choices.items():
            if self.running[number] or (choice.new and self.jobs[number].ready):
                yield number, self._new(number, choice.new, self._rows, choice.hand)

    def _batch(self, number: int, begun: tuple[Group, ...], rows: int) -> Batch:
        if not begun:
            return Batch.empty(rows)
        key = (number, begun, rows)
        if key not in self._batches:
            *earlier, last = begun
            batch = self.tables[number].batch(last, len(earlier), rows)
            if earlier:
                batch = self._batch(number, tuple(earlier), rows).beside(batch)
            self._batches[key] = batch
        return self._batches[key]

    def _best(self, number: int) -> Generator[float, None, Choice]:
        job, room, choice = self.jobs[number], self.board.room(number), self.choices[number]
        if not job.ready and not job.running:
            return (yield from self._best_later(number, room, choice))
        if number not in self.shortlists:
            self.shortlists[number] = yield from self._shortlist(number, room, choice.tail)
        best, most = choice, -math.inf
        for new in dict.fromkeys([choice.new, *self.shortlists[number]]):
            rest = _Rest(self._new(number, new, self._rows), room)
            for tail in dict.fromkeys([choice.tail, *tails(job)]):
                worth = self._value(rest.then(*self.tables[number].tail(tail, self._rows)))
                if worth > most + 1e-9:
                    best, most = Choice(tail, new), worth
                yield 0.0
        return best

    def _best_later(
        self, number: int, room: Room, choice: Choice
    ) -> Generator[float, None, Choice]:
        """The best choice for a job whose time has not come."""
        table, part = self.tables[number], room.part(self._some)
        worths = {
            Choice(tail): self._value(part.weigh(*table.tail(tail, self._some)))
            for tail in tails(self.jobs[number])
        }
        yield 0.0
        best, most = choice, -math.inf
        for other in dict.fromkeys([choice, *_ranked(worths)[:_FINALISTS]]):
            worth = self._value(room.weigh(*self._columns(number, other)))
            if worth > most + 1e-9:
                best, most = other, worth
            yield 0.0
        return best

    def _shortlist(self, number: int, room: Room, tail: Tail) -> Generator[float, None, list[New]]:
        """The best options by some of the scenarios."""
        part, job = room.part(self._some), self.jobs[number]
        columns = self.tables[number].tail(tail, self._some)
        worths: dict[New, float] = {}
        for new in single(job):
            worths[new] = self._value(
                _Rest(self._new(number, new, self._some), part).then(*columns)
            )
            yield 0.0
        for new in mixed(job, _ranked(worths)):
            worths[new] = self._value(
                _Rest(self._new(number, new, self._some), part).then(*columns)
            )
            yield 0.0
        return _ranked(worths)[:_FINALISTS]

    def _new(self, number: int, new: New, rows: int, hand: float | None = None) -> Batch:
        if hand is None:
            hand = self.hand if self.jobs[number].ready else math.inf
        begun = groups(new, hand, self.tables[number].bounds)
        return self._batch(number, self.running[number] + begun, rows)

    def _value(self, weight: Weight) -> float:
        wins, usd = weight
        return wins - self._price * usd


class _Rest:
    """What is left to do, and with what, when a batch has ended."""

    def __init__(self, batch: Batch, room: Room) -> None:
        self._wins, self._usd = 0, 0.0
        self._failed: list[tuple[int, float, float]] = []
        columns = (batch.first, batch.paid, batch.end, batch.lost, room.seconds, room.usd)
        for scenario, (t, usd, end, lost, most, left) in enumerate(zip(*columns, strict=True)):
            if t < math.inf:
                if usd <= left:
                    self._wins += t <= most
                    self._usd += usd
                else:
                    self._usd += left
            elif lost <= left:
                self._usd += lost
                self._failed.append((scenario, most - end, left - lost))
            else:
                self._usd += left

    def then(self, seconds: list[float], usd: list[float]) -> Weight:
        """What comes of it if these columns follow."""
        wins, paid = self._wins, self._usd
        for scenario, most, left in self._failed:
            cost = usd[scenario]
            if cost > left:
                paid += left
            else:
                paid += cost
                wins += seconds[scenario] <= most
        return wins, paid


def _ranked(worths: Mapping[_Option, float]) -> list[_Option]:
    return sorted(worths, key=lambda option: -worths[option])


def _possible(choice: Choice, its: Sequence[Tail]) -> bool:
    return choice.tail in its and all(tail in its for tail in choice.new)


def _scale(means: Sequence[_Means]) -> float:
    """USD for a second, by which cost and time weigh the same."""
    seconds = sum(min(t for t, _ in each.values()) for each in means if each)
    usd = sum(min(cost for _, cost in each.values()) for each in means if each)
    return usd / seconds if seconds > 0 else 1.0


def _cheapest(means: _Means, pace: float) -> Tail:
    """The tail of least cost, if a second costs so much."""
    return min(means, key=lambda tail: means[tail][1] + pace * means[tail][0])


def _mean(column: list[float], most: float) -> float:
    return sum(map(min, column, repeat(most))) / len(column)
