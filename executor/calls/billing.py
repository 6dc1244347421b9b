"""The price of one call of a tool: set aside before it, paid by one of those who wait for it."""

from __future__ import annotations

from decimal import Decimal

from agentflow.budgets.ledger import Ledger


class Bill:
    """What one caller has set aside for a call.

    Attributes:
        usd: The price of the call.
        open: It is neither paid nor waived.
        optional: Nobody has asked for the call.

    Args:
        ledger: Whose money it is.
        usd: The price of the call.

    Raises:
        BudgetExceeded: It does not fit into what is left.
    """

    __slots__ = ("_reservation", "open", "usd")

    optional = False

    def __init__(self, ledger: Ledger, usd: Decimal) -> None:
        self._reservation = ledger.reserve(usd, firm=True)
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
    """What speculation has set aside for a guess.

    Who asks for the call pays for it, and this is waived. Until that is clear it stays open, also
    when the call has been made; it is paid when nobody is left who could.

    Attributes:
        made: A call was made for it.

    Raises:
        BudgetExceeded: It does not fit into what is left.
    """

    __slots__ = ("_lost", "made")

    optional = True

    def __init__(self, ledger: Ledger, usd: Decimal) -> None:
        super().__init__(ledger, usd)
        self.made = self._lost = False

    @property
    def owed(self) -> Decimal:
        """What is to be paid for the call; nothing if it was not made, or another has paid."""
        return self.usd if self.made and self.open else Decimal(0)

    def pay(self) -> None:
        """The call was made; unless it is lost already, who owes it is not known yet."""
        self.made = True
        if self._lost:
            super().pay()

    def lose(self) -> None:
        """Nobody asked for the call, or whoever took it over had no use for it."""
        self._lost = True

    def end(self) -> None:
        """The guess is over: a call that was made and lost is paid for."""
        if not self.made:
            self.waive()
        elif self._lost:
            super().pay()
