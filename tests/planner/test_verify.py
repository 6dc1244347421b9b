"""Each kind of fault of a plan: its kind, its line, and a text that says what to do."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from agentflow.errors import PlanError
from agentflow.planner.plan import Answer, Arg, Each, Join, Node, Plan, Ref, Template
from agentflow.planner.verify import verify
from agentflow.tools.effects import PURE
from agentflow.tools.spec import Parameter, ToolSpec
from agentflow.tools.tool import tool

Tools = Mapping[str, ToolSpec]

FIRST = Node("upper", ("a",), label=1)
FAULTS: dict[str, tuple[Plan, str, int | None, str]] = {
    "unknown tool": (
        Plan((Node("fetsh", ("u",), label=1),)),
        "unknown_tool",
        1,
        "line $1: there is no tool 'fetsh'. Did you mean 'fetch'?",
    ),
    "too many": (
        Plan((Node("concat", (1, 2, 3), label=4),)),
        "arity",
        4,
        "line $4: concat takes 2 arguments by position, and 3 are given: concat(a, b?)",
    ),
    "missing": (
        Plan((Node("put", ("k",), label=1),)),
        "arity",
        1,
        "line $1: put needs 'value', which is not given: put(key, value)",
    ),
    "twice": (
        Plan((Node("upper", ("a",), (("text", "b"),), label=1),)),
        "arity",
        1,
        "line $1: upper is given 'text' twice: upper(text)",
    ),
    "name twice": (
        Plan((Node("upper", (), (("text", "a"), ("text", "b")), label=1),)),
        "arity",
        1,
        "line $1: upper is given a name twice: upper(text)",
    ),
    "unknown parameter": (
        Plan((Node("upper", ("a",), (("txet", "b"),), label=1),)),
        "unknown_param",
        1,
        "line $1: upper has no parameter 'txet'. Did you mean 'text'?",
    ),
    "misspelt": (
        Plan((Node("put", ("k",), (("vlaue", "b"),), label=1),)),
        "unknown_param",
        1,
        "line $1: put has no parameter 'vlaue'. Did you mean 'value'?",
    ),
    "no parameters": (
        Plan((Node("dump", (), (("all", True),), label=1),)),
        "unknown_param",
        1,
        "line $1: dump has no parameter 'all'. It takes none.",
    ),
    "itself": (
        Plan((FIRST, Node("upper", (Ref(1),), label=2))),
        "self_ref",
        2,
        "line $2: it uses its own value",
    ),
    "later": (
        Plan((Node("upper", (Ref(1),), label=1), Node("upper", ("a",), label=2))),
        "forward_ref",
        1,
        "line $1: it uses $2, which comes later: move it up",
    ),
    "cycle": (
        Plan(
            (
                Node("upper", (Ref(2),), label=1),
                Node("upper", (Ref(0),), label=2),
                Node("upper", ([{"a": Ref(1)}],), label=3),
            )
        ),
        "cycle",
        1,
        "line $1: the lines wait for each other: $1 -> $3 -> $2 -> $1",
    ),
    "no such line": (
        Plan((FIRST, Node("upper", (Template(("a", Ref(7))),), label=2))),
        "missing_ref",
        2,
        "line $2: it uses $8, and no line has that id",
    ),
    "guard": (
        Plan((FIRST, Node("upper", ("a",), guard=Ref(9), label=2))),
        "missing_ref",
        2,
        "line $2: it uses $10, and no line has that id",
    ),
    "after": (
        Plan((Node("upper", ("a",), after=(1,)), Node("upper", ("b",)))),
        "forward_ref",
        1,
        "line $1: it uses $2, which comes later: move it up",
    ),
    "result": (
        Plan((FIRST,), [Ref(0), Ref(3)]),
        "missing_ref",
        None,
        "'return' uses $4, and no line has that id",
    ),
    "each in the result": (
        Plan((FIRST,), [Each(Ref(0))]),
        "bad_args",
        None,
        "'return' takes a value: 'each' makes calls, and it makes none",
    ),
    "each inside": (
        Plan((FIRST, Node("upper", ({"a": [Each(Ref(0))]},), label=2))),
        "bad_args",
        2,
        "line $2: 'each' stands before a whole argument, not inside one",
    ),
    "each of each": (
        Plan((FIRST, Node("upper", (Each([Each(Ref(0))]),), label=2))),
        "bad_args",
        2,
        "line $2: 'each' stands before a whole argument, not inside one",
    ),
    "each of text": (
        Plan((Node("upper", (Each("abc"),), label=2),)),
        "bad_args",
        2,
        "line $2: 'each' takes a reference or a list",
    ),
    "lists that differ": (
        Plan((Node("concat", (Each([1, 2]), Each([1, 2, 3])), label=1),)),
        "bad_args",
        1,
        "line $1: 'each' of lists of 2 and 3 elements do not pair up",
    ),
    "policy of a plain call": (
        Plan((Node("upper", ("a",), join=Join("first"), label=1),)),
        "bad_join",
        1,
        "line $1: first waits for several values: it goes with 'each' or with gather",
    ),
    "policy that is not known": (
        Plan((Node("gather", ("a",), join=Join("setled"), label=1),)),
        "bad_join",
        1,
        "line $1: there is no join policy 'setled'. Did you mean 'settled'?",
    ),
    "quorum of none": (
        Plan((Node("gather", ("a",), join=Join("quorum", 0), label=1),)),
        "bad_join",
        1,
        "line $1: quorum(0) never waits: write quorum(1) or more",
    ),
    "quorum of too many": (
        Plan((Node("gather", ("a", "b"), join=Join("quorum", 3), label=1),)),
        "bad_join",
        1,
        "line $1: quorum(3) can never be reached: 2 values given",
    ),
    "first of none": (
        Plan((Node("gather", (), join=Join("first"), label=1),)),
        "bad_join",
        1,
        "line $1: first can never be reached: 0 values given",
    ),
    "gather by name": (
        Plan((Node("gather", (), (("a", 1),), label=1),)),
        "bad_args",
        1,
        "line $1: gather takes values without names or 'each'",
    ),
    "nothing": (Plan(), "empty_plan", None, "the plan has no calls: there is nothing to run"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_a_kind_a_place_and_a_remedy(name: str, tools: Tools) -> None:
    plan, kind, at, text = FAULTS[name]
    with pytest.raises(PlanError) as caught:
        verify(plan, tools)
    assert (caught.value.kind, caught.value.at, str(caught.value)) == (kind, at, text)


def test_the_pass_that_broke_a_plan_is_named(tools: Tools) -> None:
    with pytest.raises(PlanError) as caught:
        verify(Plan((Node("nothing", label=3),)), tools, after="merge_equal")
    assert str(caught.value).startswith("after merge_equal: line $3: there is no tool 'nothing'.")
    assert (caught.value.kind, caught.value.at) == ("unknown_tool", 3)


@pytest.mark.parametrize(
    "plan",
    [
        Plan((Node("upper", ("a",)),)),
        Plan((Node("upper", (Ref(3),)), Node("upper", (Ref(4),))), Ref(2), base=4),
        Plan((), "known", base=0),
        Plan((), Answer.JOIN, base=2),
        Plan((Node("gather", (1, 2), join=Join("quorum", 2)), Node("gather", ()))),
        Plan((Node("concat", (Each([1]), Each(Ref(0))), join=Join("first")),), base=1),
        Plan((Node("ask", ("s", "q"), (("mood", "calm"),)),)),
    ],
)
def test_a_sound_plan_passes(plan: Plan, tools: Tools) -> None:
    verify(plan, tools)


def test_shared_nodes_are_trusted_and_their_order_is_not(tools: Tools) -> None:
    wrong = Node("upper", (1, 2))
    before = Plan((wrong, Node("upper", (Ref(0),))))
    verify(before, tools, before=before)
    moved = Plan((before.nodes[1], wrong))
    with pytest.raises(PlanError, match="own value"):
        verify(moved, tools, before=before)


def typed(schema: Mapping[str, object], **definitions: object) -> Tools:
    return {"f": ToolSpec("f", (Parameter("x", True, schema),), definitions=definitions)}


INTEGER = {"type": "integer"}
NAMED = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


@pytest.mark.parametrize(
    ("schema", "value", "text"),
    [
        (INTEGER, "many", "it must be a whole number, not text"),
        (INTEGER, 1.5, "it must be a whole number, not a number"),
        (INTEGER, [1], "it must be a whole number, not a list"),
        (INTEGER, None, "it must be a whole number, not null"),
        ({"type": "number"}, "x", "it must be a number, not text"),
        ({"type": "string"}, {"a": 1}, "it must be text, not an object"),
        ({"type": "string"}, 5, "it must be text, not a number"),
        ({"type": "string", "format": "date"}, [5], "it must be text, not a list"),
        ({"type": "boolean"}, "maybe", "it must be true or false, not text"),
        ({"type": "array"}, "a", "it must be a list, not text"),
        ({"type": "object"}, [], "it must be an object, not a list"),
        ({"type": "null"}, 0, "it must be null, not a number"),
        ({"enum": ["a", "b"]}, "c", "it must be one of 'a', 'b', not 'c'"),
        ({"anyOf": [INTEGER, {"type": "null"}]}, "x",
         "it must be a whole number, not text, or it must be null, not text"),
        ({"type": "array", "items": INTEGER}, [1, "x"], "it[1] must be a whole number, not text"),
        (NAMED, {"name": []}, "it.name must be text, not a list"),
        (NAMED, {}, "it lacks 'name'"),
    ],
)  # fmt: skip
def test_a_literal_that_cannot_be_right_is_refused(
    schema: Mapping[str, object], value: Arg, text: str
) -> None:
    with pytest.raises(PlanError) as caught:
        verify(Plan((Node("f", (value,)),)), typed(schema))
    assert caught.value.kind == "bad_args"
    assert str(caught.value) == f"line $1: f: argument 'x': {text}"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (INTEGER, "5"),
        (INTEGER, 5.0),
        (INTEGER, True),
        ({"type": "number"}, "1e3"),
        ({"type": "string", "format": "date-time"}, 0),
        ({"type": "boolean"}, "yes"),
        ({"type": "boolean"}, 0),
        ({"type": "array", "items": INTEGER}, (1, "2")),
        ({"type": "array", "items": INTEGER}, [Ref(0)]),
        ({"anyOf": [INTEGER, {"type": "null"}]}, None),
        ({"enum": [1, 2]}, "2"),
        ({"type": ["string", "null"]}, 5),
        ({"$ref": "#/$defs/Unknown"}, 5),
        ({}, object()),
        (INTEGER, object()),
        (INTEGER, Template((Ref(0), "0"))),
    ],
)
def test_a_literal_in_doubt_is_left_to_the_tool(schema: Mapping[str, object], value: Arg) -> None:
    verify(Plan((Node("f", (value,)),), base=1), typed(schema))


def test_schemas_are_followed_to_their_definitions() -> None:
    tools = typed({"$ref": "#/$defs/Named"}, Named=NAMED)
    with pytest.raises(PlanError, match="it lacks 'name'"):
        verify(Plan((Node("f", ({},)),)), tools)


def test_elements_of_a_literal_map_are_checked() -> None:
    with pytest.raises(PlanError, match="must be a whole number, not text"):
        verify(Plan((Node("f", (Each([1, "x"]),)),)), typed(INTEGER))


@tool(pure=True)
def repeat(text: str, *, times: int = 2) -> str:
    return text * times


SPECS = {"repeat": repeat.spec}


def test_a_call_of_literals_is_validated_by_the_tool() -> None:
    verify(Plan((Node("repeat", ("a",), (("times", "3"),)),)), SPECS)
    with pytest.raises(PlanError) as caught:
        verify(Plan((Node("repeat", ("a",), (("times", "x"),), label=7),)), SPECS)
    assert (caught.value.kind, caught.value.at) == ("bad_args", 7)
    assert "repeat: argument 'times'" in str(caught.value)


def test_a_call_with_references_is_checked_parameter_by_parameter() -> None:
    first = Node("repeat", ("a",))
    verify(Plan((first, Node("repeat", (Ref(0),), (("times", "3"),)))), SPECS)
    with pytest.raises(PlanError, match="'times': it must be a whole number, not a list"):
        verify(Plan((first, Node("repeat", (Ref(0),), (("times", []),)))), SPECS)


def test_what_is_bound_by_name_only_is_not_bound_by_position() -> None:
    with pytest.raises(PlanError, match="repeat takes 1 argument by position, and 2 are given"):
        verify(Plan((Node("repeat", ("a", 3)),)), SPECS)


def test_any_number_of_positions_where_the_tool_takes_them() -> None:
    tools = {"f": ToolSpec("f", (Parameter("x"),), rest=True, effect=PURE)}
    verify(Plan((Node("f", (1, 2, 3)),)), tools)
