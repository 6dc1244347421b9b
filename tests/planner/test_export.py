from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.errors import PlanError
from agentflow.planner.export import (
    LABEL_LIMIT,
    plan_from_json,
    to_dot,
    to_json,
    to_mermaid,
    to_networkx,
    to_text,
)
from agentflow.planner.passes import optimise
from agentflow.planner.plan import ALL, Answer, Each, Join, Node, Plan, Ref, Template
from agentflow.tools.policy import DEFAULT
from agentflow.tools.spec import ToolSpec

Tools = Mapping[str, ToolSpec]
Read = Callable[[str], Plan]

TEXT = """\
$1 = get(key="a")
$2 = put(key="a", value=$1)
$3 = ask(system="s", question="\\"quoted\\" <b> #1\\n${1.name} 日本") if $2
$4 = note(text=[$3, $1])
return {"answer": $4}
"""

MERMAID = """\
flowchart TD
  n0(["$1 = get(key=#34;a#34;)"])
  n1[["$2 = put(key=#34;a#34;, value=$1)  #35; after $1"]]:::writes
  n2{{"$3 = ask(system=#34;s#34;, question=#34;#92;#34;quoted#92;#34; #60;b#62; \
#351#92;n${1.name} 日本#34;) if $2"}}:::samples
  n3["$4 = note(text=[$3, $1])"]:::undeclared
  n0 --> n1
  n0 --> n2
  n1 -->|if| n2
  n0 --> n3
  n2 --> n3
  result(["return {#34;answer#34;: $4}"])
  n3 --> result
  linkStyle 2 stroke-dasharray:6 4
  classDef samples fill:#eef,stroke:#558
  classDef writes fill:#fee,stroke:#a33,stroke-width:2px
  classDef undeclared fill:#fff8e0,stroke:#a80
"""

DOT = r"""digraph plan {
  node [fontname=monospace];
  n0 [shape=ellipse, label="$1 = get(key=\"a\")"];
  n1 [shape=box, peripheries=2, color=firebrick, label="$2 = put(key=\"a\", value=$1)  # after $1"];
  n2 [shape=hexagon, label="$3 = ask(system=\"s\", question=\"\\\"quoted\\\" <b> #1\\n${1.name} 日本\") if $2"];
  n3 [shape=box, color=darkorange, label="$4 = note(text=[$3, $1])"];
  n0 -> n1;
  n0 -> n2;
  n1 -> n2 [style=dashed, label=if];
  n0 -> n3;
  n2 -> n3;
  result [shape=plaintext, label="return {\"answer\": $4}"];
  n3 -> result;
}
"""


@pytest.fixture
def plan(read: Read, tools: Tools) -> Plan:
    return optimise(read(TEXT), tools)


def test_text_is_the_notation(plan: Plan, read: Read) -> None:
    assert to_text(plan) == TEXT.replace("value=$1)", "value=$1)  # after $1")


def test_mermaid(plan: Plan, tools: Tools) -> None:
    assert to_mermaid(plan, tools) == MERMAID.replace("#351", "#35;1")


def test_dot(plan: Plan, tools: Tools) -> None:
    assert to_dot(plan, tools) == DOT


def test_orderings_are_dotted(read: Read, tools: Tools) -> None:
    plan = optimise(read('$1 = put("k", 1)\n$2 = get("k")\njoin()'), tools)
    assert "  n0 --> n1\n" in to_mermaid(plan, tools)
    assert "  linkStyle 0 stroke-dasharray:1 4\n" in to_mermaid(plan, tools)
    assert "  n0 -> n1 [style=dotted];\n" in to_dot(plan, tools)


def test_join_collects_what_nobody_waits_for(read: Read) -> None:
    plan = read('$1 = upper("a")\n$2 = upper($1)\n$3 = upper("b")\njoin()')
    ends = [line for line in to_mermaid(plan).splitlines() if "result" in line]
    assert ends == ['  result(["join()"])', "  n1 --> result", "  n2 --> result"]


def test_values_of_earlier_segments_are_shown(tools: Tools) -> None:
    plan = Plan((Node("upper", (Ref(1),)),), [Ref(2), Ref(0)], base=2)
    assert '  n0["$1"]\n  n1["$2"]\n' in to_mermaid(plan, tools)
    assert "  n1 -> n2;\n" in to_dot(plan, tools)
    assert sorted(to_networkx(plan)) == [0, 1, 2]


def test_long_lines_are_cut() -> None:
    text = to_mermaid(Plan((Node("upper", ("x" * 1000,)),)))
    assert max(map(len, text.splitlines())) < LABEL_LIMIT + 60


def test_a_graph_for_networkx(plan: Plan, tools: Tools) -> None:
    graph = to_networkx(plan, tools)
    assert graph.nodes[1]["tool"] == "put"
    assert graph.nodes[1]["effect"] == "writes(store/{key})"
    assert graph.nodes[0]["rank"] == 7.0
    assert graph.nodes[0]["speculable"] and not graph.nodes[1]["speculable"]
    assert dict(graph.edges) == {
        (0, 1): {"kind": "value"},
        (0, 2): {"kind": "value"},
        (1, 2): {"kind": "guard"},
        (0, 3): {"kind": "value"},
        (2, 3): {"kind": "value"},
    }


