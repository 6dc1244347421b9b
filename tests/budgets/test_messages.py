"""What a refused reservation says."""

from __future__ import annotations

import pytest

from agentflow import Budget
from agentflow.budgets.ledger import Ledger
from agentflow.errors import BudgetExceeded


def test_amounts_are_written_in_digits() -> None:
    with pytest.raises(BudgetExceeded) as refused:
        Ledger(Budget(usd="0.0000001")).reserve("0.0000003")

    assert str(refused.value) == (
        "0.0000003 usd do not fit: 0.0000001 of 0.0000001 are left "
        "(0 spent, 0 reserved); raise the limit with Budget(usd=...)"
    )
