"""The ledger: nothing is spent that was not reserved, and no child spends past its parent.

Reserve before a call, settle after it. What is reserved counts as gone, for the ledger and for
every ledger above it, so that concurrent calls together stay within the limit. Time is not
reserved, for it passes anyway: what is asked for must be left.
"""

from __future__ import annotations

import decimal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from agentflow.budgets.budget import Budget, whole
from agentflow.errors import BudgetExceeded, DefinitionError
from agentflow.money import dollars

# Sums are exact whatever the application has set for its own arithmetic.
_EXACT = decimal.Context(prec=100, traps=[decimal.Inexact, decimal.InvalidOperation])


@dataclass(frozen=True, slots=True)
class Amount:
    """Money and tokens together."""

    usd: Decimal = Decimal(0)
    tokens: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(_EXACT.add(self.usd, other.usd), self.tokens + other.tokens)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(_EXACT.subtract(self.usd, other.usd), self.tokens - other.tokens)


NOTHING = Amount()


@dataclass(frozen=True, slots=True)
class Left:
    """What can still be reserved; None is without limit, negative is overspent.

    Attributes:
        usd: US dollars.
        tokens: Tokens.
        seconds: Until the deadline, never negative.
    """

    usd: Decimal | None
    tokens: int | None
    seconds: float | None = None


