"""Prices are exact, found in a fixed order, and never silently 0."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentflow.budgets.prices import FREE, Price, Prices
from agentflow.errors import DefinitionError
from agentflow.executor.models.base import Usage

REMOTE = "https://api.example.com/v1"


def test_cost_is_exact() -> None:
    prices = Prices({"m": {"input": "0.1", "cached_input": "0.01", "output": "0.3"}})

    assert prices.cost("m", Usage(3, 1, 1)) == Decimal("0.00000051")


def test_cached_input_costs_as_much_as_input_unless_said_otherwise() -> None:
    assert Prices({"m": (2, 3)}).cost("m", Usage(10, 1, 10)) == Decimal("0.000023")


def test_a_backend_that_reports_more_cached_than_sent_does_not_get_us_money_back() -> None:
    assert Price(Decimal(2), Decimal(3), Decimal(1)).cost(10, 0, 50) == Decimal("0.00001")


def test_an_unknown_model_has_no_price_rather_than_none_to_pay() -> None:
    prices = Prices()

    assert prices.price("acme-9", url=REMOTE) is None
    assert prices.cost("acme-9", Usage(1, 1), url=REMOTE) is None
    with pytest.raises(DefinitionError, match=r"'acme-9' is not known.*Prices\(\{\"acme-9\""):
        prices.require("acme-9", url=REMOTE)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8000/v1", "http://localhost/v1", "http://[::1]:1/v1", "http://127.9.9.9"],
)
def test_a_loopback_address_costs_nothing(url: str) -> None:
    assert Prices().price("anything", url=url) == FREE


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/v1",
        "http://localhost.example.com/v1",
        "http://llm.localhost/v1",
        "http://127.0.0.1.nip.io",
        "http://[::1",
    ],
)
def test_any_other_address_is_not_taken_for_free(url: str) -> None:
    assert Prices().price("anything", url=url) is None


def test_a_price_the_user_gave_counts_on_loopback_too() -> None:
    prices = Prices({"proxied-*": (1, 2)})

    assert prices.price("proxied-x", url="http://127.0.0.1:4000") == Price(Decimal(1), Decimal(2))


def test_an_exact_name_wins_over_a_pattern_and_the_users_over_the_list() -> None:
    prices = Prices({"gpt-*": (1, 1), "gpt-5": (2, 2), "*": (3, 3)})

    found = [prices.price(name, url=REMOTE) for name in ("gpt-5", "gpt-4o", "other")]
    assert [price and price.input for price in found] == [2, 1, 3]


def test_a_dated_snapshot_costs_what_its_model_costs_and_a_variant_does_not() -> None:
    prices = Prices()

    assert prices.price("gpt-4o-2024-08-06") == prices.price("gpt-4o") is not None
    assert prices.price("gpt-4o-audio-preview") is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.toml", '[prices]\n"a-*" = {input = 0.1, output = 0.3}\n'),
        ("p.toml", '"a-*" = {input = "0.1", output = "0.3"}\n'),
        ("p.json", '{"prices": {"a-*": {"input": 0.1, "output": 0.3}}}'),
    ],
)
def test_a_file_of_prices_is_read_exactly(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)

    price = Prices.from_file(tmp_path / name).price("a-1")

    assert price == Price(Decimal("0.1"), Decimal("0.3"))


@pytest.mark.parametrize("text", ["prices = 3", "not toml at all", "[prices]\na = 3"])
def test_a_file_that_is_no_table_of_prices_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.toml").write_text(text)

    with pytest.raises(DefinitionError):
        Prices.from_file(tmp_path / "p.toml")


@pytest.mark.parametrize(
    "given", [{"input": 1}, {"in": 1, "output": 2}, (1,), (-1, 2), ("x", 2), ("nan", 1), 7]
)
def test_a_price_that_is_none_is_refused_where_it_is_written(given: Any) -> None:
    with pytest.raises(DefinitionError, match="price of 'm'"):
        Prices({"m": given})
