"""What a command knows of models before it asks them: prices, and what earlier runs have taught."""

from __future__ import annotations

from typing import Any

from agentflow.budgets.estimates import Estimates, default_path
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


def estimates(options: Any) -> Estimates:
    """What earlier runs have taught: from the file that is named, else from the user's own."""
    if options.no_estimates:
        return Estimates()
    return Estimates(options.estimates or default_path())
