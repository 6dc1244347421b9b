"""`remaining`: what is left of the limits of a run, for a model that plans by it."""

from __future__ import annotations

from dataclasses import dataclass

from agentflow.context import run_scope
from agentflow.tools.tool import tool


@dataclass(frozen=True)
class Remaining:
    """What is left; None is not limited. What calls under way have set aside is gone.

    Attributes:
        elapsed: Seconds since the run began.
        seconds: Until its deadline.
        usd: US dollars.
        tokens: Tokens.
    """

    elapsed: float
    seconds: float | None
    usd: float | None
    tokens: int | None


@tool(reads="remaining", ttl=0)
async def remaining() -> Remaining:
    """How much time, money and tokens are left for this task, and how long it has taken."""
    run = run_scope.get()
    if run is None:
        return Remaining(0.0, None, None, None)
    left = run.ledger.left
    return Remaining(
        round(run.ledger.elapsed, 3),
        None if left.seconds is None else round(left.seconds, 3),
        None if left.usd is None else float(left.usd),
        left.tokens,
    )
