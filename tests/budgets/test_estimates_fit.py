"""Success and agreement are recovered from jobs that were tried as long as they failed."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from statistics import NormalDist, mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.budgets.estimate_fit import Beta, fit, fit_agreement
from agentflow.budgets.estimate_records import Pattern, Records

NORMAL = NormalDist()
PRIOR = Beta(1.4, 0.6)
CHANCES = {"small": 0.35, "middle": 0.6, "large": 0.85}
CASCADE = [("small", 4), ("middle", 2), ("large", 1), ("small", 16), ("large", 4)]


def jobs(
    count: int, agreement: float, seed: int, order: Sequence[tuple[str, int]] = CASCADE
) -> Mapping[Pattern, float]:
    """Jobs tried by models in turn, so many times each, until a sample passed."""
    chance, records = random.Random(seed), Records(math.inf)
    for _ in range(count):
        ease = math.sqrt(agreement) * chance.gauss(0, 1)
        counts: dict[str, tuple[int, int]] = {}
        for model, tries in order:
            level = NORMAL.inv_cdf(CHANCES[model]) + ease
            for _ in range(tries):
                passed, failed = counts.get(model, (0, 0))
                won = level + math.sqrt(1 - agreement) * chance.gauss(0, 1) > 0
                counts[model] = (passed + won, failed + (not won))
                if won:
                    break
            if counts[model][0]:
                break
        records.settle(0, "k", counts)
    return records.kinds["k"].jobs


def share(of: Mapping[Pattern, float], model: str) -> float:
    """Samples that passed of all that were made, counted."""
    counts = [(w * s, w * f) for pattern, w in of.items() for m, s, f in pattern if m == model]
    return sum(s for s, _ in counts) / sum(s + f for s, f in counts)


@pytest.mark.parametrize("agreement", [0.0, 0.2, 0.5, 0.8])
def test_the_agreement_is_recovered_from_a_few_hundred_jobs(agreement: float) -> None:
    priors = dict.fromkeys(CHANCES, PRIOR)

    found = mean(fit_agreement(jobs(300, agreement, seed), priors) for seed in range(3))

    assert found == pytest.approx(agreement, abs=0.13)


def test_a_few_dozen_jobs_tell_much_agreement_from_none() -> None:
    priors = dict.fromkeys(CHANCES, PRIOR)

    for seed in range(5):
        little, much = (fit_agreement(jobs(40, r, seed), priors) for r in (0.0, 0.8))
        assert little + 0.1 < much


@pytest.mark.parametrize("agreement", [0.2, 0.5, 0.8])
def test_success_is_that_of_all_jobs_though_hard_ones_are_tried_more(agreement: float) -> None:
    found: dict[str, list[float]] = {model: [] for model in CHANCES}
    counted = []
    for seed in range(6):
        seen = jobs(300, agreement, seed)
        fitted = fit(seen, dict.fromkeys(CHANCES, PRIOR), agreement)
        counted.append(share(seen, "large"))
        for model, beta in fitted.items():
            found[model].append(beta.mean)

    assert {m: mean(values) for m, values in found.items()} == pytest.approx(CHANCES, abs=0.06)
    assert mean(counted) < CHANCES["large"] - 0.1  # what counting would say


def test_the_deviation_is_about_how_far_off_the_mean_is() -> None:
    errors = []
    for seed in range(12):
        fitted = fit(jobs(60, 0.5, seed), dict.fromkeys(CHANCES, PRIOR), 0.5)
        errors += [(beta.mean - CHANCES[model]) / beta.deviation for model, beta in fitted.items()]

    assert 0.6 < math.sqrt(mean(error * error for error in errors)) < 1.6


def test_hopeless_jobs_say_less_the_more_samples_they_have_cost() -> None:
    few = fit({(("m", 0, 2),): 10.0}, {"m": PRIOR}, 0.8)["m"]
    many = fit({(("m", 0, 64),): 10.0}, {"m": PRIOR}, 0.8)["m"]

    assert many.passed + many.failed < 10 * 8
    assert 0.0 < many.mean < few.mean < 0.3


def test_jobs_that_were_tried_once_say_nothing_of_agreement() -> None:
    seen: dict[Pattern, float] = {(("m", 1, 0),): 50.0, (("m", 0, 1),): 50.0}

    assert fit_agreement(seen, {"m": PRIOR}) == 0.5


def test_nothing_seen_leaves_what_was_assumed() -> None:
    assert fit({}, {"m": PRIOR}, 0.5) == {"m": PRIOR}


COUNTS = st.tuples(st.integers(0, 64), st.integers(0, 64)).filter(any)
PATTERN = st.dictionaries(st.sampled_from("abc"), COUNTS, min_size=1, max_size=3).map(
    lambda counts: tuple((model, *samples) for model, samples in sorted(counts.items()))
)


@given(
    seen=st.dictionaries(PATTERN, st.floats(0.001, 300), max_size=12),
    agreement=st.sampled_from([0.05, 0.5, 0.9]),
)
def test_whatever_was_seen_probabilities_stay_within_0_and_1(
    seen: dict[Pattern, float], agreement: float
) -> None:
    priors = dict.fromkeys("abc", PRIOR)
    for beta in fit(seen, priors, agreement).values():
        assert 0.0 < beta.mean < 1.0
        assert 0.0 < beta.deviation < 0.5
    assert 0.0 < fit_agreement(seen, priors) < 1.0


@pytest.mark.parametrize(
    ("beta", "low", "high"),
    [
        (Beta(1.0, 1.0), 0.05, 0.95),
        (Beta(8.0, 4.0), 0.4356, 0.8650),
        (Beta(300.0, 100.0), 0.7138, 0.7849),
    ],
)
def test_intervals_hold_the_mass_they_say(beta: Beta, low: float, high: float) -> None:
    assert beta.interval(0.9) == pytest.approx((low, high), abs=0.002)