def test_json_is_plain_and_says_only_what_is_not_usual(read: Read) -> None:
    plan = read('$3 = upper("a")\n$5 = concat($3.x[*].y, b={"a": [1]}) if $3\nreturn $5')
    assert json.loads(to_json(plan)) == {
        "version": 1,
        "base": 0,
        "nodes": [
            {"id": 0, "tool": "upper", "args": ["a"], "kwargs": {}, "label": 3},
            {
                "id": 1,
                "tool": "concat",
                "args": [{"$ref": 0, "path": ["x", "*", "y"]}],
                "kwargs": {"b": {"a": [1]}},
                "guard": {"$ref": 0},
                "label": 5,
            },
        ],
        "result": {"return": {"$ref": 1}},
    }


PATHS = st.lists(
    st.one_of(st.text(max_size=3), st.integers(-3, 3), st.sampled_from([ALL, "*"])), max_size=3
).map(tuple)
REFS = st.builds(Ref, st.integers(0, 9), PATHS)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(max_size=5),
    REFS,
    st.builds(Template, st.lists(st.one_of(st.text(), REFS), max_size=3).map(tuple)),
)
KEYS = st.one_of(st.text(max_size=4), st.sampled_from(["$ref", "$x"]), st.integers(), st.none())
ARGS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.lists(inner, max_size=2).map(tuple),
        st.dictionaries(KEYS, inner, max_size=2),
    ),
    max_leaves=4,
)
POLICIES = st.builds(
    lambda timeout, retries: DEFAULT.revised(timeout=timeout, retries=retries),
    st.one_of(st.none(), st.floats(0.1, 99)),
    st.integers(0, 5),
)
NODES = st.builds(
    Node,
    tool=st.text(min_size=1, max_size=5),
    args=st.lists(st.one_of(ARGS, st.builds(Each, ARGS)), max_size=2).map(tuple),
    kwargs=st.dictionaries(st.text(max_size=3), ARGS, max_size=2).map(lambda d: tuple(d.items())),
    guard=st.one_of(st.none(), REFS),
    join=st.builds(Join, st.sampled_from(["all", "settled", "first"])),
    after=st.lists(st.integers(0, 9), max_size=2).map(tuple),
    options=st.one_of(st.none(), POLICIES),
    rank=st.floats(0, 100),
    speculable=st.booleans(),
    label=st.one_of(st.none(), st.integers()),
)
PLANS = st.builds(
    Plan,
    st.lists(NODES, max_size=2).map(tuple),
    st.one_of(st.sampled_from(Answer), ARGS),
    st.integers(0, 5),
)


@settings(max_examples=60)
@given(PLANS)
def test_json_gives_the_plan_back(plan: Plan) -> None:
    again = plan_from_json(to_json(plan))
    assert again == plan
    assert repr(again) == repr(plan)  # also tells 1 from True and 1.0


@settings(max_examples=50)
@given(st.text())
def test_drawings_never_break_a_line_or_a_quote(text: str) -> None:
    """Each line of a drawing has as many plain quotes as its form asks for: none or two."""
    plan = Plan((Node("upper", (text, {text: text})),), {text: Ref(0, (text,))})
    for line in to_mermaid(plan).split("\n"):
        assert line.count('"') in (0, 2)
    for line in to_dot(plan).split("\n"):
        assert line.replace("\\\\", "").replace('\\"', "").count('"') in (0, 2)


def test_nan_and_infinity_have_a_form() -> None:
    plan = Plan((Node("f", (float("nan"), float("inf"), -float("inf"))),))
    assert "NaN" not in to_json(plan) and "Infinity" not in to_json(plan)
    assert repr(plan_from_json(to_json(plan))) == repr(plan)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (object(), "line $1: a value of type object has no JSON form"),
        ({1, 2}, "line $1: a value of type set has no JSON form"),
    ],
)
def test_what_has_no_form_is_named(value: Any, text: str) -> None:
    with pytest.raises(PlanError) as caught:
        to_json(Plan((Node("f", ([value],)),)))
    assert (caught.value.kind, str(caught.value)) == ("bad_json", text)


def test_an_option_without_a_form_is_named() -> None:
    options = DEFAULT.revised(fallback=len)
    with pytest.raises(PlanError, match="line \\$4: the option 'fallback' has no JSON form"):
        to_json(Plan((Node("f", options=options, label=4),)))
    with pytest.raises(PlanError, match="a value of type str has no JSON form"):
        to_json(Plan((Node("f", options="fast"),)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        "{}",
        '{"version": 2}',
        '{"version": 1, "base": 0, "nodes": [{}], "result": {"answer": "join"}}',
        '{"version": 1, "base": 0, "nodes": [], "result": {"answer": "maybe"}}',
        '{"version": 1, "base": 0, "nodes": [], "result": {"return": {"$what": 1}}}',
        '{"version": 1, "base": 0, "nodes": [], "result": {"return": {"$ref": "1"}}}',
        '{"version": 1, "base": 0, "nodes": [], "result": {"return": {"$ref": 1, "path": [{}]}}}',
        '{"version": 1, "base": 0, "nodes": [], "result": {"return": {"$ref": 1, "path": [1.5]}}}',
        "[" * 100_000,
    ],
)
def test_what_is_not_a_plan_is_refused(text: str) -> None:
    with pytest.raises(PlanError) as caught:
        plan_from_json(text)
    assert caught.value.kind == "bad_json"
