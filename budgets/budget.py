"""What a run may cost, as the user says it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from operator import index
from typing import Literal

from agentflow.clock import seconds
from agentflow.errors import DefinitionError
from agentflow.money import dollars


@dataclass(frozen=True, slots=True, init=False)
class Budget:
    """Limits of a run, of a tenant's, or of all runs of an engine; what is None is not limited.

    Args:
        usd: US dollars; text and Decimal are exact, a float is read as it prints.
        tokens: Tokens, of prompts and completions together.
        deadline: Seconds from the start of the run, or of the first one, or text such as
            ``"30s"``.
        when_spent: What becomes of the calls that run when a run ends because one more does not
            fit: ``finish`` waits for them, ``cancel`` does not. Nothing new starts either way.
        least_chance: A call is not started if its tool's last calls say that it ends by the
            deadline with a smaller chance than this; 0 starts every call.

    Raises:
        DefinitionError: A limit is negative, infinite, or cannot be read.

    Attributes:
        usd: US dollars, exact.
        tokens: Tokens.
        deadline: Seconds.
        when_spent: As given.
        least_chance: As given.
    """

    usd: Decimal | None
    tokens: int | None
    deadline: float | None
    when_spent: Literal["finish", "cancel"]
    least_chance: float

    def __init__(
        self,
        usd: Decimal | float | str | None = None,
        tokens: int | None = None,
        deadline: float | str | None = None,
        *,
        when_spent: Literal["finish", "cancel"] = "finish",
        least_chance: float = 0.05,
    ) -> None:
        try:
            limit = None if usd is None else dollars(usd)
            most = None if tokens is None else whole(tokens)
            after = None if deadline is None else _finite(deadline)
            if when_spent not in ("finish", "cancel"):
                raise ValueError(f"when_spent is 'finish' or 'cancel', not {when_spent!r}")
            if not 0 <= least_chance < 1:
                raise ValueError(f"least_chance is from 0 to below 1, not {least_chance}")
        except (TypeError, ValueError) as error:
            raise DefinitionError(f"budget: {error}") from None
        object.__setattr__(self, "usd", limit)
        object.__setattr__(self, "tokens", most)
        object.__setattr__(self, "deadline", after)
        object.__setattr__(self, "when_spent", when_spent)
        object.__setattr__(self, "least_chance", least_chance)


def whole(tokens: int) -> int:
    """A number of tokens.

    Raises:
        ValueError: It is no whole number, or negative.
    """
    try:
        count = index(tokens)
    except TypeError:
        raise ValueError(f"tokens are a whole number, not {tokens!r}") from None
    if count < 0:
        raise ValueError(f"tokens cannot be {count}")
    return count


def _finite(deadline: float | str) -> float:
    """A deadline in seconds; no deadline is None, not an infinite one."""
    after = seconds(deadline)
    if math.isinf(after):
        raise ValueError(f"the deadline cannot be {deadline}: leave it out for none")
    return after
