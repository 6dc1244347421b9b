"""How fast a replica computes prompts and writes, learnt from its own replies."""

from __future__ import annotations

import math

from agentflow.caches.affinity.regression import GUESS, Fit, LeastSquares

TYPICAL = 1000.0
"""Tokens of a prompt to which the first guess refers."""

ALIKE = 3000.0
"""Tokens of which, until more is seen, those ahead are taken to delay a request as much as its own;
the more, the more has to be seen."""

NOISE = 0.2
"""Seconds by which first tokens scatter, as is supposed before any has come."""

SUPPOSED = 2.0
"""As how many observations that counts."""

DOUBT = 2.0
"""Standard errors by which a delay may be less than is learnt of it."""

LONG = 3000.0
"""Tokens ahead of a request with which it counts half: what was learnt from a long queue is not to
outweigh for long what follows, if the server has become another."""


class Rates:
    """What a replica needs for a prompt and for a token of output.

    The time to a first token is taken to be the sum of a constant (the network, the queue of a
    provider), of what is to be computed of its prompt, and of a share of the prompts that were
    sent there before and had not begun. How large that share is depends on the server: one works
    prompts off one after the other, another, as most that are hosted, takes any number at once.
    It is learnt from requests that were sent while others had not begun.

    Args:
        prefill: First guess, in prompt tokens a second.
        decode: First guess, in seconds a token of one request alone.

    Attributes:
        certain: Share of what `wait` says that is beyond doubt: nothing before requests have met.
    """

    __slots__ = ("_constant", "_decode", "_first", "_own", "_step", "_wait", "certain")

    def __init__(self, prefill: float = 2000.0, decode: float = 0.02) -> None:
        alone = (1.0, TYPICAL, 0.0, TYPICAL / prefill)
        alike = (0.0, -ALIKE, ALIKE, 0.0)
        self._first = LeastSquares([(1.0, 0.0, 0.0, 0.0), alone, alike])
        self._decode = LeastSquares([(1.0, 0.0, decode), (1.0, 8.0, decode)])
        self._constant, self._own, self._wait = self._first.fit().parts
        self._step = self._decode.fit().parts
        self.certain = 0.0

    @property
    def prefill_seconds(self) -> float:
        """Seconds that one more token of prompt takes."""
        return max(self._own, 1e-9)

    def prefill(self, tokens: float) -> float:
        """Seconds until the first token of a reply, if so much of its prompt is to be computed."""
        return self._constant + tokens * self._own

    def wait(self, tokens: float) -> float:
        """Seconds by which so many tokens of other prompts probably delay a request."""
        return tokens * self._wait

    def decode(self, running: int) -> float:
        """Seconds a token while so many requests run."""
        return self._step[0] + self._step[1] * max(0, running - 1)

    def began(self, tokens: float, ahead: float, seconds: float) -> None:
        """A first token came.

        Args:
            tokens: Of its prompt, that were to be computed.
            ahead: Such tokens of requests that were sent before and had not begun.
            seconds: What it took.
        """
        part = LONG / (LONG + max(0.0, ahead))
        self._first.observe(*(part * value for value in (1.0, tokens, ahead, seconds)))
        fit = self._first.fit()
        self._constant, self._own, self._wait = fit.parts
        self.certain = self._beyond_doubt(fit)

    def wrote(self, tokens: int, seconds: float, running: float) -> None:
        """So many tokens were written in that time, beside so many requests in the mean."""
        if tokens > 0:
            self._decode.observe(1.0, max(0.0, running - 1), seconds / tokens)
            self._step = self._decode.fit().parts

    def _beyond_doubt(self, fit: Fit) -> float:
        """What is left of a delay if it is as much less as it may be."""
        seen = fit.squares - GUESS * ALIKE**2
        if seen <= 0.0 or self._wait == 0.0:
            return 0.0
        scatter = (fit.left + SUPPOSED * NOISE**2) / (fit.count + SUPPOSED)
        return max(0.0, 1.0 - DOUBT * math.sqrt(scatter / seen) / self._wait)
