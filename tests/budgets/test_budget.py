"""A `Budget` is read exactly, or not at all."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from decimal import Decimal
from typing import Any

import pytest

from agentflow.budgets import Budget
from agentflow.errors import DefinitionError


@pytest.mark.parametrize(
    ("given", "usd"),
    [
        (None, None),
        (0.1, Decimal("0.1")),
        ("0.05", Decimal("0.05")),
        ("$1.50", Decimal("1.50")),
        (" 2 ", Decimal(2)),
        (Decimal("1e-9"), Decimal("0.000000001")),
        (0, Decimal(0)),
    ],
)
def test_money_is_exact(given: Any, usd: Decimal | None) -> None:
    assert Budget(usd=given).usd == usd


def test_a_deadline_is_in_seconds() -> None:
    assert Budget(deadline="1m 30s").deadline == 90.0
    assert Budget(deadline=5).deadline == 5.0
    assert Budget() == Budget(usd=None, tokens=None, deadline=None)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"usd": -1}, "cannot be -1"),
        ({"usd": "nan"}, "cannot be nan"),
        ({"usd": float("inf")}, "cannot be inf"),
        ({"usd": "five"}, "'five' is not an amount"),
        ({"usd": "1e30"}, "more digits"),
        ({"usd": "1e-100"}, "more digits"),
        ({"tokens": -1}, "tokens cannot be -1"),
        ({"deadline": "soon"}, "not a duration"),
        ({"deadline": -1}, "cannot be -1"),
    ],
)
def test_a_limit_that_is_none_is_an_error(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        Budget(**limits)


def test_a_budget_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Budget(usd=1).usd = Decimal(2)  # type: ignore[misc]  # frozen
