"""How fast a replica is, learnt from what it does."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.caches.affinity.rates import Line, Rates

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
        rates.began(tokens, (0.05 + tokens / speed) * chance.uniform(0.9, 1.1))

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
            rates.began(tokens, second * tokens / 1000)

    assert rates.prefill(3000) == pytest.approx(12.0, rel=0.1)


@given(st.lists(st.tuples(numbers, numbers), max_size=30))
def test_a_line_is_finite_and_never_negative(seen: list[tuple[float, float]]) -> None:
    line = Line(0.02, 0.0, 8.0)

    for x, y in seen:
        line.observe(x, y)

    for part in line.fit():
        assert 0.0 <= part < math.inf


@given(st.lists(st.tuples(numbers, numbers, numbers, st.integers(-5, 10**9)), max_size=30))
def test_rates_stay_positive_and_finite_whatever_is_measured(
    seen: list[tuple[float, float, float, int]],
) -> None:
    rates = Rates()

    for tokens, seconds, running, made in seen:
        rates.began(tokens, seconds)
        rates.wrote(made, seconds, running)

    assert 0.0 < rates.prefill_seconds < math.inf
    assert 0.0 <= rates.prefill(0) <= rates.prefill(10_000) < math.inf
    assert 0.0 <= rates.decode(1) <= rates.decode(64) < math.inf


def test_a_falling_line_is_flat() -> None:
    line = Line(0.0, 0.0, 1.0)
    for x in range(300):
        line.observe(x % 10, 10.0 - x % 10)

    intercept, slope = line.fit()

    assert slope == 0.0
    assert intercept == pytest.approx(5.5, abs=0.5)


def test_what_was_not_written_is_not_a_speed() -> None:
    rates = Rates(decode=0.05)

    rates.wrote(0, 10.0, 1.0)

    assert rates.decode(1) == pytest.approx(0.05)


def test_noise_on_short_prompts_says_nothing_of_long_ones() -> None:
    chance, costs = random.Random(0), []
    rates = Rates()
    for _ in range(1000):
        tokens = chance.uniform(300, 700)
        rates.began(tokens, tokens / 20_000 + chance.uniform(0.0, 0.3))
        costs.append(rates.prefill(50_000))

    free = sum(cost < 0.5 for cost in costs) / len(costs)
    assert free < 0.25  # it would be half of them, were the first guess forgotten
    assert max(costs) < 30.0
