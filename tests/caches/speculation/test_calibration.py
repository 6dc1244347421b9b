from __future__ import annotations

import random
from itertools import pairwise
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.caches.speculation.calibration import BINS, Calibration
from agentflow.caches.speculation.scorer import SIZE, Scorer, logistic


def test_what_was_never_seen_is_taken_at_its_word() -> None:
    assert Calibration().probability(0.0) == pytest.approx(0.5)
    assert Calibration().probability(-3.0) == pytest.approx(logistic(-3.0))


def test_overconfidence_is_corrected() -> None:
    calibration = Calibration()
    draw = random.Random(1).random
    for _ in range(4_000):
        claimed = 0.05 + 0.9 * draw()
        calibration.learn(log(claimed / (1 - claimed)), draw() < claimed / 2)
    for claimed in (0.2, 0.5, 0.8):
        assert calibration.probability(log(claimed / (1 - claimed))) == pytest.approx(
            claimed / 2, abs=0.06
        )


@given(st.lists(st.tuples(st.floats(-20, 20), st.booleans()), max_size=60))
def test_a_probability_never_falls_as_the_logit_rises(seen: list[tuple[float, bool]]) -> None:
    calibration = Calibration()
    for logit, outcome in seen:
        calibration.learn(logit, outcome)
    curve = [calibration.probability(step / 7) for step in range(-80, 81)]
    assert all(a <= b + 1e-12 for a, b in pairwise(curve))
    assert 0 <= curve[0] <= curve[-1] <= 1


def test_a_calibration_survives_a_dump() -> None:
    calibration = Calibration()
    calibration.learn(1.0, False, 8.0)
    again = Calibration.load(calibration.dump())
    assert again.probability(1.0) == calibration.probability(1.0)
    assert again.probability(1.0) < Calibration().probability(1.0)


@pytest.mark.parametrize("dumped", [[[1.0], [1.0]], [[0.0] * BINS, [1.0] * BINS], [["x"], []]])
def test_a_foreign_calibration_is_refused(dumped: object) -> None:
    with pytest.raises(ValueError):
        Calibration.load(dumped)


def test_a_scorer_learns_what_tells_examples_apart() -> None:
    scorer = Scorer()
    for turn in range(400):
        features = [1, 2 + turn % 2]
        scorer.update(features, logistic(scorer.score(features)) - turn % 2)
    assert logistic(scorer.score([1, 3])) > 0.7
    assert logistic(scorer.score([1, 2])) < 0.3


def test_one_example_moves_little_however_many_features_it_has() -> None:
    scorer = Scorer()
    scorer.update(range(1_000), -1.0)
    assert 0.5 < scorer.score(range(1_000)) < 3


def test_a_scorer_survives_a_dump() -> None:
    scorer = Scorer()
    scorer.update([5, SIZE - 1], 0.5)
    again = Scorer.load(scorer.dump())
    scorer.update([5], 0.5)
    again.update([5], 0.5)
    assert again.score([5, SIZE - 1]) == scorer.score([5, SIZE - 1]) != 0


def test_a_scorer_of_another_size_is_refused() -> None:
    dumped = Scorer().dump()
    with pytest.raises(ValueError, match="weights"):
        Scorer.load(["eJwDAAAAAAE=", dumped[1]])


def test_what_is_not_compressed_weights_is_refused() -> None:
    with pytest.raises(ValueError):
        Scorer.load(["AAAA", "AAAA"])


@pytest.mark.parametrize(("x", "expected"), [(0, 0.5), (1e9, 1.0), (-1e9, 0.0)])
def test_the_logistic_function_never_overflows(x: float, expected: float) -> None:
    assert logistic(x) == pytest.approx(expected)
