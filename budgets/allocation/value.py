"""When everything is done and what it costs in each scenario, and what a change of one job gives."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import add, sub

from agentflow.budgets.allocation.draws import Column
from agentflow.budgets.allocation.situation import Job

_MANY = 64  # jobs; of more, ways that a job is not on are left out of what it may take
_ROUNDING = 1.0 + 1e-9  # sums of the same numbers differ by their order

Weight = tuple[int, float]
"""Scenarios that end well, and the sum of what is paid in all of them."""

Steps = Generator[float, None, None]


@dataclass(frozen=True, slots=True)
class Room:
    """What a job may take in each scenario, if the others take what they do.

    Attributes:
        seconds: At most, for everything to be done in time; negative if it cannot be.
        usd: At most, for everything to be paid.
    """

    seconds: Column
    usd: Column

    def part(self, rows: int) -> Room:
        """The first scenarios only."""
        return Room(self.seconds[:rows], self.usd[:rows])

    def weigh(self, seconds: Column, usd: Column) -> Weight:
        """What becomes of a job that takes so much."""
        rows = zip(seconds, usd, self.seconds, self.usd, strict=True)
        wins = sum([t <= most and cost <= left for t, cost, most, left in rows])
        return wins, sum(map(min, usd, self.usd))


class Board:
    """The columns of all jobs, and the longest ways through them.

    Args:
        jobs: Each after those it waits for.
        usd: The limit of the sum of costs.
        seconds: The limit of the longest way.
        scenarios: How many rows a column has.
    """

    def __init__(self, jobs: Sequence[Job], usd: float, seconds: float, scenarios: int) -> None:
        place = {job.id: number for number, job in enumerate(jobs)}
        self.usd, self.seconds = usd * _ROUNDING, seconds * _ROUNDING
        self._before = [[place[other] for other in job.after if other in place] for job in jobs]
        self._next: list[list[int]] = [[] for _ in jobs]
        for number, before in enumerate(self._before):
            for other in before:
                self._next[other].append(number)
        self._beside = _beside(self._before) if len(jobs) <= _MANY else [[] for _ in jobs]
        zeros = [0.0] * scenarios
        self._zeros = zeros
        self.took = [zeros for _ in jobs]
        self.cost = [zeros for _ in jobs]
        self._starts = [zeros for _ in jobs]
        self._after = [zeros for _ in jobs]
        self._late = [0 for _ in jobs]
        self.total = zeros

    def put(self, job: int, seconds: Column, usd: Column) -> None:
        """Take these columns for a job; `update` must follow."""
        self.took[job], self.cost[job] = seconds, usd

    def update(self) -> Steps:
        """Work out the ways through all jobs, in steps."""
        ends: list[Column] = []
        total = self._zeros
        for job, before in enumerate(self._before):
            self._starts[job] = self._latest([ends[other] for other in before])
            ends.append(list(map(add, self._starts[job], self.took[job])))
            total = list(map(add, total, self.cost[job]))
            yield 0.0
        for job in range(len(ends) - 1, -1, -1):
            ways = [list(map(add, self._after[n], self.took[n])) for n in self._next[job]]
            self._after[job] = self._latest(ways)
            through = map(add, ends[job], self._after[job])
            self._late[job] = _bits(through, self.seconds)
            yield 0.0
        self.total = total

    def _latest(self, columns: Sequence[Column]) -> Column:
        if not columns:
            return self._zeros
        return columns[0] if len(columns) == 1 else list(map(max, *columns))

    def room(self, job: int) -> Room:
        """What a job may take in each scenario."""
        late = 0
        for other in self._beside[job]:
            late |= self._late[other]
        whole = self.seconds
        columns = (self._starts[job], self._after[job])
        seconds = [whole - start - after for start, after in zip(*columns, strict=True)]
        left = list(map(sub, repeat(self.usd), map(sub, self.total, self.cost[job])))
        if late or min(left) < 0.0:
            flags = late.to_bytes(len(seconds), "little")
            rows = zip(seconds, flags, left, strict=True)
            seconds = [-1.0 if flag or usd < 0.0 else most for most, flag, usd in rows]
            left = list(map(max, left, self._zeros))
        return Room(seconds, left)

    def within(self) -> int:
        """In how many scenarios everything is done within the limits."""
        late = 0
        for bits in self._late:
            late |= bits
        poor = _bits(self.total, self.usd)
        return len(self.total) - (late | poor).bit_count()


def _bits(column: Iterable[float], limit: float) -> int:
    """A byte for each scenario, 1 where the number exceeds the limit."""
    return int.from_bytes(bytes(map(limit.__lt__, column)), "little")


def _beside(before: Sequence[Sequence[int]]) -> list[list[int]]:
    """By job: the jobs that neither come before it nor after it."""
    above: list[int] = []
    for others in before:
        bits = 0
        for other in others:
            bits |= above[other] | 1 << other
        above.append(bits)
    jobs = range(len(before))
    return [
        [
            other
            for other in jobs
            if other != job and not (above[job] >> other | above[other] >> job) & 1
        ]
        for job in jobs
    ]
