"""Plans that grow while they run: the segments of a workflow, the lines of a streamed plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agentflow.executor.state.bind import bind_arguments
from agentflow.planner.plan import GATHER, Each, Join, Node, Plan, Ref

if TYPE_CHECKING:
    from tests.executor.conftest import Machine


def test_a_later_segment_uses_values_of_an_earlier_one(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b"))
    m.finish(0)
    assert m.extend(Node("c", (Ref(0),)), Node("d", (Ref(1),))) == ["start 2"]
    assert m.finish(1) == ["start 3"]


def test_an_empty_segment_changes_nothing(machine: type[Machine]) -> None:
    m = machine(Node("a"))
    assert m.extend() == []
    assert m.finish(0) == []
    m.check_over()


def test_a_segment_whose_values_all_exist_starts_at_once(machine: type[Machine]) -> None:
    m = machine(Node("a"))
    m.finish(0, 5)
    assert m.extend(Node("b", (Ref(0),)), Node("c", (Ref(1), Ref(0)))) == ["start 1"]
    assert m.finish(1) == ["start 2"]
    assert bind_arguments(m.state, m.state.nodes[2]) == (["v1", 5], {})


def test_ids_and_slots_part_when_a_map_has_expanded(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("m", (Each(Ref(0)),)))
    m.finish(0, [1, 2])
    m.extend(Node("b", (Ref(1),)), Node("c", (Ref(2), Ref(0))), Node("d", guard=Ref(3)))
    assert m.state.slots == [0, 1, 4, 5, 6]
    assert [m.state.where(slot)[0] for slot in (4, 5, 6)] == [2, 3, 4]
    m.finish(2)
    assert m.finish(3) == ["settle 1", "start 4"]
    assert m.finish(4, "b") == ["start 5"]
    assert bind_arguments(m.state, m.state.nodes[5])[0] == ["b", [1, 2]]
    assert m.finish(5, True) == ["start 6"]
    m.finish(6, "d")
    assert m.state.results() == {0: [1, 2], 1: ["v2", "v3"], 2: "b", 3: True, 4: "d"}
    m.check_over()


def test_maps_of_several_segments_keep_their_elements_apart(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("m", (Each(Ref(0)),)))
    m.finish(0, [1])
    m.extend(Node("m", (Each((7, 8)),)), Node("e", (Ref(2),)))
    assert m.running == {2, 5, 6}
    assert [m.state.where(slot) for slot in (2, 5, 6)] == [(1, 0), (2, 0), (2, 1)]
    m.finish(5)
    m.finish(6)
    m.finish(2)
    assert m.value(1) == ["v2"] and m.value(2) == ["v5", "v6"]


def test_errors_name_the_id_and_not_the_slot(machine: type[Machine]) -> None:
    m = machine(Node("m", (Each((1, 2, 3)),)))
    m.extend(Node("b"), Node("c", (Ref(1),)))
    m.fail(4)
    error = m.error(2)
    assert getattr(error, "node", None) == 2


@pytest.mark.parametrize("word", ["failed", "skipped", "cancelled"])
def test_a_call_that_needs_what_has_ended_without_a_value_ends_the_same_way(
    machine: type[Machine], word: str
) -> None:
    m = machine(Node("a"), Node("b", guard=Ref(0)), Node("slow"))
    if word == "cancelled":
        m.drop(1)
    m.finish(0, word == "failed")
    if word == "failed":
        m.fail(1)
    assert m.word(1) == word
    m.extend(
        Node("c", (Ref(1), Ref(2))),
        Node("d", (Ref(3),)),
        Node("e", after=(1,)),
        Node("f", guard=Ref(1)),
        Node("g", (Each(Ref(1)),)),
        Node(GATHER, (Ref(1), 5), join=Join("settled")),
    )
    assert m.words()[3:] == [word, word, "running", word, word, "done"]
    assert [outcome.status for outcome in m.value(8)] == [word, "done"]


def test_a_loss_is_known_before_the_other_inputs_are_there(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("slow"))
    m.fail(0)
    m.extend(Node("b", (Ref(0), Ref(1))))
    assert m.word(2) == "failed"


def test_a_segment_joins_in_order_or_not_at_all(machine: type[Machine]) -> None:
    m = machine(Node("a"))
    with pytest.raises(AssertionError, match="segments join in order"):
        m.extend_by(Plan((Node("b"),), base=5))


def test_a_plan_is_not_changed_by_being_run(machine: type[Machine]) -> None:
    plan = Plan((Node("a"), Node("m", (Each(Ref(0)),)), Node("n", (Each(Ref(1)),))))
    before = plan.edges.users
    for _ in range(2):
        m = machine()
        m.extend_by(plan)
        m.extend(Node("late", (Ref(0),)))
        m.finish(0, [1])
        for slot in (3, 4, 5):
            m.finish(slot)
        m.check_over()
        assert plan.edges.users == before
