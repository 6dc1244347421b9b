"""How fast a replica is, learnt from what it does."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.caches.affinity.rates import Rates
from agentflow.caches.affinity.regression import MOST, LeastSquares

numbers = st.floats(allow_nan=True, allow_infinity=True)


def test_before_anything_was_seen_it_is_the_first_guess() -> None:
    rates = Rates(prefill=1000.0, decode=0.05)

    assert rates.prefill(2000) == pytest.approx(2.0)
    assert rates.decode(1) == rates.decode(20) == pytest.approx(0.05)


@pytest.mark.parametrize("speed", [200.0, 2000.0, 50_000.0])
def test_prefill_is_learnt_from_noisy_prompts_of_all_lengths(speed: float) -> None:
    rates, chance = Rates(), random.Random(0)

    for _ in range(200):
        tokens = chance.uniform(100, 20_000)
        rates.began(tokens, 0.0, (0.05 + tokens / speed) * chance.uniform(0.9, 1.1))

    assert rates.prefill(10_000) == pytest.approx(0.05 + 10_000 / speed, rel=0.1)
    assert rates.prefill_seconds == pytest.approx(1 / speed, rel=0.1)


def test_decode_is_learnt_against_load() -> None:
    rates, chance = Rates(), random.Random(0)

    for _ in range(200):
        running = chance.randint(1, 32)
        rates.wrote(100, 100 * (0.03 + 0.002 * (running - 1)), running)

    assert rates.decode(1) == pytest.approx(0.03, rel=0.05)
    assert rates.decode(32) == pytest.approx(0.092, rel=0.05)


def test_a_replica_that_becomes_slower_is_seen_to() -> None:
    rates = Rates()
    for second in (1.0, 4.0):
        for tokens in (1000, 5000) * 60:
            rates.began(tokens, 0.0, second * tokens / 1000)

    assert rates.prefill(3000) == pytest.approx(12.0, rel=0.1)


@given(st.lists(st.tuples(numbers, numbers, numbers), max_size=30))
def test_what_is_learnt_is_finite_and_never_negative(
    seen: list[tuple[float, float, float]],
) -> None:
    squares = LeastSquares([(1.0, 0.0, 0.0, 0.02), (1.0, 8.0, 0.0, 0.02), (0.0, -1.0, 1.0, 0.0)])

    for row in seen:
        squares.observe(1.0, *row)

    fit = squares.fit()
    for value in (*fit.parts, fit.squares, fit.left, fit.count):
        assert 0.0 <= value < math.inf


@given(st.lists(st.tuples(numbers, numbers, numbers, numbers, st.integers(-5, 10**9)), max_size=30))
def test_rates_stay_positive_and_finite_whatever_is_measured(
    seen: list[tuple[float, float, float, float, int]],
) -> None:
    rates = Rates()

    for tokens, ahead, seconds, running, made in seen:
        rates.began(tokens, ahead, seconds)
        rates.wrote(made, seconds, running)

    assert 0.0 < rates.prefill_seconds < math.inf
    assert 0.0 <= rates.prefill(0) <= rates.prefill(10_000) < math.inf
    assert 0.0 <= rates.decode(1) <= rates.decode(64) < math.inf
    assert 0.0 <= rates.wait(10_000) < math.inf
    assert 0.0 <= rates.certain <= 1.0


def test_a_falling_line_is_flat() -> None:
    line = LeastSquares([(1.0, 0.0, 0.0), (1.0, 1.0, 0.0)])
    for x in range(300):
        line.observe(1.0, x % 10, 10.0 - x % 10)

    intercept, slope = line.fit().parts

    assert slope == 0.0
    assert intercept == pytest.approx(5.5, abs=0.5)


def test_three_parts_are_told_from_each_other() -> None:
    squares, chance = LeastSquares([(1.0, 0.0, 0.0, 0.0)]), random.Random(0)
    for _ in range(100):
        x, y = chance.random(), chance.random()
        squares.observe(1.0, x, y, 0.5 + 2.0 * x + 3.0 * y)

    fit = squares.fit()

    assert fit.parts == pytest.approx((0.5, 2.0, 3.0), abs=0.02)
    assert fit.left < 0.03


def test_what_cannot_be_told_from_the_others_adds_nothing() -> None:
    squares = LeastSquares([(1.0, 0.0, 0.0, 0.0)])
    for x in (1.0, 2.0, 3.0):
        squares.observe(1.0, x, x, 4.0 * x)

    assert squares.fit().parts == pytest.approx((0.0, 4.0, 0.0), abs=0.1)


def test_what_cannot_be_is_passed_over() -> None:
    squares = LeastSquares([(1.0, 1.0), (1.0, 3.0)])

    for seconds in (-1.0, math.nan, math.inf, 10 * MOST):
        squares.observe(1.0, seconds)

    assert squares.fit().parts == (2.0,)
    assert squares.fit().count == 0.0


def test_until_requests_have_met_others_are_in_the_way_but_nothing_is_certain() -> None:
    rates = Rates(prefill=1000.0)
    for tokens in range(100, 3000, 100):
        rates.began(tokens, 0.0, tokens / 5000)

    assert rates.wait(1000) == pytest.approx(0.2, rel=0.1)
    assert rates.certain == 0.0


def test_whether_prompts_delay_each_other_is_learnt_from_one_burst() -> None:
    one_by_one, at_once = Rates(), Rates()
    for ahead in range(0, 20_000, 400):
        one_by_one.began(400, ahead, 0.05 + (400 + ahead) / 1000)
        at_once.began(400, ahead, 0.7)

    assert one_by_one.wait(1000) == pytest.approx(1.0, rel=0.05)
    assert one_by_one.certain > 0.9
    assert at_once.wait(1000) < 0.01
    assert at_once.certain == 0.0


def test_a_prompt_of_its_own_may_take_long_where_those_of_others_do_not() -> None:
    rates, chance = Rates(), random.Random(0)
    for _ in range(100):
        tokens = chance.uniform(100, 5000)
        rates.began(tokens, chance.uniform(0, 20_000), 0.3 + tokens / 1000)

    assert rates.prefill(4000) == pytest.approx(4.3, rel=0.1)
    assert rates.wait(4000) < 0.1


def test_chance_is_not_taken_for_a_delay() -> None:
    chance, held = random.Random(0), 0
    rates = Rates()
    for _ in range(2000):
        rates.began(500, chance.uniform(0, 20_000), chance.lognormvariate(-0.5, 0.7))
        held += rates.wait(10_000) * rates.certain > 0.5

    assert held < 0.05 * 2000


def test_what_was_not_written_is_not_a_speed() -> None:
    rates = Rates(decode=0.05)

    rates.wrote(0, 10.0, 1.0)

    assert rates.decode(1) == pytest.approx(0.05)


def test_noise_on_short_prompts_says_nothing_of_long_ones() -> None:
    chance, costs = random.Random(0), []
    rates = Rates()
    for _ in range(1000):
        tokens = chance.uniform(300, 700)
        rates.began(tokens, 0.0, tokens / 20_000 + chance.uniform(0.0, 0.3))
        costs.append(rates.prefill(50_000))

    free = sum(cost < 0.5 for cost in costs) / len(costs)
    assert free < 0.25  # it would be half of them, were the first guess forgotten
    assert max(costs) < 30.0
