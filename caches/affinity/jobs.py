"""What is to be placed, and what was decided."""

from __future__ import annotations

import math
from dataclasses import dataclass

from agentflow.caches.affinity.prompts import Prompt


@dataclass(slots=True, eq=False)
class Job:
    """One request that waits for a replica, or is at one.

    Attributes:
        number: Unique among the jobs of a dispatcher.
        session: Id of the conversation it belongs to; unique for one that belongs to none.
        prompt: What has to be computed, or is still there.
        output: Tokens that it will probably make.
        arrived: When it came, on the loop's clock.
        program: When the program it belongs to began.
        tenant: Whose program that is.
        kind: What the conversation is about; those of a kind are taken to be alike.
        deadline: When the program gives up, or None.
        remaining: Seconds of work that follow it in its program.
        returns: Its program goes on after the reply: the session is away then, and will be back.
        optional: It only makes a later one faster: nothing may wait for it.
        avoid: Names of replicas that have failed it.
    """

    number: int
    session: str
    prompt: Prompt
    output: float
    arrived: float
    program: float = -math.inf
    tenant: str = ""
    kind: str = ""
    deadline: float | None = None
    remaining: float = 0.0
    returns: bool = False
    optional: bool = False
    avoid: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """A job that names no program is one of its own."""
        if self.program == -math.inf:
            self.program = self.arrived


@dataclass(frozen=True, slots=True)
class Send:
    """A job goes to a replica now.

    `why` says how it came there: ``new`` (its session was nowhere), ``home`` (its session was
    there before), or why it left home: ``load``, ``room``, ``lost``.
    """

    job: Job
    replica: str
    why: str


@dataclass(frozen=True, slots=True)
class Pause:
    """How long a program will probably be busy with something else than its model.

    A log-normal, as SAGA takes tools' latencies to be (Algorithm 1): of all that is known of a
    tool's times the two quantiles are what survives being learnt from few of them.

    Attributes:
        p50: Seconds that half of the pauses stay under.
        p95: Seconds that 95 % stay under.
    """

    p50: float
    p95: float

    def remaining(self, elapsed: float) -> float:
        """Seconds that it will go on in the mean, given that it has lasted for `elapsed`."""
        mu = math.log(max(self.p50, 1e-6))
        sigma = max(1e-3, (math.log(max(self.p95, self.p50, 1e-6)) - mu) / _Z95)
        mean = math.exp(min(mu + sigma * sigma / 2, _MOST))
        if elapsed <= 0.0:
            return mean
        z = (math.log(elapsed) - mu) / sigma
        beyond = _above(z)
        if beyond < 1e-12:  # so late that nothing is known: it has lasted, it will last
            return elapsed
        return mean * _above(z - sigma) / beyond - elapsed


class Pauses:
    """The pauses of which nothing was said beforehand, as a log-normal that is learnt.

    Mean and variance of the logarithm are kept with exponentially decaying weights, as SAGA
    learns the latencies of tools (section 4.2), from a first guess that counts as some pauses.
    """

    __slots__ = ("_mean", "_spread")

    def __init__(self) -> None:
        self._mean, self._spread = math.log(0.5), 2.0

    def observe(self, seconds: float) -> None:
        """A session was away for so long."""
        off = math.log(max(seconds, 1e-3)) - self._mean
        self._mean += LEARNING * off
        self._spread = (1 - LEARNING) * (self._spread + LEARNING * off * off)

    def expected(self) -> Pause:
        """What is to be expected of the next."""
        p50 = math.exp(self._mean)
        return Pause(p50, p50 * math.exp(_Z95 * math.sqrt(self._spread)))


LEARNING = 0.05
"""Weight of the latest pause."""

_Z95 = 1.6448536269514722
_MOST = 700.0  # what the exponential function can be given


def _above(z: float) -> float:
    """Probability that a standard normal exceeds `z`."""
    return 0.5 * math.erfc(z / math.sqrt(2.0))
