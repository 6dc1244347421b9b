"""How fast a replica computes prompts and writes, learnt from its own replies."""

from __future__ import annotations

MEMORY = 0.97
"""Weight that an observation keeps when the next one comes: some thirty count."""

GUESS = 0.1
"""Weight of each of the two points of a first guess, which it keeps."""

MOST = 1e12
"""Tokens, or seconds, beyond which an observation is none."""


class Line:
    """A straight line through what was observed lately, neither part of it negative.

    Least squares with exponentially decaying weights; until enough was seen, and where all that
    was seen lately is much alike, it leans on a first guess.

    Args:
        intercept: First guess of the value at 0.
        slope: First guess of what each unit adds.
        typical: Size of an x at which the first guess counts as one observation.
    """

    __slots__ = ("_guess", "_sums")

    def __init__(self, intercept: float, slope: float, typical: float) -> None:
        ends = zip(
            _terms(0.0, intercept), _terms(typical, intercept + slope * typical), strict=True
        )
        self._guess = [GUESS * (low + high) for low, high in ends]
        self._sums = self._guess

    def observe(self, x: float, y: float) -> None:
        """Something took `y` with an `x`; what cannot be is passed over."""
        if not (0.0 <= x <= MOST and 0.0 <= y <= MOST):
            return
        sums = zip(self._sums, self._guess, _terms(x, y), strict=True)
        self._sums = [guess + MEMORY * (kept - guess) + new for kept, guess, new in sums]

    def fit(self) -> tuple[float, float]:
        """Intercept and slope."""
        n, x, y, xx, xy = self._sums
        spread = n * xx - x * x
        slope = (n * xy - x * y) / spread if spread > 1e-12 else 0.0
        if slope <= 0.0:
            return y / n, 0.0
        intercept = (y - slope * x) / n
        return (intercept, slope) if intercept >= 0.0 else (0.0, xy / xx)


def _terms(x: float, y: float) -> tuple[float, ...]:
    """What least squares sum up."""
    return 1.0, x, y, x * x, x * y


class Rates:
    """What a replica needs for a prompt and for a token of output.

    Args:
        prefill: First guess, in prompt tokens a second.
        decode: First guess, in seconds a token of one request alone.
    """

    __slots__ = ("_decode", "_prefill", "_step", "_token")

    def __init__(self, prefill: float = 2000.0, decode: float = 0.02) -> None:
        self._prefill = Line(0.0, 1.0 / prefill, 1000.0)
        self._decode = Line(decode, 0.0, 8.0)
        self._token = self._prefill.fit()
        self._step = self._decode.fit()

    @property
    def prefill_seconds(self) -> float:
        """Seconds that one more token of prompt takes."""
        return max(self._token[1], 1e-9)

    def prefill(self, tokens: float) -> float:
        """Seconds until the first token of a reply, if so much of its prompt is to be computed."""
        return self._token[0] + tokens * self._token[1]

    def decode(self, running: int) -> float:
        """Seconds a token while so many requests run."""
        return self._step[0] + self._step[1] * max(0, running - 1)

    def began(self, tokens: float, seconds: float) -> None:
        """So many tokens of prompts, of all that were ahead, were computed in that time."""
        self._prefill.observe(tokens, seconds)
        self._token = self._prefill.fit()

    def wrote(self, tokens: int, seconds: float, running: float) -> None:
        """So many tokens were written in that time, beside so many requests in the mean."""
        if tokens > 0:
            self._decode.observe(max(0.0, running - 1), seconds / tokens)
            self._step = self._decode.fit()
