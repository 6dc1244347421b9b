"""Prefill token equivalents."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from agentflow.budgets.prices import Price, Prices
from agentflow.budgets.pte import GAMMA, prefill_equivalents
from agentflow.errors import DefinitionError


def test_a_prompt_costs_what_is_not_cached_of_it() -> None:
    assert prefill_equivalents(1_000, 0) == 1_000
    assert prefill_equivalents(1_000, 0, 900) == 100
    assert prefill_equivalents(1_000, 0, 5_000) == 0


def test_a_token_made_costs_in_proportion_to_what_is_before_it() -> None:
    assert prefill_equivalents(1_000, 50, 1_000) == pytest.approx(GAMMA * 1_000 * 50)
    assert prefill_equivalents(1_000, 50, 1_000, 0.01) == pytest.approx(500)


def test_a_price_may_say_what_a_token_made_costs_the_server(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text('[prices]\n"tiny" = { input = 1, output = 2, gamma = 0.00625 }\n', "utf-8")

    price = Prices.from_file(path).price("tiny")

    assert price is not None
    assert price.gamma == 0.00625
    assert price.cost(1_000_000, 0) == 1
    assert Price(Decimal(1), Decimal(2)).gamma == GAMMA


@pytest.mark.parametrize("gamma", ["much", -1, float("inf"), float("nan"), None])
def test_a_gamma_that_is_no_factor_is_refused(gamma: object) -> None:
    with pytest.raises(DefinitionError, match="the price of 'tiny' is not usable"):
        Prices({"tiny": {"input": 1, "output": 2, "gamma": gamma}})
