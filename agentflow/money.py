"""Amounts of money, as users write them."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation


def dollars(amount: Decimal | float | str) -> Decimal:
    """An amount of money, exactly as it is written; ``"$1.50"`` is allowed.

    Raises:
        ValueError: It is no number, not finite, negative, or has too many digits to add up.
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
