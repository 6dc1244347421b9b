"""The token bucket decides when a request may start; it reads no clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.executor.models.ratelimit import RateLimiter


def test_without_limits_nothing_waits() -> None:
    assert RateLimiter().delay(0, 1_000_000) == 0


def test_a_burst_starts_at_once_and_then_one_per_interval() -> None:
    limiter = RateLimiter(requests_per_minute=60, burst=3)

    assert [limiter.delay(0) for _ in range(6)] == [0, 0, 0, 1, 2, 3]


def test_what_was_not_used_comes_back_with_time_up_to_the_burst() -> None:
    limiter = RateLimiter(requests_per_minute=60, burst=3)
    for _ in range(3):
        limiter.delay(0)

    assert [limiter.delay(1000) for _ in range(4)] == [0, 0, 0, 1]


def test_the_scarcer_limit_decides() -> None:
    limiter = RateLimiter(requests_per_minute=600, tokens_per_minute=600, burst=1)

    assert limiter.delay(0, 10) == 0
    assert limiter.delay(0, 50) == 5


def test_a_call_larger_than_the_bucket_waits_and_is_not_refused() -> None:
    assert RateLimiter(tokens_per_minute=60, burst=1).delay(0, 61) == 60


def test_a_pause_holds_everything_back() -> None:
    limiter = RateLimiter(requests_per_minute=6000)
    limiter.pause(10)
    limiter.pause(5)  # an earlier end does not shorten it

    assert limiter.delay(2) == 8
    assert (limiter.held(2), limiter.held(11)) == (8, 0)


def test_what_was_reserved_and_not_used_is_given_back() -> None:
    limiter = RateLimiter(tokens_per_minute=60, burst=10)
    limiter.delay(0, 10)
    limiter.give_back(0, 9)

    assert limiter.delay(0, 9) == 0


def test_a_request_that_never_started_is_given_back() -> None:
    limiter = RateLimiter(requests_per_minute=60, burst=1)
    limiter.delay(0)
    limiter.delay(0)
    limiter.give_back(0, 0, request=True)

    assert limiter.delay(0) == 1


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_nothing_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        RateLimiter(requests_per_minute=limit)


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 50)), max_size=40))
def test_no_minute_exceeds_the_limit_and_a_burst(arrivals: list[tuple[float, int]]) -> None:
    limiter = RateLimiter(tokens_per_minute=120, burst=6)
    now, starts = 0.0, []
    for gap, tokens in arrivals:
        now += gap
        starts.append((now + limiter.delay(now, tokens), tokens))

    for begin, _ in starts:
        in_minute = [tokens for at, tokens in starts if begin <= at < begin + 60]
        # the last one may be larger than the bucket: it starts when the bucket has refilled
        assert sum(in_minute[:-1]) <= 120 + 12 + 50
    assert [at for at, _ in starts] == sorted(at for at, _ in starts)
