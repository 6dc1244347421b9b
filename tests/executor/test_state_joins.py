"""gather, settled, first and quorum over calls."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pydantic
import pytest

from agentflow.errors import DependencyFailed
from agentflow.planner.plan import GATHER, Arg, Join, Node, Ref

if TYPE_CHECKING:
    from tests.executor.conftest import Machine

FIRST = Join("first")
SETTLED = Join("settled")


def three(machine: type[Machine], join: Join, **options: Any) -> Machine:
    """Three calls, and in slot 3 a gather of them."""
    return machine(*(Node(t) for t in "abc"), gather(join, Ref(0), Ref(1), Ref(2)), **options)


def gather(join: Join, *args: Arg) -> Node:
    return Node(GATHER, args, join=join)


def test_all_is_the_list_of_the_values_in_the_order_written(machine: type[Machine]) -> None:
    m = three(machine, Join())
    for slot in (2, 0, 1):
        m.finish(slot)
    assert m.value(3) == ["v0", "v1", "v2"]
    m.check_over()


def test_all_takes_literals_paths_and_nested_values(machine: type[Machine]) -> None:
    m = machine(Node("a"), gather(Join(), 7, Ref(0, ("x",)), [Ref(0, ("y", 1))]))
    m.finish(0, {"x": 1, "y": [2, 3]})
    assert m.value(1) == [7, 1, [3]]


def test_all_fails_with_its_first_failure_and_does_not_wait_for_the_rest(
    machine: type[Machine],
) -> None:
    m = three(machine, Join())
    boom = ValueError("boom")
    m.fail(1, boom)
    error = m.error(3)
    assert isinstance(error, DependencyFailed) and error.__cause__ is boom
    assert m.running == {0, 2}


def test_a_gather_of_nothing_is_an_empty_list(machine: type[Machine]) -> None:
    assert machine(gather(Join())).value(0) == []
    assert machine(gather(SETTLED)).value(0) == []


def test_a_gather_never_counts_against_the_window(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b"), gather(Join(), 1), window=1)
    assert m.value(2) == [1]


def test_settled_says_how_each_ended(machine: type[Machine]) -> None:
    m = machine(
        Node("a"), Node("b"), Node("c", guard=Ref(0)), Node("d"),
        gather(SETTLED, Ref(0), Ref(1), Ref(2), Ref(3)),
    )  # fmt: skip
    boom = ValueError("boom")
    m.fail(1, boom)
    m.finish(0, 0)
    m.drop(3)
    m.stopped(3)
    outcomes = m.value(4)
    assert [outcome.status for outcome in outcomes] == ["done", "failed", "skipped", "cancelled"]
    assert outcomes[0].value == 0 and outcomes[0].ok
    assert outcomes[1].error is boom and not outcomes[1].ok
    m.check_over()


def test_settled_counts_a_path_that_leads_nowhere_as_a_failure(machine: type[Machine]) -> None:
    m = machine(Node("a"), gather(SETTLED, Ref(0, ("x",)), Ref(0, ("y",))))
    m.finish(0, {"x": 1})
    found, lost = m.value(1)
    assert found.value == 1 and isinstance(lost.error, LookupError)


def test_first_takes_the_first_value_and_stops_the_losers(machine: type[Machine]) -> None:
    m = three(machine, FIRST)
    m.finish(1)
    assert m.value(3) == "v1" and m.stopping == {0, 2}
    m.stopped(0)
    m.stopped(2)
    m.check_over()


def test_first_does_not_count_failures_and_skipped_calls(machine: type[Machine]) -> None:
    m = machine(
        Node("a"), Node("b", guard=Ref(0)), Node("c"), gather(FIRST, Ref(1), Ref(2), Ref(0))
    )
    m.finish(0, False)
    assert m.value(3) is False
    m = three(machine, FIRST)
    m.fail(0)
    m.fail(1)
    m.finish(2)
    assert m.value(3) == "v2"


def test_first_cancels_a_loser_that_waits_to_start(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b", (Ref(0),)), Node("c"), gather(FIRST, Ref(1), Ref(2)))
    m.finish(2)
    assert m.words() == ["running", "cancelled", "done", "done"]
    m.finish(0)
    assert m.started == [0, 2]
    m.check_over()


def test_first_spares_a_loser_that_something_else_needs(machine: type[Machine]) -> None:
    m = three(machine, FIRST)
    m.extend(Node("d", (Ref(2),)))
    m.finish(0)
    assert m.stopping == {1}
    assert m.finish(2) == ["start 4"]


def test_first_fails_once_nobody_is_left(machine: type[Machine]) -> None:
    m = three(machine, FIRST)
    booms = [ValueError(f"boom {n}") for n in range(3)]
    for slot in range(3):
        assert m.word(3) == "waiting"
        m.fail(slot, booms[slot])
    error = m.error(3)
    assert isinstance(error, DependencyFailed) and error.__cause__ is booms[0]
    assert str(error) == "first of 3 calls can no longer be reached"
    m.check_over()


def test_first_with_a_literal_has_its_value_at_once(machine: type[Machine]) -> None:
    m = machine(Node("a"), gather(FIRST, 5, Ref(0)))
    assert m.value(1) == 5
    assert m.words() == ["cancelled", "done"] and not m.started
    m.check_over()


def test_first_whose_only_value_lacks_the_path_fails_with_the_path(
    machine: type[Machine],
) -> None:
    m = machine(Node("a"), gather(FIRST, Ref(0, ("x",))))
    m.finish(0, {"y": 1})
    assert "there is no 'x'" in str(m.error(1))


def test_quorum_takes_the_first_values_in_the_order_written(machine: type[Machine]) -> None:
    m = three(machine, Join("quorum", 2))
    m.finish(2)
    m.finish(0)
    assert m.value(3) == ["v0", "v2"] and m.stopping == {1}


def test_quorum_fails_as_soon_as_it_can_no_longer_be_reached(machine: type[Machine]) -> None:
    m = three(machine, Join("quorum", 2))
    m.fail(0)
    assert m.word(3) == "waiting"
    m.fail(2)
    assert m.word(3) == "failed" and m.running == {1}
    assert str(m.error(3)) == "quorum(2) of 3 calls can no longer be reached"


def test_a_quorum_larger_than_its_inputs_fails_at_once(machine: type[Machine]) -> None:
    assert three(machine, Join("quorum", 4)).word(3) == "failed"


def test_a_value_that_is_named_twice_counts_twice(machine: type[Machine]) -> None:
    m = machine(Node("a"), gather(Join("quorum", 2), Ref(0), Ref(0)))
    m.finish(0)
    assert m.value(1) == ["v0", "v0"]
    m = machine(Node("a"), Node("b"), gather(Join("quorum", 2), Ref(0), Ref(0), Ref(1)))
    m.fail(0)
    assert m.word(2) == "failed"
    m.finish(1)
    m.check_over()


def test_what_a_policy_needs_besides_its_inputs_is_waited_for(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b"), gather(FIRST, Ref(0), [Ref(1)]))
    assert m.words() == ["running", "running", "waiting"]
    m.finish(0)
    assert m.word(2) == "waiting"
    m.finish(1)
    assert m.value(2) == "v0"
    m = machine(Node("a"), Node("b"), gather(SETTLED, Ref(0), [Ref(1)]))
    m.fail(1)
    assert m.word(2) == "failed"


def test_a_policy_over_earlier_segments_counts_what_has_ended(machine: type[Machine]) -> None:
    m = machine(Node("a"), Node("b"), Node("c"))
    m.finish(0)
    m.fail(1)
    m.extend(
        gather(FIRST, Ref(0), Ref(1)),
        gather(SETTLED, Ref(0), Ref(1)),
        gather(Join("quorum", 2), Ref(0), Ref(1), Ref(2)),
        gather(Join("quorum", 3), Ref(0), Ref(1), Ref(2)),
        gather(Join(), Ref(1), Ref(2)),
    )
    assert m.words()[3:] == ["done", "done", "waiting", "failed", "failed"]
    m.finish(2)
    assert m.value(5) == ["v0", "v2"]
    m.check_over()


def test_values_of_a_gather_are_its_own(machine: type[Machine]) -> None:
    m = machine(Node("a"), gather(Join(), Ref(0), Ref(0)))
    m.finish(0, ["x"])
    one, other = m.value(1)
    one.append("y")
    assert other == ["x"] and m.value(0) == ["x"]


def test_a_value_that_cannot_be_copied_fails_its_gather_and_not_the_run(
    machine: type[Machine],
) -> None:
    class Locked(pydantic.BaseModel, arbitrary_types_allowed=True):
        lock: Any

    m = machine(Node("a"), gather(Join(), Ref(0)))
    m.finish(0, Locked(lock=threading.Lock()))
    assert m.words() == ["done", "failed"]
    assert "pickle" in str(m.error(1))
    m.check_over()


@pytest.mark.parametrize("inputs", [1, 5])
def test_a_chain_of_policies_settles_in_one_step(machine: type[Machine], inputs: int) -> None:
    nodes = [Node("a", (n,)) for n in range(inputs)]
    nodes.append(gather(Join(), *map(Ref, range(inputs))))
    nodes += [gather(FIRST, Ref(inputs + n)) for n in range(3)]
    m = machine(*nodes)
    for slot in range(inputs):
        m.finish(slot)
    assert m.value(inputs + 3) == [f"v{n}" for n in range(inputs)]
