"""What is to be expected of limits before anything is spent."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agentflow.budgets.allocation.situation import Allocator, Decision, Job, Situation

WANTED = 0.9
"""The probability for which the cheapest budget is told."""

_SAMPLES = 64  # of one job: more than that is not tried
_TINY = 1e-4  # of the most, where a cheapest model costs nothing
_NEAR = 1.02  # two budgets nearer than that are told as one


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is to be expected of a budget and a deadline.

    Attributes:
        probability: That everything is done within both.
        usd: USD that are expected to be spent.
        cheapest: The least USD that make the probability the wanted one, about, within the same
            deadline; None if no amount does.
    """

    probability: float
    usd: float
    cheapest: float | None


def forecast(
    jobs: Sequence[Job],
    *,
    usd: float | None = None,
    seconds: float | None = None,
    allocator: Callable[[], Allocator],
    wanted: float = WANTED,
    seed: int = 0,
) -> Forecast:
    """Say what an allocator expects of limits, and what the cheapest sufficient budget is.

    It is what the allocator's first decision rests on: every budget is looked at with the same
    chance, so that they differ by nothing but the money.

    Args:
        jobs: All of them, each after those it waits for; none has begun.
        usd: The budget, or None without one.
        seconds: The deadline, or None without one.
        allocator: Makes an allocator, which estimates probability and USD.
        wanted: The probability for which the cheapest budget is sought.
        seed: Of the chance.
    """
    ready = tuple(
        replace(job, ready=not job.after, room=_SAMPLES if job.room is None else job.room)
        for job in jobs
    )

    def look(money: float | None) -> tuple[float, float]:
        decision = _decided(allocator(), Situation(ready, money, seconds), seed)
        return decision.probability or 0.0, decision.usd or 0.0

    probability, spent = look(usd)
    return Forecast(probability, spent, _cheapest(look, ready, wanted))


def _cheapest(
    look: Callable[[float | None], tuple[float, float]], jobs: Sequence[Job], wanted: float
) -> float | None:
    """The least USD that reach a probability: doubled until they do, then narrowed down."""
    prices = [[known.usd for known in job.models.values()] for job in jobs]
    least, most = sum(map(min, prices)), _SAMPLES * sum(map(max, prices))
    if not most:
        return 0.0 if look(None)[0] >= wanted else None
    enough = max(least, most * _TINY)
    while look(enough)[0] < wanted:
        if (enough := 2 * enough) > 2 * most:
            return None
    too_little = enough / 2
    while enough > too_little * _NEAR:
        middle = math.sqrt(enough * too_little)
        if look(middle)[0] < wanted:
            too_little = middle
        else:
            enough = middle
    return enough


def _decided(allocator: Allocator, situation: Situation, seed: int) -> Decision:
    deciding = allocator.decide(situation, random.Random(seed))
    while True:
        try:
            next(deciding)
        except StopIteration as done:
            decision: Decision = done.value
            return decision
