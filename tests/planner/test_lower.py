from __future__ import annotations

from collections.abc import Mapping

import pytest

from agentflow.errors import PlanError
from agentflow.planner.builder import Builder
from agentflow.planner.lower import Lowering, lower
from agentflow.planner.plan import Answer, Join, Node, Plan, Ref
from agentflow.planner.reader import read_script
from agentflow.planner.script import JoinMark, Line, Return, Script
from agentflow.tools.spec import ToolSpec

Tools = Mapping[str, ToolSpec]


def test_ids_of_the_text_become_ids_of_nodes(tools: Tools) -> None:
    script = read_script(
        """
        $7 = upper("a")
        $3 = split(text=$7) if $7
        $9 = upper(text="${3[0].word} x")
        $4 = gather($9, $3[0].word) join quorum(2)
        return [$4, {"first": $7}]
        """
    )
    plan = lower(script, tools)
    assert [node.label for node in plan.nodes] == [7, 3, 9, 4]
    assert plan.nodes[1] == Node("split", (), (("text", Ref(0)),), guard=Ref(0), label=3)
    assert plan.nodes[2].uses() == (1,)
    assert plan.nodes[3].join == Join("quorum", 2)
    assert plan.result == [Ref(3), {"first": Ref(0)}]


@pytest.mark.parametrize(
    ("end", "result"),
    [(None, Answer.NOTHING), (JoinMark(9), Answer.JOIN), (Return(Ref(5)), Ref(0))],
)
def test_the_end_of_the_text_is_the_result(
    end: JoinMark | Return | None, result: object, tools: Tools
) -> None:
    assert lower(Script((Line(5, "upper", ("a",)),), end), tools).result == result


def test_equal_pure_lines_are_one_node_with_two_ids(tools: Tools) -> None:
    lowering = Lowering(Builder(tools.get), tools)
    assert lowering.line(Line(1, "upper", ("a",))) == 0
    assert lowering.line(Line(2, "upper", (), (("text", "a"),))) == 0
    assert lowering.line(Line(3, "split", (Ref(2),))) == 1
    assert lowering.ids == {1: 0, 2: 0, 3: 1}


def test_a_later_plan_refers_to_an_earlier_one(tools: Tools) -> None:
    builder = Builder(tools.get)
    first = Lowering(builder, tools)
    first.line(Line(1, "put", ("k", 1)))
    builder.cut()
    second = Lowering(builder, tools, first.ids)
    second.line(Line(2, "get", ("k",)))
    second.line(Line(3, "concat", (Ref(1), Ref(2))))
    plan = builder.cut(second.end(Return(Ref(3))))
    assert plan == Plan(
        (Node("get", ("k",), after=(0,), label=2), Node("concat", (Ref(0), Ref(1)), label=3)),
        Ref(2),
        base=1,
    )


def test_a_later_plan_may_use_an_id_again(tools: Tools) -> None:
    lowering = Lowering(Builder(tools.get, base=1), tools, {1: 0})
    assert lowering.line(Line(1, "upper", (Ref(1),))) == 1
    assert lowering.ids == {1: 1}


def test_a_line_can_be_taken_back_and_added_differently(tools: Tools) -> None:
    lowering = Lowering(Builder(tools.get), tools)
    assert lowering.line(Line(1, "upper", ("a",))) == 0
    assert lowering.retract(1) == 0
    assert lowering.line(Line(1, "upper", ("a",), guard=None, join=Join())) == 0
    assert lowering.retract(1) == 0
    assert lowering.line(Line(1, "upper", ("b",))) == 1
    assert lowering.ids == {1: 1}


def test_what_failed_is_made_anew(tools: Tools) -> None:
    builder = Builder(tools.get)
    Lowering(builder, tools).line(Line(1, "upper", ("a",)))
    builder.forget(0)
    assert Lowering(builder, tools).line(Line(1, "upper", ("a",))) == 1


@pytest.mark.parametrize(
    ("line", "kind", "text"),
    [
        (Line(2, "uper", ("a",)), "unknown_tool", "line $2: there is no tool 'uper'."),
        (Line(2, "upper"), "arity", "line $2: upper needs 'text'"),
        (Line(2, "upper", (Ref(2),)), "self_ref", "line $2: it uses its own value"),
        (
            Line(2, "upper", (Ref(5),)),
            "missing_ref",
            "line $2: it uses $5, which no earlier line defines",
        ),
        (
            Line(2, "upper", ("a",), guard=Ref(0)),
            "missing_ref",
            "line $2: it uses $0, which no earlier line defines",
        ),
        (Line(1, "upper", ("b",)), "duplicate_id", "line $1: the id is taken by an earlier line"),
    ],
)
def test_a_faulty_line_is_refused_and_leaves_nothing_behind(
    line: Line, kind: str, text: str, tools: Tools
) -> None:
    builder = Builder(tools.get)
    lowering = Lowering(builder, tools)
    lowering.line(Line(1, "upper", ("a",)))
    with pytest.raises(PlanError) as caught:
        lowering.line(line)
    assert (caught.value.kind, caught.value.at) == (kind, line.id)
    assert str(caught.value).startswith(text)
    assert lowering.ids == {1: 0} and len(builder.cut().nodes) == 1


def test_a_result_that_no_line_gives_is_refused(tools: Tools) -> None:
    with pytest.raises(PlanError, match=r"^'return' uses \$8, which no earlier line defines"):
        lower(Script((Line(1, "upper", ("a",)),), Return([Ref(8)])), tools)


def test_a_script_without_calls_is_refused(tools: Tools) -> None:
    with pytest.raises(PlanError) as caught:
        lower(Script(()), tools)
    assert caught.value.kind == "empty_plan"
