"""A `Budget` is read exactly, or not at all."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
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
        ({"usd": float("nan")}, "cannot be nan"),
        ({"usd": "-0.05"}, "cannot be -0.05"),
        ({"usd": True}, "'True' is not an amount"),
        ({"tokens": -1}, "tokens cannot be -1"),
        ({"tokens": 0.5}, "a whole number, not 0.5"),
        ({"tokens": float("inf")}, "a whole number, not inf"),
        ({"tokens": float("nan")}, "a whole number, not nan"),
        ({"tokens": "1000"}, "a whole number, not '1000'"),
        ({"deadline": "soon"}, "not a duration"),
        ({"deadline": -1}, "cannot be -1"),
        ({"deadline": float("inf")}, "cannot be inf: leave it out"),
        ({"deadline": "inf"}, "cannot be inf: leave it out"),
        ({"deadline": float("nan")}, "cannot be nan"),
        ({"deadline": []}, "budget"),
        ({"when_spent": "never"}, "'finish' or 'cancel', not 'never'"),
        ({"least_chance": 1}, "from 0 to below 1, not 1"),
        ({"least_chance": -0.1}, "from 0 to below 1"),
        ({"least_chance": float("nan")}, "from 0 to below 1"),
        ({"least_chance": "few"}, "budget"),
    ],
)
def test_a_limit_that_is_none_is_an_error(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        Budget(**limits)


def test_what_runs_is_finished_and_most_calls_are_started_unless_said_otherwise() -> None:
    budget = Budget(usd=1)
    assert (budget.when_spent, budget.least_chance) == ("finish", 0.05)
    strict = replace(budget, when_spent="cancel", least_chance=0.5)
    assert (strict.usd, strict.when_spent, strict.least_chance) == (Decimal(1), "cancel", 0.5)


def test_a_budget_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Budget(usd=1).usd = Decimal(2)  # type: ignore[misc]  # frozen
