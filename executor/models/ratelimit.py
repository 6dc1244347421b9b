"""A token bucket on requests and tokens per minute; it decides, and does no I/O.

Usable for models and for tools: ask `RateLimiter.delay` how long to wait, then sleep.
"""

from __future__ import annotations


class RateLimiter:
    """Says when the next request may start.

    Requests start in the order in which they ask. In any one minute at most the limit and
    a burst start; a server's ``Retry-After`` holds everything back (`pause`).

    Args:
        requests_per_minute: None for no limit.
        tokens_per_minute: None for no limit.
        burst: Seconds' worth of the limit that may start at once after a quiet time.
    """

    __slots__ = ("_paused_until", "_requests", "_tokens")

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        *,
        burst: float = 6.0,
    ) -> None:
        self._requests = _bucket(requests_per_minute, burst)
        self._tokens = _bucket(tokens_per_minute, burst)
        self._paused_until = float("-inf")

    def delay(self, now: float, tokens: float = 0) -> float:
        """Take one request and `tokens`, and say after how many seconds it may start.

        Ask once per request and start it after the delay; see `held` for what comes between.
        """
        waits = [self._paused_until - now, 0.0]
        if self._requests is not None:
            waits.append(self._requests.take(now, 1))
        if self._tokens is not None:
            waits.append(self._tokens.take(now, tokens))
        return max(waits)

    def held(self, now: float) -> float:
        """Seconds until a pause is over; 0 if there is none."""
        return max(0.0, self._paused_until - now)

    def pause(self, until: float) -> None:
        """Let nothing start before this time: the server said so (``Retry-After``)."""
        self._paused_until = max(self._paused_until, until)

    def give_back(self, now: float, tokens: float, *, request: bool = False) -> None:
        """Return tokens that were taken and not used, and the request if it never started."""
        if self._tokens is not None:
            self._tokens.take(now, -tokens)
        if request and self._requests is not None:
            self._requests.take(now, -1)


class _Bucket:
    """A bucket whose level may go below zero: what is missing is the time to wait."""

    __slots__ = ("_at", "_capacity", "_level", "_rate")

    def __init__(self, per_minute: float, burst: float) -> None:
        self._rate = per_minute / 60.0
        self._capacity = max(1.0, self._rate * burst)
        self._level = self._capacity
        self._at = float("-inf")

    def take(self, now: float, amount: float) -> float:
        """Take an amount (negative: put back), and say how long until the bucket allows it."""
        if now > self._at:
            self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
            self._at = now
        self._level -= amount
        return max(0.0, -self._level / self._rate)


def _bucket(per_minute: float | None, burst: float) -> _Bucket | None:
    if per_minute is None:
        return None
    if not per_minute > 0:
        raise ValueError(f"a rate limit must be above 0 per minute, not {per_minute}")
    return _Bucket(per_minute, burst)
