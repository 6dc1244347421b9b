"""Scripts are checked against the tools they call."""

from __future__ import annotations

import pytest

from agentflow.errors import PlanError
from agentflow.planner.check import LineChecker, check, read_plan
from agentflow.planner.jsonform import tools_from_json
from agentflow.planner.plan import Join, Ref
from agentflow.planner.reader import read_script
from agentflow.planner.script import Line, Script

TOOLS = tools_from_json(
    [
        {"name": "search", "params": ["query", "k"], "required": 1},
        {"name": "math", "params": ["problem", "context"], "required": 1},
        {"name": "now", "params": [], "required": 0},
        {"name": "any", "params": ["first"], "required": 0, "open": True},
        {
            "name": "typed",
            "params": ["k", "names"],
            "required": 1,
            "schema": {"properties": {"k": {"type": "integer"}, "names": {"type": "array"}}},
        },
    ]
)


@pytest.mark.parametrize(
    ("text", "kind", "at", "part"),
    [
        ('1. serch("a")', "unknown_tool", 1, "'search'"),
        ("1. search()", "arity", 1, "'query'"),
        ('1. search("a", 1, 2)', "arity", 1, "3 are given"),
        ('1. search("a", query="b")', "arity", 1, "twice"),
        ('1. search("a", q=1)', "unknown_param", 1, "'q'"),
        ('1. search(quary="a")', "unknown_param", 1, "'query'"),
        ("1. now(x=1)", "unknown_param", 1, "none"),
        ('1. typed("many")', "bad_args", 1, "whole number"),
        ('1. typed(1, "a")', "bad_args", 1, "a list"),
        ('1. math("x", [[{"a": $1}]])', "self_ref", 1, "own value"),
        ('1. math("x", $2)', "missing_ref", 1, "$2"),
        ('1. math("x", $2)\n2. search("a")', "forward_ref", 1, "move that up"),
        ('1. math("x", $2)\n2. math("y", "$1")', "cycle", 1, "$2 uses $1"),
        ('1. now() if $2\n2. math("so ${1} then") if $1', "cycle", 1, "$2 uses $1"),
        ('1. math("x", $2)\n2. join()', "forward_ref", 1, "join"),
        ("1. now() join first", "bad_join", 1, "each"),
        ("1. now()\nreturn [$2]", "missing_ref", None, "$2"),
    ],
)
def test_what_cannot_be_run_is_refused(text: str, kind: str, at: int | None, part: str) -> None:
    with pytest.raises(PlanError, match=part.replace("$", r"\$")) as caught:
        read_plan(text, TOOLS)

    assert (caught.value.kind, caught.value.at) == (kind, at)


@pytest.mark.parametrize(
    "text",
    [
        '1. any(1, x=2, y="z")',
        "1. now()\n2. any(each $1) join settled if $1.ok",
        "1. typed(k=3, names=$9) if $9",
        "$1 = now()\n$2 = gather($1, $9) join quorum(1)\nreturn $2",
    ],
)
def test_what_can_be_run_passes(text: str) -> None:
    assert read_plan(text, TOOLS, known=[9]).lines


def test_an_error_further_up_comes_before_one_in_the_reading() -> None:
    with pytest.raises(PlanError) as caught:
        read_plan('1. nothing("a")\n2. search("open', TOOLS)

    assert (caught.value.kind, caught.value.at) == ("unknown_tool", 1)


def test_lines_are_checked_one_by_one_without_the_rest_of_the_plan() -> None:
    checker = LineChecker(TOOLS, known=[7])
    checker.opened(1, "now")
    checker.call(Line(1, "now"))
    checker.call(Line(2, "math", ("x", [Ref(1), Ref(7)])))

    for line, kind in (
        (Line(3, "math", ("x", Ref(4))), "missing_ref"),
        (Line(3, "math", ("x", Ref(3))), "self_ref"),
        (Line(2, "now"), "duplicate_id"),
    ):
        with pytest.raises(PlanError) as caught:
            checker.call(line)
        assert caught.value.kind == kind


def test_a_name_that_is_no_tool_is_known_at_the_opening_bracket() -> None:
    with pytest.raises(PlanError, match="no tool 'serch'"):
        LineChecker(TOOLS).opened(1, "serch")


def test_the_guard_and_the_policy_are_checked_when_they_are_known() -> None:
    checker = LineChecker(TOOLS)
    checker.call(Line(1, "now"))

    for line, kind in (
        (Line(1, "now", guard=Ref(1)), "self_ref"),
        (Line(1, "now", guard=Ref(2)), "missing_ref"),
        (Line(1, "now", join=Join("quorum", 2)), "bad_join"),
    ):
        with pytest.raises(PlanError) as caught:
            checker.suffix(line)
        assert caught.value.kind == kind


def test_a_script_made_by_hand_is_checked_for_ids_used_twice() -> None:
    with pytest.raises(PlanError) as caught:
        check(Script((Line(1, "now"), Line(1, "now"))), TOOLS)

    assert (caught.value.kind, caught.value.at) == ("duplicate_id", 1)


def test_a_replan_may_use_an_id_again_and_means_the_earlier_value_until_then() -> None:
    script = read_plan('1. math("half", [$1])\n2. math("so", $1)', TOOLS, known=[1])

    assert script == read_script('1. math("half", [$1])\n2. math("so", $1)', known=[1])
