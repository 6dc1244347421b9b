"""The price of one call of a tool: set aside before it, paid by one of those who wait for it."""

from __future__ import annotations

from decimal import Decimal

from agentflow.budgets.ledger import Ledger
from agentflow.errors import BudgetExceeded


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
    """What speculation has set aside: paid only once it is clear that nobody takes it over.

    Its room in the budget of speculation is kept until it is clear what it has cost.

    Args:
        room: The budget of speculation.
        ledger: Whose money it is.
        usd: The price of the call.

    Attributes:
        made: A call was made for it.

    Raises:
        BudgetExceeded: It does not fit into what is left of either.
    """

    __slots__ = ("_ledger", "_lost", "_room", "_taken", "made")

    def __init__(self, room: Ledger, ledger: Ledger, usd: Decimal) -> None:
        self._room = room.reserve(usd)
        try:
            super().__init__(ledger, usd)
        except BudgetExceeded:
            self._room.release()
            raise
        self._ledger = ledger
        self._lost = self._taken = False
        self.made = False

    @property
    def owed(self) -> Decimal:
        """What is to be paid if nobody has use for the call."""
        return self.usd if self.made and (self.open or self._taken) else Decimal(0)

    def pay(self) -> None:
        """The call was made; unless it is lost already, who owes it is not known yet."""
        self.made = True
        if self._lost:
            self._spend()

    def waive(self) -> None:
        """The call was not made, or another pays."""
        super().waive()
        if not self._taken:
            self._room.release()

    def hand_over(self) -> None:
        """The call is asked for: whoever asked pays, if it has use for it."""
        self._taken = True
        self.waive()

    def use(self) -> None:
        """Whoever asked for the call had use for it."""
        self._room.release()

    def lose(self) -> None:
        """Nobody asked for the call, or whoever took it over had no use for it."""
        self._lost = True
        if self._taken and self.made:
            self._ledger.reserve().settle(self.usd)
            self._room.settle(self.usd)
        elif self._taken:
            self._room.release()

    def end(self) -> None:
        """The guess is over: a call that was made and lost is paid for."""
        if not self.made:
            self.waive()
        elif self._lost:
            self._spend()

    def _spend(self) -> None:
        if self.open:
            super().pay()
            self._room.settle(self.usd)
