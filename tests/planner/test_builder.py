from __future__ import annotations

from collections.abc import Mapping

from agentflow.planner.builder import Builder
from agentflow.planner.plan import Answer, Each, Join, Node, Ref, Template
from agentflow.tools.spec import ToolSpec

Tools = Mapping[str, ToolSpec]


def test_an_equal_pure_call_is_the_same_node(tools: Tools) -> None:
    builder = Builder(tools.get)
    first = builder.add(Node("concat", ("a", "b")))
    assert builder.add(Node("concat", ("a",), (("b", "b"),))) == first
    assert builder.add(Node("concat", (), (("b", "b"), ("a", "a")))) == first
    assert len(builder.cut().nodes) == 1


def test_calls_that_differ_in_anything_stay_apart(tools: Tools) -> None:
    builder = Builder(tools.get)
    builder.add(Node("upper", ("a",)))
    nodes = [
        Node("upper", ("a",), guard=Ref(0)),
        Node("upper", ("a",), options="fast"),
        Node("upper", (1,)),
        Node("upper", (True,)),
        Node("upper", (1.0,)),
        Node("upper", (Ref(0),)),
        Node("upper", (Ref(0, ("a",)),)),
        Node("upper", (Template((Ref(0), "")),)),
        Node("upper", (Each(["a"]),)),
        Node("upper", (Each(["a"]),), join=Join("settled")),
    ]
    assert [builder.add(node) for node in nodes] == list(range(1, len(nodes) + 1))


def test_calls_that_are_not_pure_are_never_merged(tools: Tools) -> None:
    builder = Builder(tools.get)
    for tool, args in {"fetch": ("u",), "put": ("k", 1), "ask": ("s", "q"), "note": ("t",)}.items():
        assert builder.add(Node(tool, args)) != builder.add(Node(tool, args))


def test_gather_is_pure(tools: Tools) -> None:
    builder = Builder(tools.get)
    first = builder.add(Node("gather", (1, 2)))
    assert builder.add(Node("gather", (1, 2))) == first
    assert builder.add(Node("gather", (1, 2), join=Join("first"))) != first


def test_an_argument_without_a_key_is_never_merged(tools: Tools) -> None:
    builder = Builder(tools.get)
    value = object()
    assert builder.add(Node("upper", (value,))) != builder.add(Node("upper", (value,)))


def test_an_endless_argument_is_never_merged(tools: Tools) -> None:
    endless: list[object] = []
    endless.append(endless)
    builder = Builder(tools.get)
    assert builder.add(Node("upper", (endless,))) != builder.add(Node("upper", (endless,)))


def test_a_forgotten_call_is_made_anew_and_then_merged_again(tools: Tools) -> None:
    builder = Builder(tools.get)
    first = builder.add(Node("upper", ("a",)))
    builder.forget(first)
    second = builder.add(Node("upper", ("a",)))
    assert second != first
    assert builder.add(Node("upper", ("a",))) == second


def test_segments_go_on_where_the_last_one_ended(tools: Tools) -> None:
    builder = Builder(tools.get)
    builder.add(Node("upper", ("a",)))
    write = builder.add(Node("put", ("k", 1)))
    one = builder.cut()
    assert (one.base, len(one.nodes), one.result) == (0, 2, Answer.NOTHING)
    assert builder.add(Node("upper", ("a",))) == 0  # of the segment before
    read = builder.add(Node("get", ("k",)))
    two = builder.cut(Ref(read))
    assert (two.base, two.result) == (2, Ref(2))
    assert two.nodes[0].after == (write,)


def test_edges_of_effects_join_those_given(tools: Tools) -> None:
    builder = Builder(tools.get)
    builder.add(Node("upper", ("a",)))
    builder.add(Node("put", ("k", 1)))
    builder.add(Node("get", ("k",), after=(0,)))
    assert builder.cut().nodes[2].after == (0, 1)


def test_a_resource_named_by_a_reference_is_not_known(tools: Tools) -> None:
    builder = Builder(tools.get)
    builder.add(Node("put", ("k", 1)))
    builder.add(Node("put", ("j", 1)))
    builder.add(Node("get", (Ref(0),)))
    assert builder.cut().nodes[2].after == (0, 1)
