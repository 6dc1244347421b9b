"""What is believed of models, from what was seen and from what models are like."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from agentflow.budgets.allocation.situation import Profile
from agentflow.budgets.estimate_fit import Beta, fit, fit_agreement
from agentflow.budgets.estimate_pools import (
    LENGTH,
    PROMPT,
    Weigh,
    likely_sizes,
    mean_prompt,
    pools,
    typical_length,
    typical_pace,
)
from agentflow.budgets.estimate_records import KINDS, Kind, Pattern, Record, Records, Row
from agentflow.budgets.prices import MILLION, Price

SUCCESS = 0.7
"""That a sample passes, when nothing is known."""

ASSUMED = 2.0
"""Samples that what is assumed of a model at a kind weighs as much as."""

BORROWED = 4.0
"""Jobs elsewhere that count at most, for what is assumed."""

REFIT = 0.02
"""Share of new outcomes after which a kind is looked at again."""

REFIT_AGREEMENT = 0.25
"""The same for the agreement of its samples, which takes longer."""


@dataclass(slots=True)
class _Fitted:
    """What was worked out of a kind.

    Attributes:
        success: By model.
        at: Outcomes there were.
    """

    success: dict[str, Beta] = field(default_factory=dict)
    at: int = -1


class Beliefs:
    """What is believed on the ground of records, which may change meanwhile.

    Args:
        records: What was seen.
        eager: Agreements are worked out when they are asked for, and not by `refit` alone.

    Attributes:
        records: What was seen.
    """

    def __init__(self, records: Records, *, eager: bool = True) -> None:
        self.records = records
        self._eager = eager
        self._fitted: dict[str, _Fitted] = {}

    def success(self, kind: str, model: str, now: int) -> Beta:
        """That a sample passes, on average over the jobs of a kind."""
        known = self.records.kinds.get(kind)
        fitted = self._fit(kind, known, now) if known else {}
        return fitted.get(model) or self._prior(kind, model, now)

    def agreement(self, kind: str, now: int) -> float:
        """How much the outcomes of samples of one job have in common."""
        known = self.records.kinds.get(kind)
        if known is None:
            return 0.5
        self._fit(kind, known, now)
        return known.agreement

    def refit(self, now: int) -> None:
        """Work out what takes long: tens of milliseconds for each kind."""
        self._eager = True
        for name, kind in self.records.kinds.items():
            if _grown(kind, kind.agreement_at, REFIT_AGREEMENT):
                self._fit(name, kind, now)

    def profile(
        self,
        kind: str,
        model: str,
        price: Price | None,
        prompt_tokens: int | None,
        max_tokens: int | None,
        refunds: bool,
        now: int,
    ) -> Profile:
        """What to expect of a sample at a wall time; see `Estimates.profile`."""
        success, weigh = self.success(kind, model, now), self._weigh(now)
        likely = likely_sizes(
            self._length(kind, model, weigh, max_tokens), self._pace(kind, model, weigh)
        )
        won, lost = pools(self.records.record(kind, model), likely, weigh, max_tokens)
        if prompt_tokens is None:
            prompt_tokens = mean_prompt(self._near(kind, model), weigh) or PROMPT
        start, each = _costs(price, prompt_tokens)
        return Profile(
            success.mean,
            [(size.seconds, start + each * size.tokens) for size in won],
            [(size.seconds, start + each * size.tokens) for size in lost],
            start,
            success.deviation,
            refunds,
        )

    def _fit(self, name: str, kind: Kind, now: int) -> dict[str, Beta]:
        """What the jobs of a kind tell of models; worked out anew when there are more of them."""
        if name not in self._fitted and len(self._fitted) >= KINDS:
            self._fitted.clear()
        fitted = self._fitted.setdefault(name, _Fitted())
        if not _grown(kind, fitted.at, REFIT):
            return fitted.success
        jobs = _with_loose(kind, self.records.weight(kind, now))
        priors = {model: self._prior(name, model, now) for model in kind.tried_by()}
        start = {model: fitted.success.get(model, prior) for model, prior in priors.items()}
        if self._eager and _grown(kind, kind.agreement_at, REFIT_AGREEMENT):
            kind.agreement = fit_agreement(jobs, priors, start)
            kind.agreement_at = kind.changes
        fitted.success = fit(jobs, priors, kind.agreement, start)
        fitted.at = kind.changes
        return fitted.success

    def _prior(self, kind: str, model: str, now: int) -> Beta:
        """What is assumed: what the model did elsewhere, and what others did at this kind."""
        here = self.records.kinds.get(kind)
        others = here.tried_by() - {model} if here else ()
        elsewhere = [name for name in self.records.kinds if name != kind]
        passed, jobs = ASSUMED * SUCCESS, ASSUMED
        for seen in (
            [self.records.tried(name, model, now) for name in elsewhere],
            [self.records.tried(kind, name, now) for name in others],
        ):
            if total := sum(tried for tried, _ in seen):
                borrowed = min(total, BORROWED)
                passed += borrowed * sum(passes for _, passes in seen) / total
                jobs += borrowed
        share = passed / jobs
        return Beta(ASSUMED * share, ASSUMED * (1.0 - share))

    def _length(self, kind: str, model: str, weigh: Weigh, max_tokens: int | None) -> float:
        """Tokens that a model writes, typically."""
        assumed = LENGTH if max_tokens is None else max(1.0, min(LENGTH, max_tokens / 2))
        return typical_length(self._near(kind, model), weigh, assumed)

    def _pace(self, kind: str, model: str, weigh: Weigh) -> float:
        """Seconds that it takes for each; if it was not seen here, elsewhere."""
        seen = _rows([self.records.record(kind, model)])
        elsewhere = (known.models.get(model) for known in self.records.kinds.values())
        return typical_pace(seen or _rows(elsewhere), weigh)

    def _near(self, kind: str, model: str) -> list[Row]:
        """What the model did here, or else what others did."""
        seen = _rows([self.records.record(kind, model)])
        here = self.records.kinds.get(kind)
        return seen or (_rows(here.models.values()) if here else [])

    def _weigh(self, now: int) -> Weigh:
        half_life = self.records.half_life
        return lambda row: 2.0 ** (min(0, row.at - now) / half_life)


def _rows(records: Iterable[Record | None]) -> list[Row]:
    """The samples whose sizes tell something of the next: those that ended, if any did."""
    known = [record for record in records if record is not None]
    ended = [row for record in known for row in (*record.won, *record.lost)]
    rows = ended or [row for record in known for row in record.cut]
    return [row for row in rows if row.completion_tokens]


def _grown(kind: Kind, before: int, share: float) -> bool:
    """Whether there are so many more outcomes than before, or it is not what it was."""
    return abs(kind.changes - before) > share * before


def _with_loose(known: Kind, weight: float) -> dict[Pattern, float]:
    """The jobs of a kind, and samples of other jobs as if each were a job, by their weight."""
    jobs = {pattern: weight * own for pattern, own in known.jobs.items()}
    for model, record in known.models.items():
        for pattern, own in zip(([(model, 1, 0)], [(model, 0, 1)]), record.loose, strict=True):
            jobs[tuple(pattern)] = jobs.get(tuple(pattern), 0.0) + weight * own
    return jobs


def _costs(price: Price | None, prompt_tokens: int) -> tuple[float, float]:
    """USD of an input, and of each token of the output."""
    if price is None:
        return 0.0, 0.0
    return float(price.cost(prompt_tokens, 0)), float(price.output / MILLION)
