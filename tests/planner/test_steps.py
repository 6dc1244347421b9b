from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.planner.passes.merge_equal import merge_equal
from agentflow.planner.plan import ALL, Each, Node, Plan, Ref, Template
from agentflow.planner.steps import UNNAMED, Step, StepTable
from agentflow.tools.spec import ToolSpec

Tools = Mapping[str, ToolSpec]


def steps(nodes: Sequence[Node], tools: Tools) -> list[str]:
    table = StepTable("main", tools.get)
    return [str(table.step(nodes, index)) for index in range(len(nodes))]


def test_the_text_is_stable() -> None:
    step = StepTable("brief").step([Node("search", ("Spain",), (("k", 5),))], 0)
    assert str(step) == "brief/search:571e0a5286a55e74#0"
    assert step.key("run-7") == "run-7:brief/search:571e0a5286a55e74#0"


def test_equal_calls_are_counted_in_program_order(tools: Tools) -> None:
    nodes = [Node("ask", ("s", "q")), Node("ask", ("s", "other")), Node("ask", ("s", "q"))]
    first, other, second = steps(nodes, tools)
    assert first.endswith("#0") and other.endswith("#0") and second.endswith("#1")
    assert first[:-2] == second[:-2] != other[:-2]


def test_counts_of_different_tools_are_apart(tools: Tools) -> None:
    assert all(s.endswith("#0") for s in steps([Node("fetch", ("u",)), Node("get", ("u",))], tools))


def test_the_path_is_part_of_the_step(tools: Tools) -> None:
    node = Node("fetch", ("u",))
    one, other = (StepTable(path).step([node], 0) for path in ("a", "b"))
    assert one != other and one.digest == other.digest


def test_arguments_count_the_same_by_position_and_by_name(tools: Tools) -> None:
    nodes = [
        Node("put", ("k", 1)),
        Node("put", ("k",), (("value", 1),)),
        Node("put", (), (("value", 1), ("key", "k"))),
    ]
    assert [step[-2:] for step in steps(nodes, tools)] == ["#0", "#1", "#2"]


def test_only_what_is_asked_for_is_numbered(tools: Tools) -> None:
    class Nodes(list[Node]):
        read = 0

        def __getitem__(self, index: Any) -> Any:
            self.read += 1
            return super().__getitem__(index)

    nodes = Nodes([Node("upper", (str(i),)) for i in range(10)])
    table = StepTable("main")
    table.step(nodes, 3)
    table.step(nodes, 1)
    assert nodes.read == 4


def test_the_order_of_asking_does_not_matter(tools: Tools) -> None:
    nodes = [Node("ask", ("s", "q")) for _ in range(6)] + [Node("upper", (Ref(4),))]
    table = StepTable("main", tools.get)
    asked = list(range(len(nodes)))
    random.Random(3).shuffle(asked)
    found = {index: str(table.step(nodes, index)) for index in asked}
    assert [found[index] for index in range(len(nodes))] == steps(nodes, tools)


def test_a_reference_is_the_step_it_refers_to(tools: Tools) -> None:
    """What stands between, and so the id, does not matter; what it depends on does."""
    alone = [Node("fetch", ("u",)), Node("upper", (Ref(0),))]
    moved = [Node("note", ("x",)), *alone[:1], Node("note", ("y",)), Node("upper", (Ref(1),))]
    other = [Node("fetch", ("v",)), alone[1]]
    assert steps(moved, tools)[3] == steps(alone, tools)[1] != steps(other, tools)[1]


@pytest.mark.parametrize(
    "value",
    [
        Ref(1),
        Ref(0, ("a",)),
        Ref(0, ("*",)),
        Ref(0, (ALL,)),
        Ref(0, (0,)),
        Ref(0, ("0",)),
        Template((Ref(0), " text")),
        Template((" text", Ref(0))),
        Each(Ref(0)),
        [Ref(0)],
        {"a": Ref(0)},
        "$0",
        0,
        False,
        0.0,
        b"0",
        2**70_000,
        "\ud800",
        None,
        {"a": 1, "b": 2},
    ],
    ids=lambda value: type(value).__name__,
)
def test_different_arguments_are_different_steps(value: object, tools: Tools) -> None:
    first = [Node("ask", ("s", "q")), Node("ask", ("s", "q"))]
    nodes = [*first, Node("upper", (Ref(0),)), Node("upper", (value,))]
    known, new = steps(nodes, tools)[2:]
    assert known[:-2] != new[:-2]


def test_a_call_that_cannot_be_named_goes_by_its_place_among_its_like(tools: Tools) -> None:
    nodes = [
        Node("note", (object(),)),
        Node("note", ("a",)),
        Node("fetch", (object(),)),
        Node("note", (len,)),
    ]
    found = steps(nodes, tools)
    assert found[0] == f"main/note:{UNNAMED}#0"
    assert found[2:] == [f"main/fetch:{UNNAMED}#0", f"main/note:{UNNAMED}#1"]


def test_what_uses_a_call_without_a_name_is_told_apart_by_its_place(tools: Tools) -> None:
    nodes = [Node("upper", (object(),)), Node("upper", (object(),))]
    nodes += [Node("upper", (Ref(0),)), Node("upper", (Ref(1),))]
    found = steps(nodes, tools)
    assert found[2][:-2] != found[3][:-2]


def test_guards_and_options_are_not_part_of_a_step(tools: Tools) -> None:
    nodes = [Node("upper", ("a",)), Node("upper", ("a",), guard=Ref(0), options="fast")]
    assert steps(nodes, tools)[1] == steps(nodes, tools)[0][:-1] + "1"


def test_other_processes_find_the_same_steps(tools: Tools) -> None:
    program = (
        "from agentflow.planner.plan import Node, Ref\n"
        "from agentflow.planner.steps import StepTable\n"
        "nodes = [Node('f', ({'a', 'b', 'c'}, {'x': 1, 'y': [None]})), Node('g', (Ref(0),))]\n"
        "print(StepTable('p').step(nodes, 1))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


CALLS = st.lists(
    st.tuples(st.sampled_from(["upper", "fetch", "ask"]), st.integers(-2, 5)), max_size=12
)


def program(calls: list[tuple[str, int]]) -> Plan:
    """Calls of literals (numbers below 0) or of the value of an earlier call."""
    nodes: list[Node] = []
    for tool, pick in calls:
        value = Ref(pick % len(nodes)) if pick >= 0 and nodes else str(pick)
        nodes.append(Node(tool, ("s", value) if tool == "ask" else (value,), label=len(nodes)))
    return Plan(tuple(nodes))


@given(calls=CALLS)
def test_merging_leaves_every_step_that_is_left_as_it_was(
    calls: list[tuple[str, int]], tools: Tools
) -> None:
    plan = program(calls)
    merged = merge_equal(plan, tools)
    before = dict(enumerate(steps(plan.nodes, tools)))
    for node, step in zip(merged.nodes, steps(merged.nodes, tools), strict=True):
        assert step == before[node.label or 0]


@given(calls=CALLS)
def test_no_two_calls_are_the_same_step(calls: list[tuple[str, int]], tools: Tools) -> None:
    found = steps(program(calls).nodes, tools)
    assert len(set(found)) == len(found)


def test_a_step_is_a_value() -> None:
    assert Step("a", "b", "c", 1) == Step("a", "b", "c", 1)
    assert len({Step("a", "b", "c"), Step("a", "b", "c")}) == 1
