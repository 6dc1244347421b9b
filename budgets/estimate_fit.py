"""How likely samples pass, and how much the samples of one job have in common.

A sample of model m at a job passes if ``a_m + sqrt(r) z + sqrt(1 - r) e > 0``: z is how easy the
job is, shared by all its samples, and e is the sample's own; both are standard normal. So m passes
with probability Phi(a_m) on average, and outcomes of one job agree by r. Counting samples instead
would make every model look worse than it is, for hard jobs are tried more often than easy ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from statistics import NormalDist

from agentflow.budgets.estimate_records import Pattern

AGREEMENTS = (0.05, 0.25, 0.5, 0.75, 0.9)
"""What r may be, a half before anything is known; steps of z are too coarse for more."""

SWEEPS = 24
"""Times that the jobs of a kind are looked at, at most."""

SETTLED = 0.004
"""Change of a probability that is not worth looking again."""

_NORMAL = NormalDist()
_EASE = [step * 0.4 - 3.6 for step in range(19)]
_SHARE = [_NORMAL.pdf(z) * 0.4 for z in _EASE]
_EXTREME = 6.0


@dataclass(frozen=True, slots=True)
class Beta:
    """What is known of a probability.

    Attributes:
        passed: Samples that passed, and what is assumed beforehand; more than 0.
        failed: The same of those that did not.
    """

    passed: float
    failed: float

    @property
    def mean(self) -> float:
        """The probability, as well as it is known."""
        return self.passed / (self.passed + self.failed)

    @property
    def deviation(self) -> float:
        """How far off it may be: one standard deviation."""
        return math.sqrt(self.mean * (1.0 - self.mean) / (self.passed + self.failed + 1.0))

    def interval(self, mass: float = 0.9) -> tuple[float, float]:
        """Where it is with a probability of `mass`, as much of the rest on either side."""
        places = [(step + 0.5) / 2000 for step in range(2000)]
        logs = [
            (self.passed - 1.0) * math.log(p) + (self.failed - 1.0) * math.log1p(-p) for p in places
        ]
        highest = max(logs)
        density = [math.exp(log - highest) for log in logs]
        rest, total = (1.0 - mass) / 2.0, sum(density)
        low = high = below = 0.0
        for place, share in zip(places, density, strict=True):
            low = place if below < rest * total else low
            high = place if below < (1.0 - rest) * total else high
            below += share
        return low, high


def fit(
    jobs: Mapping[Pattern, float],
    priors: Mapping[str, Beta],
    agreement: float,
    start: Mapping[str, Beta] | None = None,
) -> dict[str, Beta]:
    """How likely models pass, after jobs of given weights.

    What a job tells of a model is put as samples that passed and failed, which for a job that was
    tried once is just what it was.

    Args:
        jobs: What came of them; no other models than those of `priors` tried them.
        priors: What is assumed of each model beforehand.
        agreement: How much the samples of a job have in common, between 0 and 1.
        start: What was found before, for less work.
    """
    found = {**priors, **(start or {})}
    for _ in range(SWEEPS):
        before, found = found, _sweep(jobs, priors, found, agreement)
        if all(abs(found[model].mean - before[model].mean) < SETTLED for model in found):
            break
    return found


def fit_agreement(
    jobs: Mapping[Pattern, float],
    priors: Mapping[str, Beta],
    start: Mapping[str, Beta] | None = None,
) -> float:
    """The mean of what the agreement may be after jobs of given weights; see `fit`."""
    if all(_single(pattern) for pattern in jobs):
        return 0.5
    logs, found = [], start
    for agreement in AGREEMENTS:
        found = fit(jobs, priors, agreement, found)
        curves = {model: _curve(_level(beta), agreement) for model, beta in found.items()}
        likelihood = sum(
            weight * math.log(_weighed(pattern, curves)[1]) for pattern, weight in jobs.items()
        )
        logs.append(likelihood + math.log(agreement * (1.0 - agreement)))
    highest = max(logs)
    shares = [math.exp(log - highest) for log in logs]
    total: float = sum(map(mul, shares, AGREEMENTS))
    return total / sum(shares)


@dataclass(frozen=True, slots=True)
class _Curve:
    """A model at jobs of every ease: logarithms of how likely it passes and fails, and slopes.

    Attributes:
        logs: For passing and failing.
        slopes: First derivatives of these by the model's level.
        bends: Second derivatives, negated.
    """

    logs: tuple[Sequence[float], Sequence[float]]
    slopes: tuple[Sequence[float], Sequence[float]]
    bends: tuple[Sequence[float], Sequence[float]]


def _curve(level: float, agreement: float) -> _Curve:
    scale = 1.0 / math.sqrt(1.0 - agreement)
    heights = [(level + math.sqrt(agreement) * z) * scale for z in _EASE]
    heights = [max(-_EXTREME, min(height, _EXTREME)) for height in heights]
    likely = [_NORMAL.cdf(height) for height in heights]
    unlikely = [_NORMAL.cdf(-height) for height in heights]
    density = [_NORMAL.pdf(height) for height in heights]
    up = [d / p for d, p in zip(density, likely, strict=True)]
    down = [d / q for d, q in zip(density, unlikely, strict=True)]
    return _Curve(
        ([math.log(p) for p in likely], [math.log(q) for q in unlikely]),
        ([scale * u for u in up], [-scale * d for d in down]),
        (
            [scale**2 * u * (u + h) for u, h in zip(up, heights, strict=True)],
            [scale**2 * d * (d - h) for d, h in zip(down, heights, strict=True)],
        ),
    )


def _sweep(
    jobs: Mapping[Pattern, float],
    priors: Mapping[str, Beta],
    found: Mapping[str, Beta],
    agreement: float,
) -> dict[str, Beta]:
    """Look once at what every job tells of every model, given what was found before."""
    levels = {model: _level(beta) for model, beta in found.items()}
    curves = {model: _curve(level, agreement) for model, level in levels.items()}
    told = {model: [0.0, 0.0, 0.0, 0.0] for model in priors}
    for pattern, weight in jobs.items():
        if _single(pattern):
            model, passed, failed = pattern[0]
            told[model][0] += weight * passed
            told[model][1] += weight * failed
            continue
        for name, slope, bend in _informed(pattern, curves):
            told[name][2] += weight * slope
            told[name][3] += weight * bend
    sweep = {}
    for name, (won, lost, slope, bend) in told.items():
        more, less = _as_samples(levels[name], slope, bend)
        prior = priors[name]
        sweep[name] = Beta(prior.passed + won + more, prior.failed + lost + less)
    return sweep


def _single(pattern: Pattern) -> bool:
    """Whether a job was tried once, which says the same whatever the agreement is."""
    return len(pattern) == 1 and pattern[0][1] + pattern[0][2] == 1


def _weighed(pattern: Pattern, curves: Mapping[str, _Curve]) -> tuple[list[float], float]:
    """How much each ease of a job explains what came of it, and how likely that was in all."""
    logs = [0.0] * len(_EASE)
    for model, passed, failed in pattern:
        up, down = curves[model].logs
        logs = [log + passed * u + failed * d for log, u, d in zip(logs, up, down, strict=True)]
    shares = [share * math.exp(log) for share, log in zip(_SHARE, logs, strict=True)]
    total = max(sum(shares), 1e-300)
    return [share / total for share in shares], total


def _informed(pattern: Pattern, curves: Mapping[str, _Curve]) -> Iterator[tuple[str, float, float]]:
    """Slope and bend of a job's log-likelihood by the level of each model that tried it."""
    shares, _ = _weighed(pattern, curves)
    for model, passed, failed in pattern:
        up, down = curves[model].slopes
        slopes = [passed * u + failed * d for u, d in zip(up, down, strict=True)]
        up, down = curves[model].bends
        bends = [passed * u + failed * d for u, d in zip(up, down, strict=True)]
        slope = sum(map(mul, shares, slopes))
        square = sum(share * s * s for share, s in zip(shares, slopes, strict=True))
        yield model, slope, sum(map(mul, shares, bends)) - (square - slope * slope)


def _as_samples(level: float, slope: float, bend: float) -> tuple[float, float]:
    """Samples that passed and failed that would give the log-likelihood this slope and bend."""
    density = _NORMAL.pdf(level)
    up, down = density / _NORMAL.cdf(level), density / _NORMAL.cdf(-level)
    bend_up, bend_down = up * (up + level), down * (down - level)
    determinant = up * bend_down + down * bend_up
    passed = (slope * bend_down + bend * down) / determinant
    failed = (bend * up - slope * bend_up) / determinant
    if passed < 0.0:
        return 0.0, max(0.0, -slope / down)
    if failed < 0.0:
        return max(0.0, slope / up), 0.0
    return passed, failed


def _level(beta: Beta) -> float:
    return max(-3.5, min(_NORMAL.inv_cdf(beta.mean), 3.5))
