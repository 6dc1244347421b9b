"""The ledger stays within its limits under any interleaving, and records what happened."""

from __future__ import annotations

import decimal
import threading
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentflow.budgets import Amount, Budget, Ledger, Reservation
from agentflow.budgets.ledger import Left
from agentflow.errors import BudgetExceeded

CENTS = st.integers(0, 60).map(lambda n: Decimal(n) / 100)
TOKENS = st.integers(0, 60)


def test_what_is_reserved_counts_as_gone_until_it_is_settled() -> None:
    ledger = Ledger(Budget(usd="0.10", tokens=100))

    held = ledger.reserve(usd="0.06", tokens=60)
    assert (ledger.reserved, ledger.spent) == (Amount(Decimal("0.06"), 60), Amount())
    assert (ledger.left.usd, ledger.left.tokens) == (Decimal("0.04"), 40)

    held.settle(usd="0.02", tokens=10)
    assert (ledger.reserved, ledger.spent) == (Amount(), Amount(Decimal("0.02"), 10))
    assert (ledger.left.usd, ledger.left.tokens) == (Decimal("0.08"), 90)


def test_what_does_not_fit_is_refused_with_what_was_asked_and_left() -> None:
    ledger = Ledger(Budget(usd="0.10", tokens=100))
    ledger.reserve(usd="0.06", tokens=60).settle(usd="0.05")
    ledger.reserve(usd="0.02")

    with pytest.raises(BudgetExceeded, match=r"0\.04 usd do not fit: 0\.03 of 0\.10") as refused:
        ledger.reserve(usd="0.04")
    assert (refused.value.asked, refused.value.left) == (Decimal("0.04"), Decimal("0.03"))
    assert refused.value.unit == "usd"

    with pytest.raises(BudgetExceeded, match="tokens") as refused:
        ledger.reserve(tokens=101)
    assert (refused.value.asked, refused.value.left, refused.value.unit) == (101, 100, "tokens")


def test_exactly_what_is_left_fits() -> None:
    ledger = Ledger(Budget(usd="0.3"))

    for _ in range(3):
        ledger.reserve(usd=0.1)

    assert ledger.left.usd == 0


def test_without_a_limit_everything_fits_and_is_counted() -> None:
    ledger = Ledger()
    ledger.reserve(usd=1000, tokens=10**9).settle(usd=1, tokens=5)

    assert (ledger.left.usd, ledger.left.tokens) == (None, None)
    assert ledger.spent == Amount(Decimal(1), 5)


def test_a_refused_reservation_leaves_no_trace_anywhere() -> None:
    parent = Ledger(Budget(tokens=10))
    child = parent.child(Budget(tokens=100, usd=1))

    with pytest.raises(BudgetExceeded):
        child.reserve(usd="0.5", tokens=11)

    assert parent.reserved == child.reserved == Amount()


def test_a_child_has_no_more_than_its_parent_has_left() -> None:
    parent = Ledger(Budget(usd=1))
    held = parent.reserve(usd="0.7")
    child = parent.child(Budget(usd=5))

    assert child.left.usd == Decimal("0.3")
    with pytest.raises(BudgetExceeded) as refused:
        child.reserve(usd="0.4")
    assert refused.value.left == Decimal("0.3")

    held.release()
    child.reserve(usd="0.4").settle(usd="0.4")
    assert parent.spent == child.spent == Amount(Decimal("0.4"))


def test_a_child_keeps_its_own_limit() -> None:
    parent = Ledger(Budget(usd=1))
    child = parent.child(Budget(usd="0.2"))
    sibling = parent.child()

    with pytest.raises(BudgetExceeded):
        child.reserve(usd="0.3")
    sibling.reserve(usd="0.9")
    assert child.left.usd == Decimal("0.1")


def test_settling_above_the_reservation_is_recorded_as_it_is() -> None:
    ledger = Ledger(Budget(usd=1))
    ledger.reserve(usd="0.9").settle(usd="1.2")

    assert ledger.spent.usd == Decimal("1.2")
    assert ledger.left.usd == Decimal("-0.2")
    with pytest.raises(BudgetExceeded):
        ledger.reserve(usd="0.01")
    ledger.reserve()  # nothing always fits


def test_extending_takes_more_or_changes_nothing() -> None:
    ledger = Ledger(Budget(usd=1))
    held = ledger.reserve(usd="0.5")

    held.extend(usd="0.4", tokens=3)
    with pytest.raises(BudgetExceeded):
        held.extend(usd="0.2")

    assert held.amount == ledger.reserved == Amount(Decimal("0.9"), 3)
    held.release()
    assert ledger.reserved == Amount()


def test_a_reservation_is_closed_once() -> None:
    ledger = Ledger(Budget(usd=1))
    held = ledger.reserve(usd="0.5")
    held.settle(usd="0.1")
    held.release()

    with pytest.raises(ValueError, match="already"):
        held.settle(usd="0.1")
    with pytest.raises(ValueError, match="already"):
        held.extend(usd="0.1")
    assert (ledger.spent, ledger.reserved) == (Amount(Decimal("0.1")), Amount())


@pytest.mark.parametrize("amount", [{"usd": -1}, {"tokens": -1}, {"usd": "x"}])
def test_a_negative_amount_is_an_error(amount: dict[str, Any]) -> None:
    ledger = Ledger()
    with pytest.raises(ValueError):
        ledger.reserve(**amount)
    with pytest.raises(ValueError):
        ledger.reserve().settle(**amount)


