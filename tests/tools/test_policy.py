from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from agentflow.budgets import Budget, Ledger
from agentflow.errors import DefinitionError
from agentflow.tools.policy import DEFAULT, UNSET, rate_per_second


def test_the_defaults_are_finite_and_cautious() -> None:
    assert DEFAULT.timeout == 120.0 and DEFAULT.limit == 1000
    assert DEFAULT.retries == 0 and DEFAULT.rate is None and DEFAULT.fallback is UNSET


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({"timeout": "8s"}, "timeout", 8.0),
        ({"timeout": None}, "timeout", None),
        ({"idle": "1m 30s"}, "idle", 90.0),
        ({"backoff": 0}, "backoff", 0.0),
        ({"backoff_limit": "250ms"}, "backoff_limit", 0.25),
        ({"retries": 3}, "retries", 3),
        ({"limit": 1}, "limit", 1),
        ({"rate": "600/m"}, "rate", 10.0),
        ({"rate": None}, "rate", None),
        ({"retry_on": OSError}, "retry_on", (OSError,)),
        ({"retry_on": [OSError, KeyError]}, "retry_on", (OSError, KeyError)),
        ({"fallback": None}, "fallback", None),
        ({"usd": "$0.002"}, "usd", Decimal("0.002")),
    ],
)
def test_options_are_read_as_they_are_written(
    changes: dict[str, Any], name: str, value: object
) -> None:
    assert getattr(DEFAULT.revised(**changes), name) == value


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"timeout": 0}, "timeout must be more than 0"),
        ({"timeout": -1}, "cannot be -1"),
        ({"timeout": "soon"}, "'soon' is not a duration"),
        ({"timeout": float("nan")}, "cannot be nan"),
        ({"retries": -1}, "retries must be a whole number of at least 0"),
        ({"retries": True}, "retries must be a whole number"),
        ({"retries": 1.5}, "retries must be a whole number"),
        ({"limit": 0}, "limit must be a whole number of at least 1"),
        ({"rate": 0}, "rate must be more than 0"),
        ({"rate": "fast"}, "'fast' is not a rate: write '10/s'"),
        ({"retry_on": "OSError"}, "retry_on takes exception types"),
        ({"retry_on": (OSError, 5)}, "retry_on takes exception types"),
        ({"usd": "cheap"}, "'cheap' is not an amount in US dollars"),
        ({"usd": -1}, "cannot be -1"),
        ({"usd": "nan"}, "cannot be nan"),
        ({"usd": "1e21"}, "more digits"),
        ({"usd": "1e-61"}, "more digits"),
        ({"timout": 5}, "there is no option 'timout'. Did you mean 'timeout'?"),
    ],
)
def test_options_out_of_range_are_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        DEFAULT.revised(**changes)
    assert text in str(refused.value)


@pytest.mark.parametrize("usd", ["1e20", "1e-60", "9" * 21 + "." + "9" * 60])
def test_whatever_a_call_may_cost_can_be_reserved(usd: str) -> None:
    price = DEFAULT.revised(usd=usd).usd

    assert Ledger(Budget()).reserve(usd=price).amount.usd == Decimal(usd)


@pytest.mark.parametrize(
    ("rate", "value"), [(5, 5.0), ("10/s", 10.0), ("5/30s", 5 / 30), ("1/h", 1 / 3600)]
)
def test_rates_are_per_second(rate: float | str, value: float) -> None:
    assert rate_per_second(rate) == value


def test_policies_are_equal_by_value_and_may_hold_anything_as_fallback() -> None:
    one, other = DEFAULT.revised(fallback=[]), DEFAULT.revised(fallback=[])
    assert one == other and hash(one) == hash(other)
    assert one != DEFAULT.revised(fallback=[1])
