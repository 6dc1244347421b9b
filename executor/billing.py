"""The price of one call of a tool: set aside before it, paid by one of those who wait for it."""

from __future__ import annotations

from decimal import Decimal

from agentflow.budgets.ledger import Ledger


class Bill:
    """What one caller has set aside for a call.

    Args:
        ledger: Whose money it is.
        usd: The price of the call.

    Raises:
        BudgetExceeded: It does not fit into what is left.
    """

    __slots__ = ("_reservation", "open", "usd")

    def __init__(self, ledger: Ledger, usd: Decimal) -> None:
        self._reservation = ledger.reserve(usd)
        self.usd = usd
        self.open = True

    def pay(self) -> None:
        """The call was made for this caller."""
        if self.open:
            self.open = False
            self._reservation.settle(self.usd)

    def waive(self) -> None:
        """The call was not made, or another pays."""
        if self.open:
            self.open = False
            self._reservation.release()


class Advance(Bill):
    """What speculation has set aside: paid only once it is clear that nobody takes it over.

    Attributes:
        made: A call was made for it.
    """

    __slots__ = ("_ledger", "_lost", "made")

    def __init__(self, ledger: Ledger, usd: Decimal) -> None:
        super().__init__(ledger, usd)
        self._ledger = ledger
        self._lost = False
        self.made = False

    def pay(self) -> None:
        """The call was made; unless it is lost already, who owes it is not known yet."""
        self.made = True
        if self._lost:
            super().pay()

    def lose(self) -> None:
        """Nobody asked for the call, or whoever took it over had no use for it."""
        self._lost = True
        if self.made and not self.open:
            self._ledger.reserve().settle(self.usd)

    def end(self) -> None:
        """The guess is over: a call that was made and lost is paid for."""
        if not self.made:
            self.waive()
        elif self._lost:
            super().pay()
