from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import pytest

from agentflow.errors import PlanError
from agentflow.planner.passes import (
    Change,
    drop_unused,
    explain,
    merge_equal,
    optimise,
    rank,
    run_passes,
)
from agentflow.planner.plan import Answer, Node, Plan, Ref, Template
from agentflow.tools.spec import ToolSpec

Tools = Mapping[str, ToolSpec]
Read = Callable[[str], Plan]


def test_each_change_is_traced_and_explained(read: Read, tools: Tools) -> None:
    plan = read('$1 = upper("a")\n$2 = upper("a")\n$3 = put("k", $2)\n$4 = get("k")\nreturn $4')
    trace: list[Change] = []
    done = optimise(plan, tools, trace=trace)
    assert [change.name for change in trace] == [
        "merge_equal",
        "order_effects",
        "rank",
        "mark_speculable",
    ]
    assert trace[0].before is plan and trace[-1].after is done
    assert (
        explain(trace[:2])
        == """\
merge_equal:
    $1 = upper("a")
  - $2 = upper("a")
  - $3 = put("k", $2)
  - $4 = get("k")
  - return $4
  + $2 = put("k", $1)
  + $3 = get("k")
  + return $3

order_effects:
    $1 = upper("a")
    $2 = put("k", $1)
  - $3 = get("k")
  + $3 = get("k")  # after $2
    return $3"""
    )


def test_only_what_is_near_a_change_is_shown(read: Read, tools: Tools) -> None:
    lines = [f'${i} = fetch("{i}")' for i in range(1, 10)]
    lines[4:4] = ['$20 = upper("a")', '$21 = upper("a")']
    trace: list[Change] = []
    optimise(read("\n".join(lines)), tools, [merge_equal], trace)
    assert "$1 = " not in explain(trace)
    assert '    $5 = upper("a")\n' in explain(trace)


def test_nothing_to_explain() -> None:
    assert explain([]) == "no pass changed the plan"


def test_a_plan_that_needs_nothing_is_the_same_object(tools: Tools) -> None:
    plan = Plan((Node("note", ("a",)),))
    assert optimise(plan, tools) is plan


def test_a_plan_is_verified_before_the_first_pass(tools: Tools) -> None:
    with pytest.raises(PlanError, match=r"^line \$1: there is no tool 'no'"):
        optimise(Plan((Node("no"),)), tools)


def test_a_pass_that_breaks_a_plan_is_named(tools: Tools) -> None:
    def forgetful(plan: Plan, tools: Tools) -> Plan:
        return replace(plan, nodes=plan.nodes[1:])

    plan = Plan((Node("upper", ("a",)), Node("upper", (Ref(0),))))
    with pytest.raises(PlanError, match=r"^after forgetful: line \$1: it uses its own value"):
        optimise(plan, tools, [forgetful])
    with pytest.raises(PlanError, match="after forgetful"):
        run_passes(plan, tools, [partial(forgetful)])


def test_estimates_are_given_with_partial(read: Read, tools: Tools) -> None:
    plan = read('$1 = fetch("u")\n$2 = upper($1)\nreturn $2')
    estimated = partial(rank, seconds={"fetch": 0.25})
    trace: list[Change] = []
    done = optimise(plan, tools, [estimated], trace)
    assert [node.rank for node in done.nodes] == [1.25, 1.0]
    assert trace[0].name == "rank"


def test_earlier_segments_are_used_and_left_alone(tools: Tools) -> None:
    plan = Plan(
        (
            Node("upper", (Ref(1),)),
            Node("upper", (Ref(1),)),
            Node("embed", ("a",), guard=Ref(0)),
            Node("embed", ("b",), guard=Ref(0)),
            Node("put", ("k", Template((Ref(3), Ref(2))))),
        ),
        [Ref(2), Ref(3), Ref(4), Ref(5), Ref(6), Ref(1, ("x",))],
        base=2,
    )
    done = optimise(plan, tools)
    assert [replace(node, rank=0.0, speculable=False) for node in done.nodes] == [
        Node("upper", (Ref(1),)),
        Node("embed_many", (), (("texts", ["a", "b"]),), guard=Ref(0)),
        Node("put", ("k", Template((Ref(2), Ref(2))))),
    ]
    assert done.base == 2
    assert done.result == [Ref(2), Ref(2), Ref(3, (0,)), Ref(3, (1,)), Ref(4), Ref(1, ("x",))]


def test_an_edge_of_order_follows_what_was_fused(read: Read, tools: Tools) -> None:
    web = ToolSpec("publish", effect=replace(tools["put"].effect, resources=("web",)))
    known = {**tools, "publish": web}
    plan = read('$1 = fetch("a")\n$2 = fetch("b")\n$3 = publish()\n$4 = fetch("c")\nreturn $3')
    done = optimise(plan, known)
    assert [(node.tool, node.after) for node in done.nodes] == [
        ("fetch_many", ()),
        ("publish", (0,)),
        ("fetch", (1,)),
    ]


@pytest.mark.parametrize("batch", ["", "unknown", "put", "fetch_many", "concat", "dump"])
def test_what_the_batch_tool_cannot_take_is_not_fused(batch: str, tools: Tools) -> None:
    known = {**tools, "embed": replace(tools["embed"], batch=batch)}
    calls = (Node("embed", ("a",), (("model", "x"),)), Node("embed", ("b",), (("model", "x"),)))
    plan = Plan(calls, [Ref(0), Ref(1)])
    assert [node.tool for node in optimise(plan, known).nodes] == ["embed", "embed"]


def test_calls_with_options_of_their_own_are_not_fused(tools: Tools) -> None:
    calls = (Node("embed", ("a",), options="x"), Node("embed", ("b",), options="x"))
    done = optimise(Plan(calls, [Ref(0), Ref(1)]), tools)
    assert [node.tool for node in done.nodes] == ["embed", "embed"]


def test_what_another_call_comes_after_is_not_dropped(tools: Tools) -> None:
    plan = Plan((Node("upper", ("a",)), Node("fetch", ("u",), after=(0,))), Ref(1))
    assert drop_unused(plan, tools) is plan


def test_merging_alone_keeps_a_plan_without_result(tools: Tools) -> None:
    plan = Plan((Node("upper", ("a",)), Node("upper", ("a",))))
    assert merge_equal(plan, tools) == Plan((Node("upper", ("a",)),), Answer.NOTHING)
