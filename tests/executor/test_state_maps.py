"""Maps: one call for every element, as soon as it can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agentflow.errors import CallCancelled, DependencyFailed
from agentflow.executor.state.bind import bind_arguments
from agentflow.executor.state.gates import Gate
from agentflow.planner.plan import ALL, GATHER, Arg, Each, Join, Node, Ref

if TYPE_CHECKING:
    from tests.executor.conftest import Machine

FIRST = Join("first")
SETTLED = Join("settled")


def mapped(source: Arg, *more: Arg, join: Join | None = None, tool: str = "m") -> Node:
    return Node(tool, (Each(source), *more), join=join or Join())


def over(machine: type[Machine], count: int, join: Join | None = None, **options: Any) -> Machine:
    """A call in slot 0, a map over it in slot 1, and its elements from slot 2 on."""
    m = machine(Node("a"), mapped(Ref(0), join=join), **options)
    m.finish(0, list(range(count)))
    return m


def arguments(m: Machine, slot: int) -> list[Any]:
    return bind_arguments(m.state, m.state.nodes[slot])[0]


def test_every_element_is_called_with_its_item(machine: type[Machine]) -> None:
    m = machine(Node("a"), mapped(Ref(0), "x"))
    assert m.finish(0, [10, 20]) == ["start 2", "start 3"]
    assert [arguments(m, slot) for slot in (2, 3)] == [[10, "x"], [20, "x"]]
    assert [m.state.where(slot) for slot in (1, 2, 3)] == [(1, None), (1, 0), (1, 1)]


def test_the_values_are_in_the_order_of_the_input(machine: type[Machine]) -> None:
    m = over(machine, 3)
    for slot in (4, 2, 3):
        m.finish(slot)
    assert m.value(1) == ["v2", "v3", "v4"]
    m.check_over()


@pytest.mark.parametrize("join", [Join(), SETTLED])
def test_a_map_over_nothing_is_an_empty_list(machine: type[Machine], join: Join) -> None:
    m = over(machine, 0, join)
    assert m.value(1) == []
    m.check_over()


def test_a_literal_list_is_gone_over_too(machine: type[Machine]) -> None:
    m = machine(mapped((1, 2)))
    m.finish(1)
    m.finish(2)
    assert m.value(0) == ["v1", "v2"]


def test_a_path_with_a_star_says_what_to_go_over(machine: type[Machine]) -> None:
    m = machine(Node("a"), mapped(Ref(0, ("hits", ALL, "url"))), mapped(Ref(0, ("hits",))))
    m.finish(0, {"hits": [{"url": "u"}, {"url": "v"}]})
    items = [arguments(m, slot)[0] for slot in (3, 4, 5, 6)]
    assert items == ["u", "v", {"url": "u"}, {"url": "v"}]


def test_several_lists_go_in_step(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("m", (Each(Ref(0)),), (("k", Each(("x", "y"))),)))
    m.finish(0, [1, 2])
    nodes = [m.state.nodes[slot] for slot in (2, 3)]
    assert [bind_arguments(m.state, node) for node in nodes] == [
        ([1], {"k": "x"}),
        ([2], {"k": "y"}),
    ]


def test_lists_of_unequal_lengths_fail_the_map(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("m", (Each(Ref(0)), Each((1, 2, 3)))))
    m.finish(0, [1, 2])
    assert m.word(1) == "failed" and len(m.state.nodes) == 2
    assert str(m.error(1)) == (
        "several 'each' arguments go in step, but their lists have 2, 3 elements"
    )


@pytest.mark.parametrize(
    ("value", "kind"), [(None, "null"), ({"a": 1}, "dict"), ("text", "str"), ({1, 2}, "set")]
)
def test_only_lists_and_tuples_are_gone_over(machine: type[Machine], value: Any, kind: str) -> None:
    m = machine(Node("a"), mapped(Ref(0)))
    m.finish(0, value)
    assert m.word(1) == "failed"
    assert "needs a list" in str(m.error(1)) and kind in str(m.error(1))
    m.check_over()


def test_the_elements_of_a_map_share_window_and_gate(machine: type[Machine]) -> None:
    m = over(machine, 5, limits={"m": Gate(2)}, window=3)
    assert m.running == {2, 3}
    m.finish(3)
    assert m.running == {2, 4}
    for slot in (2, 4, 5, 6):
        m.finish(slot)
    m.check_over()


def test_one_failed_element_fails_the_map_and_cancels_the_others(machine: type[Machine]) -> None:
    m = over(machine, 3, limits={"m": Gate(2)})
    boom = ValueError("boom")
    assert m.fail(2, boom) == ["start 4", "settle 2", "settle 1", "stop 3", "stop 4"]
    assert m.error(1) is boom
    m.stopped(3)
    m.stopped(4)
    assert isinstance(m.state.errors[4], CallCancelled)
    m.check_over()


def test_a_settled_map_says_how_each_element_ended(machine: type[Machine]) -> None:
    m = over(machine, 3, SETTLED)
    m.fail(3)
    m.drop(4)
    m.stopped(4)
    m.finish(2)
    assert [outcome.status for outcome in m.value(1)] == ["done", "failed", "cancelled"]
    m.check_over()


def test_the_first_element_is_enough_for_first(machine: type[Machine]) -> None:
    m = over(machine, 3, FIRST)
    m.fail(2)
    m.finish(4)
    assert m.value(1) == "v4" and m.stopping == {3}


def test_a_quorum_of_elements_is_in_the_order_of_the_input(machine: type[Machine]) -> None:
    m = over(machine, 4, Join("quorum", 2))
    m.finish(5)
    m.finish(3)
    assert m.value(1) == ["v3", "v5"] and m.stopping == {2, 4}


def test_a_policy_that_can_no_longer_be_met_fails_the_map(machine: type[Machine]) -> None:
    m = over(machine, 3, Join("quorum", 2))
    boom = ValueError("boom")
    m.fail(3, boom)
    assert m.word(1) == "parked"
    m.fail(2)
    assert m.word(1) == "failed"
    assert m.error(1).__cause__ is None and "boom 2" in str(m.error(1))


@pytest.mark.parametrize(
    ("join", "count", "text"),
    [(FIRST, 0, "first of 0 elements"), (Join("quorum", 3), 2, "quorum(3) of 2 elements")],
)
def test_a_policy_that_asks_for_more_than_there_is_fails_at_once(
    machine: type[Machine], join: Join, count: int, text: str
) -> None:
    m = over(machine, count, join)
    assert m.word(1) == "failed" and text in str(m.error(1))
    for slot in sorted(m.stopping):
        m.stopped(slot)
    m.check_over()


def test_a_false_guard_skips_the_map_before_it_has_elements(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("g"), Node("m", (Each(Ref(0)),), guard=Ref(1)))
    m.finish(0, [1, 2])
    assert m.finish(1, False) == ["settle 2"]
    m.check_over()


def test_a_map_over_a_skipped_value_is_skipped(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b", guard=Ref(0)), mapped(Ref(1)))
    m.finish(0, False)
    assert m.word(2) == "skipped"


def test_dropping_a_map_stops_its_elements(machine: type[Machine]) -> None:
    m = over(machine, 2)
    assert m.drop(1) == ["settle 1", "stop 2", "stop 3"]
    m.stopped(2)
    m.finish(3)
    assert m.words() == ["done", "cancelled"]
    m.check_over()


# Maps over maps


def test_an_element_starts_when_its_own_input_is_there(machine: type[Machine]) -> None:
    m = machine(Node("a"), mapped(Ref(0)), mapped(Ref(1, (ALL, "x")), tool="n"))
    m.finish(0, [1, 2])
    assert m.words() == ["done", "parked", "parked"]
    assert m.finish(4, {"x": 7}) == ["start 6"]
    assert arguments(m, 6) == [7]
    m.finish(6)
    m.finish(3, {"x": 6})
    m.finish(5)
    assert m.value(2) == ["v5", "v6"]
    m.check_over()


def test_maps_are_pipelined_through_several_stages(machine: type[Machine]) -> None:
    m = machine(Node("a"), mapped(Ref(0)), mapped(Ref(1)), mapped(Ref(2)))
    m.finish(0, [1, 2])
    for slot in (4, 6, 8):  # the first element, through all three
        assert m.running == {slot, 5}
        m.finish(slot)
    assert m.running == {5}


def test_a_map_over_an_empty_map_is_empty(machine: type[Machine]) -> None:
    m = machine(Node("a"), mapped(Ref(0)), mapped(Ref(1)), mapped(Ref(2)))
    m.finish(0, [])
    assert [m.value(n) for n in (1, 2, 3)] == [[], [], []]
    m.check_over()


def test_a_map_that_needs_the_whole_list_too_waits_for_it(machine: type[Machine]) -> None:
    m = machine(Node("a"), mapped(Ref(0)), Node("n", (Each(Ref(1)), Ref(1))))
    m.finish(0, [1, 2])
    assert m.finish(3) == []
    assert m.finish(4) == ["settle 1", "start 5", "start 6"]
    assert arguments(m, 6) == ["v4", ["v3", "v4"]]


def test_a_map_in_step_with_a_plain_list_is_pipelined_too(machine: type[Machine]) -> None:
    m = machine(Node("a"), mapped(Ref(0)), Node("b"), Node("n", (Each(Ref(1)), Each(Ref(2)))))
    m.finish(0, [1, 2])
    m.finish(2, ["x", "y"])
    assert m.finish(5) == ["start 7"]
    assert arguments(m, 7) == ["v5", "y"]


def test_a_map_joined_later_follows_a_running_map_element_by_element(
    machine: type[Machine],
) -> None:
    m = over(machine, 3)
    m.finish(2)
    assert m.extend(mapped(Ref(1), tool="n")) == ["start 6"]
    assert m.words() == ["done", "parked", "parked"]
    assert m.finish(4) == ["start 8"]
    assert m.finish(3) == ["settle 1", "start 7"]
    for slot in (6, 7, 8):
        m.finish(slot)
    assert m.value(2) == ["v6", "v7", "v8"]
    m.check_over()


@pytest.mark.parametrize("join", [Join(), SETTLED, FIRST])
def test_a_failed_map_fails_the_map_over_it_whatever_its_policy(
    machine: type[Machine], join: Join
) -> None:
    m = machine(Node("a"), mapped(Ref(0)), mapped(Ref(1), join=join, tool="n"))
    m.finish(0, [1, 2])
    boom = ValueError("boom")
    m.fail(3, boom)
    for slot in sorted(m.stopping):
        m.stopped(slot)
    error = m.error(2)
    assert isinstance(error, DependencyFailed) and error.__cause__ is boom
    m.check_over()


def test_the_last_element_to_fail_fails_a_settled_map_over_it_as_well(
    machine: type[Machine],
) -> None:
    m = machine(Node("a"), mapped(Ref(0)), mapped(Ref(1), join=SETTLED, tool="n"))
    m.finish(0, [1, 2])
    m.finish(3)
    m.finish(5)
    m.fail(4)
    assert m.words() == ["done", "failed", "failed"]
    m.check_over()


@pytest.mark.parametrize("late", [False, True])
def test_a_map_over_a_settled_map_gets_outcomes_whenever_it_joins(
    machine: type[Machine], late: bool
) -> None:
    after = mapped(Ref(1, (ALL, "ok")), tool="n")
    m = machine(Node("a"), mapped(Ref(0), join=SETTLED), *([] if late else [after]))
    m.finish(0, [1, 2])
    failing, finishing = sorted(m.running)
    m.fail(failing)
    m.finish(finishing)
    if late:
        m.extend(after)
    assert [arguments(m, slot) for slot in sorted(m.running)] == [[False], [True]]


def test_dropping_a_map_cancels_the_map_over_it(machine: type[Machine]) -> None:
    m = machine(Node("a"), mapped(Ref(0)), mapped(Ref(1)))
    m.finish(0, [1, 2])
    m.drop(1)
    for slot in sorted(m.stopping):
        m.stopped(slot)
    assert m.words() == ["done", "cancelled", "cancelled"]
    m.check_over()


def test_a_loser_that_is_a_map_loses_its_elements(machine: type[Machine]) -> None:
    race = Node(GATHER, (Ref(1), Ref(2)), join=FIRST)
    m = machine(Node("a"), mapped(Ref(0)), Node("b"), race)
    m.finish(0, [1, 2])
    m.finish(2)
    assert m.words() == ["done", "cancelled", "done", "done"]
    assert m.stopping == {4, 5}


def test_a_map_of_many_elements_runs_through_a_small_window(machine: type[Machine]) -> None:
    m = over(machine, 500, window=7)
    for slot in range(2, 502):
        m.finish(slot)
    assert m.value(1) == [f"v{slot}" for slot in range(2, 502)]
    m.check_over()
