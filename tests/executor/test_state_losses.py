"""Values that never come: failures, guards, skipped and cancelled calls, the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agentflow.errors import CallCancelled, CallSkipped, DependencyFailed
from agentflow.executor.state.gates import Gate
from agentflow.planner.plan import GATHER, Each, Join, Node, Ref

if TYPE_CHECKING:
    from tests.executor.conftest import Machine

FIRST = Join("first")
SETTLED = Join("settled")


class Untrue:
    """A value whose truth cannot be told, as of an array."""

    def __bool__(self) -> bool:
        raise ValueError("the truth value is ambiguous")

    @property
    def moody(self) -> Any:
        raise RuntimeError("not today")


# Failures


def test_whoever_needs_a_failed_value_fails_and_nobody_else(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b", (Ref(0),)), Node("c", (Ref(1),)), Node("d"))
    boom = ValueError("boom")
    assert m.fail(0, boom) == ["settle 0", "settle 1", "settle 2"]
    assert m.words() == ["failed", "failed", "failed", "running"]
    error = m.error(2)
    assert isinstance(error, DependencyFailed)
    assert error.__cause__ is boom and error.tool == "c" and error.node == 2
    assert str(error) == "c needs the value of b, which failed: ValueError: boom"


def test_only_failures_of_their_own_count_as_failures(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b", (Ref(0),)), Node("c"))
    m.finish(2, "kept")
    boom = ValueError("boom")
    m.fail(0, boom)
    assert m.state.failures() == {0: boom}
    assert m.state.results() == {2: "kept"}
    assert m.state.pending() == []


def test_a_chain_of_100_000_failing_at_its_head_neither_recurses_nor_piles_up_text(
    machine: type[Machine],
) -> None:
    m = machine()
    nodes = [Node("a")] + [Node("a", (Ref(n),)) for n in range(99_999)]
    m.extend(*nodes)
    boom = ValueError("boom")
    m.fail(0, boom)
    m.check_over()
    last = m.error(99_999)
    assert last.__cause__ is boom
    assert len(str(last)) < 100


def test_fail_fast_stops_what_runs_and_cancels_what_waits(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b"), Node("c", (Ref(1),)), fail_fast=True)
    assert m.fail(0) == ["settle 0", "stop 1", "settle 2"]
    assert m.state.first_failure == 0
    m.stopped(1)
    assert m.words() == ["failed", "cancelled", "cancelled"]
    assert m.state.pending() == [1, 2]
    m.check_over()


def test_fail_fast_spares_a_failure_that_every_user_tolerates(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b"), Node(GATHER, (Ref(0), Ref(1)), join=SETTLED), fail_fast=True)
    m.fail(0)
    m.finish(1)
    assert m.state.first_failure is None
    assert [outcome.status for outcome in m.value(2)] == ["failed", "done"]


def test_fail_fast_counts_a_failure_that_one_user_does_not_tolerate(
    machine: type[Machine],
) -> None:
    m = machine(
        Node("a"), Node("b"), Node(GATHER, (Ref(0), Ref(1)), join=FIRST), Node("c", (Ref(0),)),
        fail_fast=True,
    )  # fmt: skip
    assert "stop 1" in m.fail(0)
    m.stopped(1)
    m.check_over()


def test_a_call_that_was_ripe_when_the_run_failed_does_not_start(machine: type[Machine]) -> None:
    m = machine(
        Node("a"), Node("b", (Ref(0),)), Node("c", guard=Ref(0, ("missing",))), fail_fast=True
    )
    assert m.finish(0, {}) == ["settle 2", "settle 1"]
    m.check_over()


# Guards


@pytest.mark.parametrize("value", [True, 1, "no", [0], {"a": 0}])
def test_a_guard_lets_what_python_finds_true_through(machine: type[Machine], value: Any) -> None:
    m = machine(Node("a"), Node("b", guard=Ref(0)))
    assert m.finish(0, value) == ["start 1"]


@pytest.mark.parametrize("value", [False, 0, "", [], {}])
def test_a_guard_that_is_false_skips_the_call_and_its_users(
    machine: type[Machine], value: Any
) -> None:
    m = machine(Node("a"), Node("b", guard=Ref(0)), Node("c", (Ref(1),)))
    assert m.finish(0, value) == ["settle 1", "settle 2"]
    assert m.words() == ["done", "skipped", "skipped"]
    assert isinstance(m.error(2), CallSkipped)
    assert str(m.error(1)) == "b was skipped: its guard was false"
    assert str(m.error(2)) == "c needs the value of b, which was skipped"
    m.check_over()


def test_a_guard_follows_a_path(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b", guard=Ref(0, ("hits", 0, "good"))))
    assert m.finish(0, {"hits": [{"good": False}]}) == ["settle 1"]
    assert m.words() == ["done", "skipped"]


def test_a_guard_whose_path_leads_nowhere_fails_the_call(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b", guard=Ref(0, ("found",))))
    m.finish(0, {"other": 1})
    assert m.words() == ["done", "failed"]
    assert isinstance(m.error(1), LookupError)
    assert "there is no 'found'" in str(m.error(1))


def test_a_guard_whose_truth_cannot_be_told_fails_the_call(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b", guard=Ref(0)), Node("c", guard=Ref(0, ("moody",))))
    m.finish(0, Untrue())
    assert m.words() == ["done", "failed", "failed"]
    assert "ambiguous" in str(m.error(1)) and "not today" in str(m.error(2))
    m.check_over()


def test_a_guard_on_a_failed_value_fails_the_call(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b", guard=Ref(0)))
    m.fail(0)
    assert isinstance(m.error(1), DependencyFailed)


def test_a_guarded_gather_waits_for_its_guard(machine: type[Machine]) -> None:
    join = Node(GATHER, (Ref(0), Ref(1)), guard=Ref(2), join=FIRST)
    m = machine(Node("a"), Node("b"), Node("c"), join)
    m.finish(0, "one")
    assert m.words() == ["done", "running", "running", "waiting"]
    m.finish(2, True)
    m.stopped(1)
    assert m.value(3) == "one"
    m.check_over()


def test_a_gather_whose_guard_is_false_is_skipped(machine: type[Machine]) -> None:
    join = Node(GATHER, (Ref(0),), guard=Ref(1), join=FIRST)
    m = machine(Node("a"), Node("b"), join)
    m.finish(1, False)
    m.finish(0)
    assert m.word(2) == "skipped"


def test_a_gather_whose_guard_failed_fails(machine: type[Machine]) -> None:
    join = Node(GATHER, (Ref(0),), guard=Ref(1), join=SETTLED)
    m = machine(Node("a"), Node("b"), join)
    m.fail(1)
    m.finish(0)
    assert m.word(2) == "failed"


# Skipped inputs


def test_a_skipped_input_is_none_where_the_parameter_accepts_it(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b", guard=Ref(0)), Node("maybe", (Ref(1),)), nullable=["maybe"])
    assert m.finish(0, 0) == ["settle 1", "start 2"]
    m.finish(2)
    m.check_over()


def test_a_failed_input_is_no_none(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("maybe", (Ref(0),)), nullable=["maybe"])
    m.fail(0)
    assert m.words() == ["failed", "failed"]


def test_none_is_passed_too_when_the_skipped_call_is_of_an_earlier_segment(
    machine: type[Machine],
) -> None:
    m = machine(Node("a"), Node("b", guard=Ref(0)), nullable=["maybe"])
    m.finish(0, False)
    assert m.extend(Node("maybe", (Ref(1),)), Node("strict", (Ref(1),))) == ["settle 3", "start 2"]
    assert m.words()[2:] == ["running", "skipped"]


# Cancelled calls


def test_dropping_a_waiting_call_settles_it_and_its_users(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b", (Ref(0),)), Node("c", (Ref(1),)))
    assert m.drop(1) == ["settle 1", "settle 2"]
    assert m.words() == ["running", "cancelled", "cancelled"]
    assert isinstance(m.error(1), CallCancelled)
    assert m.finish(0) == []
    m.check_over()


def test_dropping_a_parked_call_takes_it_out_of_the_queue(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b"), Node("c"), window=1)
    assert m.drop(1) == ["settle 1"]
    assert m.finish(0) == ["start 2"]


def test_dropping_a_call_parked_at_a_gate_lets_the_next_through(machine: type[Machine]) -> None:
    m = machine(*(Node("a", (n,)) for n in range(3)), limits={"a": Gate(1)})
    m.drop(1)
    assert m.finish(0) == ["start 2"]
    m.finish(2)
    m.check_over()


def test_dropping_a_running_call_stops_it_first(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b", (Ref(0),)))
    assert m.drop(0) == ["stop 0"]
    assert m.words() == ["running", "waiting"]
    assert m.stopped(0) == ["settle 0", "settle 1"]
    assert m.words() == ["cancelled", "cancelled"]


def test_a_call_that_finishes_although_it_was_stopped_is_done(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b", (Ref(0),)))
    m.drop(0)
    assert m.finish(0, 1) == ["start 1"]


def test_dropping_a_settled_call_does_nothing(machine: type[Machine]) -> None:
    m = machine(Node("a"))
    m.finish(0)
    assert m.drop(0) == []


def test_a_late_report_of_a_settled_call_changes_nothing(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b"), Node("c", (Ref(0),)))
    m.drop(0)
    m.stopped(0)
    assert m.finish(0, "late") == m.fail(0) == m.stopped(0) == []
    assert m.words() == ["cancelled", "running", "cancelled"]
    assert m.state.values[0] is None


def test_a_report_of_a_call_that_never_ran_changes_nothing(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b", (Ref(0),)))
    assert m.finish(1) == []
    assert m.words() == ["running", "waiting"]


# The end of a run


def test_halting_stops_what_runs_and_cancels_the_rest(machine: type[Machine]) -> None:
    nodes = [Node("a"), Node("a"), Node("b"), Node("c", (Ref(0),)), Node("m", (Each(Ref(3)),))]
    m = machine(*nodes, window=2, limits={"a": Gate(1)})
    assert m.words() == ["running", "parked", "running", "waiting", "waiting"]
    assert m.halt() == ["stop 0", "stop 2", "settle 1", "settle 3", "settle 4"]
    assert m.halt() == []
    m.stopped(0)
    m.stopped(2)
    m.check_over()


def test_halting_while_a_map_runs_cancels_its_elements(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("m", (Each(Ref(0)),)), limits={"m": Gate(1)})
    m.finish(0, [1, 2, 3])
    m.halt()
    m.stopped(2)
    assert m.words() == ["done", "cancelled"]
    m.check_over()


def test_what_joins_a_halted_run_is_cancelled(machine: type[Machine]) -> None:
    m = machine(Node("a"))
    m.halt()
    m.stopped(0)
    m.extend(Node("b"), Node("c", (Ref(1),)), Node("m", (Each((1, 2)),)), Node("d", (Ref(0),)))
    assert m.words() == ["cancelled"] * 5
    m.check_over()


def test_a_call_woken_at_a_gate_after_its_run_was_halted_does_not_start(
    machine: type[Machine],
) -> None:
    gate = Gate(1)
    one = machine(Node("a"), limits={"a": gate})
    two = machine(Node("a"), Node("b"), limits={"a": gate})
    two.halt()
    one.finish(0)
    two.stopped(1)
    two.check_over()
    assert gate.free == 1