class Ledger:
    """Keeps what was spent and what is reserved within a budget. Safe to use from threads.

    Args:
        budget: The limits; none by default.
        name: Whose it is, for messages.

    Raises:
        DefinitionError: It is no `Budget`.

    Attributes:
        budget: As given.
        spent: What was settled, here and in all children.
        reserved: What is reserved and not yet settled, here and in all children.
        deadline: When its time is over, or the time of one above, on the clock that `begin` was
            given; None for never.
        least_chance: What the budget whose deadline that is says of calls that will be late.
    """

    def __init__(self, budget: Budget | None = None, name: str = "") -> None:
        if budget is not None and not isinstance(budget, Budget):
            raise DefinitionError(f"budget={budget!r}: write a Budget, such as Budget(usd=0.05)")
        self.budget = budget or Budget()
        self._name = name
        self.spent = NOTHING
        self.reserved = NOTHING
        self.deadline: float | None = None
        self.least_chance = self.budget.least_chance
        self._clock: Callable[[], float] = float  # 0 until time counts
        self._began: float | None = None
        self._parent: Ledger | None = None
        self._firm = NOTHING  # of what is reserved, what is sure to be spent
        self._waiting: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    def child(self, budget: Budget | None = None, name: str = "") -> Ledger:
        """A ledger whose reservations count here too, so that both limits hold."""
        ledger = Ledger(budget, name)
        ledger._parent = self
        ledger._lock = self._lock
        return ledger

    def begin(self, clock: Callable[[], float], *, before: float = 0.0) -> None:
        """Time counts from now on, here and in every ledger above where it does not yet.

        Args:
            clock: Seconds, readable from any thread, such as ``loop.time``.
            before: Seconds that have counted here already.
        """
        with self._lock:
            for ledger in reversed(self._chain()):
                if ledger._began is None:
                    ledger._start(clock, before if ledger is self else 0.0)

    def put_off(self, seconds: float) -> None:
        """Seconds have passed that do not count here; a deadline above stays where it is."""
        with self._lock:
            if self._began is not None:
                self._began += seconds
            if self.deadline is not None:
                above = None if self._parent is None else self._parent.deadline
                later = self.deadline + seconds
                self.deadline = later if above is None else min(later, above)

    def carry(self, usd: Decimal, tokens: int, counted: Amount = NOTHING) -> None:
        """Count what was spent before, here and in every ledger above, whether it fits or not.

        Args:
            usd: US dollars.
            tokens: Tokens.
            counted: What the ledgers above have counted of it already, or will when what is
                reserved is settled. Where that is more, it holds here too.
        """
        with self._lock:
            spent = Amount(max(usd, counted.usd), max(tokens, counted.tokens))
            self.spent += spent
            for ledger in self._chain()[1:]:
                ledger.spent += spent - counted

    @property
    def elapsed(self) -> float:
        """Seconds since time counts here; 0 if it does not yet."""
        return self._clock() - (self._began or 0.0)

    @property
    def left(self) -> Left:
        """What can still be reserved here: the least of what any ledger above has left."""
        with self._lock:
            every = [ledger._own() for ledger in self._chain()]
        return Left(
            _least([left.usd for left in every]),
            _least([left.tokens for left in every]),
            _least([left.seconds for left in every]),
        )

    def reserve(
        self,
        usd: Decimal | float | str = 0,
        tokens: int = 0,
        *,
        seconds: float = 0.0,
        firm: bool = False,
    ) -> Reservation:
        """Set an amount aside, here and in every ledger above.

        Args:
            usd: US dollars.
            tokens: Tokens.
            seconds: That must be left until the deadline; they are not set aside.
            firm: All of it is going to be spent: nobody waits for it to come back.

        Raises:
            BudgetExceeded: It does not fit; nothing was set aside.
            ValueError: The amount is negative, or no amount.
        """
        amount = _amount(usd, tokens)
        if not seconds >= 0:
            raise ValueError(f"seconds cannot be {seconds}")
        with self._lock:
            self._take(amount, seconds, firm=firm)
        return Reservation(self, amount, firm=firm)

    def when_returned(
        self, callback: Callable[[], object], *, mine: Amount = NOTHING, scarce: bool = False
    ) -> bool:
        """Call back, once, when a limit that kept something back from the caller has it again.

        Args:
            callback: Called from whatever thread gives it back.
            mine: What the caller itself has set aside.
            scarce: Only if others have set at least as much aside as is left.

        Returns:
            Whether others have set something aside; if not, nobody is called.
        """
        with self._lock:
            keepers = [ledger for ledger in self._chain() if ledger._keeps(mine, scarce)]
            if keepers:
                keepers[-1]._waiting.append(callback)  # it hears of all that is below it
        return bool(keepers)

    def _keeps(self, mine: Amount, scarce: bool) -> bool:
        """Whether of what is limited here others have set aside what may come back."""
        others, left = self.reserved - self._firm - mine, self._own()
        usd = left.usd is not None and others.usd > 0 and (not scarce or others.usd >= left.usd)
        few = left.tokens is not None and (not scarce or others.tokens >= left.tokens)
        return usd or (few and others.tokens > 0)

    def _start(self, clock: Callable[[], float], before: float) -> None:
        self._clock, self._began, above = clock, clock() - before, self._parent
        if self.budget.deadline is not None:
            self.deadline = self._began + self.budget.deadline
        if above is None or above.deadline is None:
            return
        if self.deadline is None or above.deadline < self.deadline:
            self.deadline, self.least_chance = above.deadline, above.least_chance

    def _take(self, amount: Amount, seconds: float = 0.0, *, firm: bool = False) -> None:
        for ledger in self._chain():
            ledger._check(amount, seconds)
        for ledger in self._chain():
            ledger.reserved += amount
            ledger._firm += amount if firm else NOTHING

    def _turn(self, reserved: Amount, spent: Amount, firm: bool) -> list[Callable[[], object]]:
        """Give a reservation back, and count what was spent of it; who is to be told."""
        told: list[Callable[[], object]] = []
        for ledger in self._chain():
            ledger.reserved -= reserved
            ledger._firm -= reserved if firm else NOTHING
            ledger.spent += spent
            told += ledger._waiting
            ledger._waiting.clear()
        return told

    def _chain(self) -> list[Ledger]:
        chain, ledger = [], self
        while True:
            chain.append(ledger)
            if ledger._parent is None:
                return chain
            ledger = ledger._parent

    def _own(self) -> Left:
        """What this ledger has left, whatever the ones above have."""
        gone, limit = self.spent + self.reserved, self.budget
        return Left(
            None if limit.usd is None else _EXACT.subtract(limit.usd, gone.usd),
            None if limit.tokens is None else limit.tokens - gone.tokens,
            None if limit.deadline is None else max(0.0, limit.deadline - self.elapsed),
        )

    def _check(self, amount: Amount, seconds: float) -> None:
        left = self._own()
        if left.usd is not None and amount.usd > max(left.usd, Decimal(0)):
            raise self._exceeded(amount.usd, left.usd, "usd")
        if left.tokens is not None and amount.tokens > max(left.tokens, 0):
            raise self._exceeded(amount.tokens, left.tokens, "tokens")
        if left.seconds is not None and seconds > left.seconds:
            raise self._late(seconds, left.seconds)

    @property
    def _of(self) -> str:
        return f" to {self._name}" if self._name else ""

    def _exceeded(self, asked: Any, left: Any, unit: str) -> BudgetExceeded:
        limit, spent, reserved = (
            _written(getattr(place, unit)) for place in (self.budget, self.spent, self.reserved)
        )
        return BudgetExceeded(
            f"{_written(asked)} {unit} do not fit: {_written(left)} of {limit} are left{self._of} "
            f"({spent} spent, {reserved} reserved); raise the limit with Budget({unit}=...)",
            asked=asked,
            left=left,
            unit=unit,
            when_spent=self.budget.when_spent,
        )

    def _late(self, asked: float, left: float) -> BudgetExceeded:
        return BudgetExceeded(
            f"{asked:.5g} s do not fit: {left:.5g} of {self.budget.deadline:g} s are left{self._of}; "
            "allow more with Budget(deadline=...)",
            asked=asked,
            left=left,
            unit="seconds",
            when_spent=self.budget.when_spent,
        )


