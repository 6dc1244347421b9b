"""What a command knows of models before it asks them: prices, and what earlier runs have taught."""

from __future__ import annotations

from typing import Any

from agentflow.budgets.prices import Prices
from agentflow.errors import DefinitionError


def prices(options: Any) -> Prices:
    """The prices that the options name, beside those that are known anyway.

    Raises:
        DefinitionError: The file cannot be read, or is no table of prices.
    """
    if options.prices is None:
        return Prices()
    try:
        return Prices.from_file(options.prices)
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(f"--prices: {error}") from None
