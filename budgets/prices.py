"""What model calls cost: USD per million tokens, by model name, as exact decimals."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from agentflow._loopback import is_loopback
from agentflow.budgets.pte import GAMMA
from agentflow.errors import DefinitionError
from agentflow.money import dollars

MILLION = Decimal(1_000_000)


class Counts(Protocol):
    """The tokens of one call."""

    @property
    def prompt_tokens(self) -> int:
        """All of the input."""
        ...

    @property
    def completion_tokens(self) -> int:
        """All of the output."""
        ...

    @property
    def cached_tokens(self) -> int | None:
        """Input the backend had cached; None if it does not say."""
        ...


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens.

    Attributes:
        input: Of input that is not cached.
        output: Of output.
        cached_input: Of cached input; None means as `input`.
        refunds: A call that is cancelled costs only what it had made by then.
        gamma: What a token made costs the server for each token before it, of a token of prompt;
            see `prefill_equivalents`. It is no part of the price.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    refunds: bool = True
    gamma: float = GAMMA

    def cost(self, prompt: int, completion: int, cached: int = 0) -> Decimal:
        """USD of so many tokens; `cached` is part of `prompt`."""
        cached_input = self.input if self.cached_input is None else self.cached_input
        cached = min(cached, prompt)
        total = (prompt - cached) * self.input + cached * cached_input + completion * self.output
        return total / MILLION


FREE = Price(Decimal(0), Decimal(0), Decimal(0))

PriceLike: TypeAlias = "Price | Mapping[str, Any] | tuple[Any, ...]"
"""A `Price`, ``{"input": ..., "output": ..., "cached_input": ...}`` or ``(input, output)``."""


def _listed(input: str, cached_input: str, output: str) -> Price:
    return Price(Decimal(input), Decimal(output), Decimal(cached_input))


LIST_PRICES: Mapping[str, Price] = {
    "gpt-4o": _listed("2.50", "1.25", "10.00"),
    "gpt-4o-mini": _listed("0.15", "0.075", "0.60"),
    "gpt-4.1": _listed("2.00", "0.50", "8.00"),
    "gpt-4.1-mini": _listed("0.40", "0.10", "1.60"),
    "gpt-4.1-nano": _listed("0.10", "0.025", "0.40"),
    "gpt-5": _listed("1.25", "0.125", "10.00"),
    "gpt-5-mini": _listed("0.25", "0.025", "2.00"),
    "gpt-5-nano": _listed("0.05", "0.005", "0.40"),
    "gpt-5.1": _listed("1.25", "0.125", "10.00"),
}
"""OpenAI's list prices as last revised in November 2026; what a user gives comes first.

A dated snapshot (``gpt-4o-2024-08-06``) costs what its model costs.
"""


class Prices:
    """Prices by model name.

    Looked up in this order: what the user gave (exact names, then patterns in the order
    written), nothing to pay on a loopback address, `LIST_PRICES`. A model that is found
    nowhere has no price, which is not the same as a price of 0.

    Args:
        table: Prices by name or pattern (``*``, ``?``, ``[...]``).
    """

    def __init__(self, table: Mapping[str, PriceLike] | None = None) -> None:
        self._own = {name: _price(name, given) for name, given in (table or {}).items()}

    @classmethod
    def from_file(cls, path: str | Path) -> Prices:
        """Read a TOML or JSON file: a table ``prices`` (or the whole file) of names to prices.

        Raises:
            DefinitionError: The file is not such a table.
        """
        path = Path(path)
        text = path.read_text("utf-8")
        try:
            if path.suffix == ".json":
                data = json.loads(text, parse_float=Decimal)
            else:
                data = tomllib.loads(text, parse_float=Decimal)
        except ValueError as error:
            raise DefinitionError(f"{path}: {error}") from None
        table = data.get("prices", data) if isinstance(data, dict) else None
        if not isinstance(table, dict):
            raise DefinitionError(f"{path}: expected a table of model names to prices")
        return cls(table)

    def price(self, model: str, *, url: str = "") -> Price | None:
        """The price of a model, at a base URL if given; None when it is not known."""
        if (own := _match(self._own, model)) is not None:
            return own
        if is_loopback(url):
            return FREE
        return _match(LIST_PRICES, _without_date(model))

    def require(self, model: str, *, url: str = "") -> Price:
        """The price of a model, for whoever keeps a budget in USD.

        Raises:
            DefinitionError: It is not known; the message says how to add it.
        """
        if (price := self.price(model, url=url)) is not None:
            return price
        raise DefinitionError(
            f"the price of model {model!r} is not known, so a budget in USD cannot be kept: "
            f'add it with Prices({{"{model}": {{"input": ..., "output": ...}}}}), in USD per '
            f"million tokens (at a shell with --prices FILE), or give a budget in tokens"
        )

    def cost(self, model: str, usage: Counts, *, url: str = "") -> Decimal | None:
        """USD of a call; None when the model's price is not known."""
        price = self.price(model, url=url)
        if price is None:
            return None
        return price.cost(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens or 0)


def _match(table: Mapping[str, Price], model: str) -> Price | None:
    if model in table:
        return table[model]
    return next((price for name, price in table.items() if fnmatchcase(model, name)), None)


def _without_date(model: str) -> str:
    name, date = model[:-11], model[-11:]
    return name if fnmatchcase(date, "-20[0-9][0-9]-[0-9][0-9]-[0-9][0-9]") else model


def _price(name: str, given: PriceLike) -> Price:
    if isinstance(given, Price):
        return given
    try:
        if isinstance(given, Mapping):
            return Price(**{key: _field(key, value) for key, value in given.items()})
        usd_in, usd_out, *cached = map(dollars, given)
        if len(cached) > 1:
            raise TypeError(f"{len(given)} numbers")
        return Price(usd_in, usd_out, cached[0] if cached else None)
    except (TypeError, ValueError) as error:
        raise DefinitionError(
            f"the price of {name!r} is not usable ({error}): give input, output and perhaps "
            f"cached_input, in USD per million tokens, and perhaps refunds and gamma"
        ) from None


def _field(name: str, value: Any) -> Any:
    if name == "gamma":
        return _factor(value)
    if name != "refunds":
        return dollars(value)
    if not isinstance(value, bool):
        raise TypeError(f"refunds is true or false, not {value!r}")
    return value


def _factor(value: Any) -> float:
    factor = float(value)
    if not 0 <= factor < math.inf:
        raise ValueError(f"gamma is a number from 0 on, such as {GAMMA}, not {value}")
    return factor
