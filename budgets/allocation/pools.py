"""A profile made ready for drawing: its records in the order of their time, and sums over them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

from agentflow.budgets.allocation.situation import Profile

Records = Sequence[tuple[float, float]]

BINS = 24  # of time, as long as the longest sample, for what samples have cost by then
_STALE = 0.25  # of the age of a sample that is older than all records: what it may still take


class Pool:
    """What one sample may be.

    Args:
        profile: What is known of such samples.
        age: Seconds that it has been under way.
        most: USD that it may take; one that takes more is cut, and does not pass.

    Attributes:
        won_seconds: Seconds from now of samples that pass, in rising order.
        won_usd: USD in all of the same samples.
        lost_seconds: Seconds from now of samples that do not pass, in rising order.
        lost_usd: USD in all of the same samples.
    """

    def __init__(self, profile: Profile, age: float = 0.0, most: float = math.inf) -> None:
        self._start, self._refunds, self._age = profile.start, profile.refunds, age
        won: Records = sorted(profile.won or profile.lost or [(0.0, 0.0)])
        lost: Records = sorted(profile.lost or profile.won or [(0.0, 0.0)])
        self._passing = self._winning = self._losing = 1.0
        if age > 0:
            won, lost = self._later(won, lost)
        if most < math.inf:
            won, lost = self._cut(won, lost, most)
        self._won, self._lost = sorted(won), sorted(lost)
        self.won_seconds, self.won_usd = [t for t, _ in self._won], [usd for _, usd in self._won]
        self.lost_seconds, self.lost_usd = [t for t, _ in self._lost], [u for _, u in self._lost]

    def _later(self, won: Records, lost: Records) -> tuple[Records, Records]:
        age = self._age
        won_later = [(t - age, usd) for t, usd in won if t > age]
        lost_later = [(t - age, usd) for t, usd in lost if t > age]
        if not won_later and not lost_later:
            longest, dearest = max(won[-1][0], lost[-1][0]), max(usd for _, usd in (*won, *lost))
            stale = [(min(age * _STALE, longest), dearest)]
            return stale, stale
        self._winning = self._passing = len(won_later) / len(won)
        self._losing = len(lost_later) / len(lost)
        return won_later or lost_later, lost_later or won_later

    def _cut(self, won: Records, lost: Records, most: float) -> tuple[Records, Records]:
        whole = [record for record in won if record[1] <= most]
        part = [(t * most / usd, most) for t, usd in (*won, *lost) if usd > most]
        if not part:
            return won, lost
        self._passing *= len(whole) / len(won)
        part += [record for record in lost if record[1] <= most]
        return whole or part, part

    def chances(self, probabilities: list[float]) -> list[float]:
        """That it passes, where a sample that has just begun passes with these probabilities."""
        if self._passing == self._winning == self._losing == 1.0:
            return probabilities
        passing, winning, losing = self._passing, self._winning, self._losing
        return [p * passing / max(p * winning + (1.0 - p) * losing, 1e-12) for p in probabilities]

    @cached_property
    def dearest(self) -> float:
        """USD of the sample that costs most."""
        return max(*self.won_usd, *self.lost_usd)

    @cached_property
    def longest(self) -> float:
        """Seconds of the sample that takes longest."""
        return max(self.won_seconds[-1], self.lost_seconds[-1])

    @cached_property
    def lost_mean(self) -> list[float]:
        """Mean USD of the samples that do not pass, up to and with each of them."""
        sums = accumulate(self.lost_usd)
        return [usd / number for number, usd in enumerate(sums, 1)]

    @cached_property
    def _won_sums(self) -> _Sums:
        return _Sums(self._won, self._start, self._age)

    @cached_property
    def _lost_sums(self) -> _Sums:
        return _Sums(self._lost, self._start, self._age)

    def curve(self, step: float, chance: float) -> list[float]:
        """What is `spent` by the middle of each bin of time, of so many seconds."""
        return [self.spent((number + 0.5) * step, chance) for number in range(BINS + 1)]

    def spent(self, seconds: float, chance: float) -> float:
        """Mean USD by then of a sample that has not passed until then."""
        won, lost = self._won_sums, self._lost_sums
        ended = bisect_right(self.won_seconds, seconds)
        if self._refunds:
            failed = bisect_right(self.lost_seconds, seconds)
            losing, winning = lost.until(failed, seconds), won.after(ended, seconds)
        else:
            losing, winning = lost.usd[-1], won.usd[-1] - won.usd[ended]
        size = len(self._won)
        spending = (1.0 - chance) * losing / len(self._lost) + chance * winning / size
        return spending / max(1.0 - chance * ended / size, 1e-9)


class _Sums:
    """Sums over records, by how many of them have ended."""

    def __init__(self, records: Records, start: float, age: float) -> None:
        self.usd = [0.0, *accumulate(usd for _, usd in records)]
        rises = [max(usd - start, 0.0) / (t + age) if t + age > 0 else 0.0 for t, usd in records]
        self._rises = [0.0, *accumulate(rises)]
        self._start, self._age = start, age

    def after(self, ended: int, seconds: float) -> float:
        """USD by then of the records that last longer."""
        under_way = len(self.usd) - 1 - ended
        rising = self._rises[-1] - self._rises[ended]
        return under_way * self._start + (self._age + seconds) * rising

    def until(self, ended: int, seconds: float) -> float:
        """USD by then of all records."""
        return self.usd[ended] + self.after(ended, seconds)