class Reservation:
    """An amount set aside; it is settled or released once.

    Attributes:
        amount: What is set aside; nothing once it is settled or released.
    """

    def __init__(self, ledger: Ledger, amount: Amount, *, firm: bool = False) -> None:
        self._ledger = ledger
        self._firm = firm
        self._open = True
        self.amount = amount

    def settle(self, usd: Decimal | float | str = 0, tokens: int = 0) -> None:
        """Count what was really spent, and give the rest back.

        More than was reserved is recorded as it is, and may leave less than nothing.

        Raises:
            ValueError: It was settled or released before, or the amount is negative.
        """
        spent = _amount(usd, tokens)
        with self._ledger._lock:
            if not self._open:
                raise ValueError("this reservation is already settled or released")
            told = self._close(spent)
        for tell in told:
            tell()

    def release(self) -> None:
        """Give everything back. Does nothing once it is settled or released."""
        with self._ledger._lock:
            told = self._close(NOTHING) if self._open else []
        for tell in told:
            tell()

    def extend(self, usd: Decimal | float | str = 0, tokens: int = 0) -> None:
        """Set more aside.

        Raises:
            BudgetExceeded: It does not fit; the reservation is as it was.
            ValueError: It was settled or released before, or the amount is negative.
        """
        more = _amount(usd, tokens)
        with self._ledger._lock:
            if not self._open:
                raise ValueError("this reservation is already settled or released")
            self._ledger._take(more, firm=self._firm)
            self.amount += more

    def _close(self, spent: Amount) -> list[Callable[[], object]]:
        told = self._ledger._turn(self.amount, spent, self._firm)
        self._open = False
        self.amount = NOTHING
        return told


def _amount(usd: Decimal | float | str, tokens: int) -> Amount:
    return Amount(dollars(usd), whole(tokens))


def _written(amount: Decimal | int) -> str:
    """An amount in digits, never as ``1E-7``."""
    return f"{amount:f}" if amount and isinstance(amount, Decimal) else f"{int(amount)}"


def _least(limits: list[Any]) -> Any:
    return min((limit for limit in limits if limit is not None), default=None)
