"""What a run may cost, as the user says it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from agentflow.clock import seconds
from agentflow.errors import DefinitionError


@dataclass(frozen=True, slots=True, init=False)
class Budget:
    """Limits of a run; what is None is not limited.

    Args:
        usd: US dollars; text and Decimal are exact, a float is read as it prints.
        tokens: Tokens, of prompts and completions together.
        deadline: Seconds from the start of the run, or text such as ``"30s"``.

    Raises:
        DefinitionError: A limit is negative or cannot be read.

    Attributes:
        usd: US dollars, exact.
        tokens: Tokens.
        deadline: Seconds from the start of the run.
    """

    usd: Decimal | None
    tokens: int | None
    deadline: float | None

    def __init__(
        self,
        usd: Decimal | float | str | None = None,
        tokens: int | None = None,
        deadline: float | str | None = None,
    ) -> None:
        try:
            limit = None if usd is None else dollars(usd)
            after = None if deadline is None else seconds(deadline)
        except ValueError as error:
            raise DefinitionError(f"budget: {error}") from None
        if tokens is not None and tokens < 0:
            raise DefinitionError(f"budget: tokens cannot be {tokens}")
        object.__setattr__(self, "usd", limit)
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "deadline", after)


def dollars(amount: Decimal | float | str) -> Decimal:
    """An amount of money, exactly as it is written; ``"$1.50"`` is allowed.

    Raises:
        ValueError: It is no number, not finite, or negative.
    """
    text = str(amount).strip().removeprefix("$")
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text[:40]!r} is not an amount in US dollars, such as 0.05") from None
    if not (value.is_finite() and value >= 0):
        raise ValueError(f"an amount in US dollars cannot be {text[:40]}")
    if value and not (value.adjusted() <= 20 and _places(value) <= 60):
        raise ValueError(f"{text[:40]!r} has more digits than an amount in US dollars")
    return value


def _places(value: Decimal) -> int:
    """Digits after the point."""
    exponent = value.as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0
