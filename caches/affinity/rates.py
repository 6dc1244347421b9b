"""How fast a replica computes prompts and writes, learnt from its own replies."""

from __future__ import annotations

MEMORY = 0.97
"""Weight that an observation keeps when the next one comes: some thirty count."""

MOST = 1e12
"""Tokens, or seconds, beyond which an observation is none."""


class Line:
    """A straight line through what was observed lately, neither part of it negative.

    Least squares with exponentially decaying weights; until enough was seen, it leans on a
    first guess.

    Args:
        intercept: First guess of the value at 0.
        slope: First guess of what each unit adds.
        typical: Size of an x at which the first guess counts as one observation.
    """

    __slots__ = ("_n", "_x", "_xx", "_xy", "_y", "seen")

    def __init__(self, intercept: float, slope: float, typical: float) -> None:
        self.seen = 0
        self._n, self._x, self._y, self._xx, self._xy = 0.0, 0.0, 0.0, 0.0, 0.0
        for x in (0.0, typical):
            self._add(x, intercept + slope * x, 0.25)

    def _add(self, x: float, y: float, weight: float) -> None:
        self._n += weight
        self._x += weight * x
        self._y += weight * y
        self._xx += weight * x * x
        self._xy += weight * x * y

    def observe(self, x: float, y: float) -> None:
        """Something took `y` with an `x`; what cannot be is passed over."""
        if not (0.0 <= x <= MOST and 0.0 <= y <= MOST):
            return
        self.seen += 1
        for name in ("_n", "_x", "_y", "_xx", "_xy"):
            setattr(self, name, getattr(self, name) * MEMORY)
        self._add(x, y, 1.0)

    def fit(self) -> tuple[float, float]:
        """Intercept and slope."""
        spread = self._n * self._xx - self._x * self._x
        slope = (self._n * self._xy - self._x * self._y) / spread if spread > 1e-12 else 0.0
        if slope <= 0.0:
            return self._y / self._n, 0.0
        intercept = (self._y - slope * self._x) / self._n
        return (intercept, slope) if intercept >= 0.0 else (0.0, self._xy / self._xx)


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
