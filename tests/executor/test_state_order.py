"""Which call starts when: values, windows, gates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentflow.executor.state.gates import Gate
from agentflow.planner.plan import Each, Join, Node, Ref

if TYPE_CHECKING:
    from tests.executor.conftest import Machine


def test_a_chain_runs_one_call_after_another(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b", (Ref(0),)), Node("c", (Ref(1),)))
    assert m.running == {0}
    assert m.finish(0) == ["start 1"]
    assert m.finish(1) == ["start 2"]
    assert m.finish(2) == []
    m.check_over()


def test_a_diamond_starts_both_sides_at_once_and_its_end_after_both(
    machine: type[Machine],
) -> None:
    m = machine(Node("a"), Node("b", (Ref(0),)), Node("c", (Ref(0),)), Node("d", (Ref(1), Ref(2))))
    assert m.finish(0) == ["start 1", "start 2"]
    assert m.finish(2) == []
    assert m.finish(1) == ["start 3"]


def test_a_value_used_twice_is_waited_for_once(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b", (Ref(0), [Ref(0, ("x",))]), (("k", Ref(0)),)))
    assert m.finish(0) == ["start 1"]


def test_a_slow_sibling_does_not_hold_up_other_branches(machine: type[Machine]) -> None:
    m = machine(Node("slow"), Node("a"), Node("b", (Ref(1),)), Node("c", (Ref(2),)))
    m.finish(1)
    m.finish(2)
    assert m.finish(3) == []
    assert m.words() == ["running", "done", "done", "done"]


def test_an_order_by_effects_waits_for_the_end_and_not_for_the_value(
    machine: type[Machine],
) -> None:
    m = machine(Node("write"), Node("read", after=(0,)))
    assert m.running == {0}
    assert m.fail(0) == ["settle 0", "start 1"]


def test_a_call_that_only_comes_after_runs_after_a_skipped_one_too(
    machine: type[Machine],
) -> None:
    m = machine(Node("a"), Node("write", guard=Ref(0)), Node("read", after=(1,)))
    assert m.finish(0, False) == ["settle 1", "start 2"]


def test_who_comes_after_a_call_that_was_lost_comes_after_what_that_came_after(
    machine: type[Machine],
) -> None:
    write, lost, read = (
        Node("write"),
        Node("write", (Ref(0),), after=(1,)),
        Node("read", after=(2,)),
    )
    m = machine(Node("a"), write, lost, read)
    m.fail(0)
    assert m.words() == ["failed", "running", "failed", "waiting"]
    assert m.extend(Node("read", after=(2,)), Node("lost", (Ref(0),), after=(2,))) == ["settle 5"]
    assert m.extend(Node("read", after=(5,))) == []
    assert m.finish(1) == ["start 3", "start 4", "start 6"]


def test_who_comes_after_a_map_comes_after_its_elements_although_it_has_ended(
    machine: type[Machine],
) -> None:
    m = machine(Node("a"), Node("m", (Each(Ref(0)),), join=Join("first")), Node("b", after=(1,)))
    m.finish(0, [1, 2])
    m.finish(3)
    assert m.words() == ["done", "done", "waiting"]
    assert m.extend(Node("c", after=(1,)), Node("d", (Ref(1),))) == ["start 6"]
    assert m.stopped(4) == ["settle 4", "start 2", "start 5"]


def test_a_map_that_comes_after_the_map_it_goes_over_waits_for_all_of_it(
    machine: type[Machine],
) -> None:
    m = machine(Node("a"), Node("m", (Each(Ref(0)),)), Node("n", (Each(Ref(1)),), after=(1,)))
    m.finish(0, [1, 2])
    assert m.finish(3) == []
    assert m.finish(4) == ["settle 1", "start 5", "start 6"]


def test_the_window_limits_what_runs_and_rank_decides_who_goes_first(
    machine: type[Machine],
) -> None:
    ranks = (1.0, 5.0, 3.0, 5.0)
    m = machine(*(Node("a", (n,), rank=rank) for n, rank in enumerate(ranks)), window=2)
    assert m.started == [1, 3]
    assert m.finish(3) == ["start 2"]
    assert m.finish(1) == ["start 0"]


def test_a_window_of_one_runs_a_wide_plan_call_by_call(machine: type[Machine]) -> None:
    m = machine(*(Node("a", (n,)) for n in range(50)), window=1)
    for slot in range(50):
        assert m.running == {slot}
        m.finish(slot)
    m.check_over()


def test_a_gate_limits_one_tool_and_lets_the_others_pass(machine: type[Machine]) -> None:
    m = machine(
        Node("a", rank=1.0), Node("a", rank=9.0), Node("a", rank=5.0), Node("b"),
        limits={"a": Gate(1)},
    )  # fmt: skip
    assert m.started == [0, 3]  # the gate was free when the first came
    assert m.finish(0) == ["start 1"]
    assert m.finish(1) == ["start 2"]


def test_a_gate_of_two_runs_is_handed_to_the_most_urgent_waiter(machine: type[Machine]) -> None:
    gate = Gate(1)
    one = machine(Node("a"), Node("a", rank=1.0), limits={"a": gate})
    two = machine(Node("a", rank=2.0), limits={"a": gate})
    assert one.finish(0) == ["wake 0"]
    assert two.running == {0} and not one.running
    assert two.finish(0) == ["wake 1"]
    assert one.running == {1}
    one.finish(1)
    one.check_over()
    two.check_over()


def test_a_dropped_waiter_is_passed_over_at_the_gate(machine: type[Machine]) -> None:
    gate = Gate(1)
    one = machine(Node("a"), limits={"a": gate})
    two = machine(Node("a", rank=2.0), Node("a", rank=1.0), limits={"a": gate})
    assert two.drop(0) == ["settle 0"]
    one.finish(0)
    assert two.running == {1}


def test_a_waiter_whose_window_is_full_lets_the_next_run_through(machine: type[Machine]) -> None:
    gate = Gate(1)
    one = machine(Node("a"), limits={"a": gate})
    full = machine(Node("a", rank=9.0), limits={"a": gate}, window=1)
    full.extend(Node("b"))
    other = machine(Node("a", rank=1.0), limits={"a": gate})
    one.finish(0)
    assert full.running == {1} and other.running == {0}
    full.halt()
    full.stopped(1)
    other.finish(0)
    full.check_over()
    other.check_over()


def test_a_call_dropped_while_it_is_being_woken_passes_the_place_on(
    machine: type[Machine],
) -> None:
    gate = Gate(1)
    one = machine(Node("a"), limits={"a": gate})
    two = machine(Node("a", rank=2.0), limits={"a": gate})
    three = machine(Node("a", rank=1.0), limits={"a": gate})
    woken: list[int] = []
    two.state.wake = woken.append
    one.finish(0)
    assert woken == [0] and not three.running
    two.drop(0)
    machine.wake(two, 0)
    assert three.running == {0}


def test_the_window_is_full_again_after_a_woken_call_came_back(machine: type[Machine]) -> None:
    gate = Gate(1)
    one = machine(Node("a"), limits={"a": gate})
    two = machine(Node("a"), limits={"a": gate}, window=1)
    two.extend(Node("b"))
    one.finish(0)
    assert two.running == {1}
    assert two.finish(1) == ["start 0"]
    two.finish(0)
    two.check_over()