def test_sums_are_exact_whatever_the_application_rounds_to() -> None:
    ledger = Ledger(Budget(usd="100000000000"))
    with decimal.localcontext(prec=3):
        ledger.reserve(usd="12345678901.000000000000000000001").settle(
            usd="12345678901.000000000000000000001"
        )
        ledger.reserve(usd="0.000000000000000000000000001")
        left = ledger.left.usd

    assert left == Decimal("87654321098.999999999999999999998999999")


class Interleavings(RuleBasedStateMachine):
    """Reservations of a tree of ledgers, opened, grown and closed in any order."""

    @initialize(usd=CENTS, tokens=TOKENS)
    def open_root(self, usd: Decimal, tokens: int) -> None:
        self.ledgers = [Ledger(Budget(usd=usd, tokens=tokens))]
        self.parents: list[int | None] = [None]
        self.held: list[tuple[int, Reservation, Amount]] = []
        self.settled: list[tuple[int, Amount]] = []

    @rule(data=st.data(), usd=st.none() | CENTS, tokens=st.none() | TOKENS)
    def add_child(self, data: st.DataObject, usd: Decimal | None, tokens: int | None) -> None:
        parent = data.draw(st.integers(0, len(self.ledgers) - 1))
        self.parents.append(parent)
        self.ledgers.append(self.ledgers[parent].child(Budget(usd=usd, tokens=tokens)))

    @rule(data=st.data(), usd=CENTS, tokens=TOKENS)
    def reserve(self, data: st.DataObject, usd: Decimal, tokens: int) -> None:
        place = data.draw(st.integers(0, len(self.ledgers) - 1))
        ledger = self.ledgers[place]
        left = ledger.left
        fits = (left.usd is None or usd <= left.usd) and (
            left.tokens is None or tokens <= left.tokens
        )
        try:
            self.held.append((place, ledger.reserve(usd, tokens), Amount(usd, tokens)))
        except BudgetExceeded:
            assert not fits
        else:
            assert fits

    @precondition(lambda self: self.held)
    @rule(data=st.data(), usd=CENTS, tokens=TOKENS)
    def extend(self, data: st.DataObject, usd: Decimal, tokens: int) -> None:
        index = data.draw(st.integers(0, len(self.held) - 1))
        place, reservation, amount = self.held[index]
        try:
            reservation.extend(usd, tokens)
        except BudgetExceeded:
            return
        self.held[index] = place, reservation, amount + Amount(usd, tokens)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), whole=st.booleans())
    def settle(self, data: st.DataObject, whole: bool) -> None:
        place, reservation, amount = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        spent = amount if whole else Amount(tokens=amount.tokens // 2)
        reservation.settle(spent.usd, spent.tokens)
        self.settled.append((place, spent))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))[1].release()

    @invariant()
    def no_limit_is_passed(self) -> None:
        for ledger in getattr(self, "ledgers", []):
            gone = ledger.spent + ledger.reserved
            assert ledger.budget.usd is None or gone.usd <= ledger.budget.usd
            assert ledger.budget.tokens is None or gone.tokens <= ledger.budget.tokens

    @invariant()
    def every_ledger_knows_of_all_below_it(self) -> None:
        for place, ledger in enumerate(getattr(self, "ledgers", [])):
            spent = [amount for where, amount in self.settled if self.is_within(where, place)]
            held = [amount for where, _, amount in self.held if self.is_within(where, place)]
            assert ledger.spent == sum(spent, Amount())
            assert ledger.reserved == sum(held, Amount())

    def is_within(self, place: int | None, above: int) -> bool:
        while place is not None and place != above:
            place = self.parents[place]
        return place == above


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=60, stateful_step_count=30)


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_threads_together_stay_within_the_limit(seed: int) -> None:
    root = Ledger(Budget(usd="1.00", tokens=500))
    seen: list[Left] = []

    def work(random: Random) -> None:
        ledger = root.child(Budget(usd="0.60"))
        for _ in range(40):
            try:
                held = ledger.reserve(Decimal(random.randrange(30)) / 100, random.randrange(50))
            except BudgetExceeded:
                continue
            seen.append(root.left)
            held.settle(held.amount.usd / 5, held.amount.tokens // 5)

    threads = [threading.Thread(target=work, args=(Random(seed + n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(left.usd is not None and left.usd >= 0 for left in seen)
    assert all(left.tokens is not None and left.tokens >= 0 for left in seen)
    assert root.reserved == Amount()
    assert root.spent.usd <= 1 and root.spent.tokens <= 500


def test_whoever_waits_is_told_once_when_others_give_back() -> None:
    engine = Ledger(Budget(usd=1))
    one, other = engine.child(), engine.child(Budget(usd=1))
    told: list[str] = []
    held = other.reserve("0.6")

    assert one.when_returned(lambda: told.append("one"))
    held.settle("0.1")
    other.reserve("0.1").release()

    assert told == ["one"]


def test_nobody_waits_for_what_is_his_own_or_not_limited() -> None:
    free, engine = Ledger(), Ledger(Budget(usd=1))
    own, endless = engine.reserve("0.5"), free.reserve(5)

    assert not engine.when_returned(pytest.fail, mine=own.amount)
    assert not free.when_returned(pytest.fail)
    own.release()
    endless.release()


@pytest.mark.parametrize(("held", "waits"), [("0.5", True), ("0.4", False)])
def test_what_others_hold_may_be_too_little_to_wait_for(held: str, waits: bool) -> None:
    engine = Ledger(Budget(usd=1))
    engine.reserve(held)

    assert engine.when_returned(list, scarce=True) is waits


def test_so_it_is_with_tokens() -> None:
    engine = Ledger(Budget(tokens=100))
    held = engine.child().reserve(tokens=50)

    assert engine.child().when_returned(list, scarce=True)
    held.release()
    assert not engine.when_returned(list)
