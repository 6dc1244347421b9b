"""Printing: what is printed reads as what was printed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.planner.lower import lower
from agentflow.planner.plan import ALL, Answer, Each, Join, Node, Plan, Ref, Template
from agentflow.planner.printer import print_line, print_plan, print_script, print_value
from agentflow.planner.reader import read_script
from agentflow.planner.script import JoinMark, Line, Return, Script
from agentflow.tools.spec import ToolSpec

TRICKY = st.sampled_from(
    [
        "$1",
        "\\",
        "\\$1",
        "${1}",
        "$",
        "US",
        '"',
        "'",
        "\n",
        "1. f(x)",
        ")",
        "#",
        "each ",
        "\x00",
        "🙂",
    ]
)
TEXT = st.lists(TRICKY | st.text(max_size=3), max_size=3).map("".join)
PATHS = st.lists(st.just(ALL) | st.integers(-9, 9) | TEXT, max_size=3).map(tuple)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
NAMES = st.sampled_from(["search", "a.b-c", "_x", "tool_1", "Join_", "returns", "größe"])


def references(ids: list[int]) -> st.SearchStrategy[Ref]:
    return st.builds(Ref, st.sampled_from(ids), PATHS)


def templates(ids: list[int]) -> st.SearchStrategy[Template]:
    """Strings with references: no empty text, no two texts side by side, no lone reference."""
    parts = st.lists(st.tuples(TEXT.filter(bool), references(ids)), min_size=1, max_size=3)
    return parts.map(lambda pairs: Template(tuple(part for pair in pairs for part in pair)))


def values(ids: list[int]) -> st.SearchStrategy[Any]:
    """Anything that can stand in an argument."""
    leaves = SCALARS | references(ids) | templates(ids) if ids else SCALARS
    nested = st.lists(leaves, max_size=2) | st.dictionaries(TEXT, leaves, max_size=2)
    deeper = st.lists(nested, max_size=2) | st.dictionaries(TEXT, nested, max_size=1)
    return leaves | leaves | nested | deeper


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Scripts in which every reference is to an earlier line."""
    lines: list[Line] = []
    numbers = draw(st.lists(st.integers(0, 10**17), max_size=4, unique=True))
    for index, number in enumerate(numbers):
        ids = numbers[:index]
        sources = references(ids) | st.lists(values(ids), max_size=2) if ids else st.just([1])
        arguments = values(ids) | st.builds(Each, sources)
        kwargs = draw(st.dictionaries(NAMES, arguments, max_size=2))
        lines.append(
            Line(
                number,
                draw(NAMES.filter(str.isascii)),
                tuple(draw(st.lists(arguments, max_size=3))),
                tuple(kwargs.items()),
                draw(st.none() | references(ids)) if ids else None,
                draw(st.sampled_from([Join(), Join("settled"), Join("first"), Join("quorum", 3)])),
                draw(st.sampled_from(["", "why", "first\nthen 2. f(x)", 'a "b": $1'])),
            )
        )
    ends = st.none() | st.builds(JoinMark, st.none() | st.integers(0, 99))
    returned = st.builds(Return, values(numbers))
    return Script(tuple(lines), draw(returned if not lines else ends | returned))


def typed(script: Script) -> list[str]:
    """The values of a script with their types: ``True`` and ``1`` are equal, not the same."""
    found = [repr((line.args, line.kwargs)) for line in script.lines]
    return [*found, repr(script.end)]


@settings(max_examples=200)
@given(scripts())
def test_reading_what_is_printed_gives_the_same_script(script: Script) -> None:
    read = read_script(print_script(script))

    assert read == script
    assert typed(read) == typed(script)


@settings(max_examples=200)
@given(TEXT)
def test_a_text_is_never_read_as_a_reference(text: str) -> None:
    script = Script((Line(1, "f"), Line(2, "f", (text, [text], {text: text}))))

    assert read_script(print_script(script)) == script


def test_a_line_is_printed_in_one_readable_form() -> None:
    line = Line(
        3,
        "summarise",
        (
            Each(Ref(1, ("hits", ALL, "a b"))),
            Template(("see ", Ref(2, ("x",)), " for $5")),
            'say "hi"',
        ),
        (("options", {"deep": [True, None, -1.5, Ref(2, (-1,))]}),),
        guard=Ref(2, ("found",)),
        join=Join("quorum", 2),
        thought="first\nthen",
    )

    assert print_line(line) == (
        "Thought: first\nThought: then\n"
        '$3 = summarise(each $1.hits[*]["a b"], "see ${2.x} for \\$5", "say \\"hi\\"", '
        'options={"deep": [True, None, -1.5, $2[-1]]}) join quorum(2) if $2.found'
    )


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (None, ""),
        (JoinMark(), "join()\n"),
        (JoinMark(7), "$7 = join()\n"),
        (Return([Ref(1)]), "return [$1]\n"),
    ],
)
def test_the_end_is_printed_last(end: Any, text: str) -> None:
    assert print_script(Script((), end)) == text


@pytest.mark.parametrize("value", [float("inf"), float("nan"), b"x", {1}, object()])
def test_what_the_notation_cannot_hold_is_shown_by_its_type(value: object) -> None:
    assert print_value(value) == f"<{type(value).__name__}>"


def test_tuples_and_keys_print_as_json_has_them() -> None:
    assert print_value({"a": (1, ()), 2: "b"}) == '{"a": [1, []], "2": "b"}'


def test_a_plan_prints_with_ids_from_one_and_its_order_in_comments() -> None:
    plan = Plan(
        (
            Node("search", ("a",)),
            Node("store", ("k", Ref(0, ("n",))), guard=Ref(0)),
            Node("fetch", (Template(("x ", Ref(1))),), after=(0, 1)),
        ),
        Ref(2),
    )

    assert print_plan(plan) == (
        '$1 = search("a")\n'
        '$2 = store("k", $1.n) if $1\n'
        '$3 = fetch("x ${2}")  # after $1, $2\n'
        "return $3\n"
    )


@pytest.mark.parametrize(
    "result", [Answer.JOIN, Answer.NOTHING, Ref(1, ("n",)), [Ref(0), "x ${1}"]]
)
def test_a_plan_that_is_printed_read_and_lowered_is_the_same_plan(result: Any) -> None:
    tools = {name: ToolSpec(name, open=True, rest=True) for name in ("search", "fetch")}
    plan = Plan(
        (
            Node("search", ("a $1",), (("k", [1, None]),), label=1),
            Node("fetch", (Each(Ref(0, ("hits", ALL))),), (), Ref(0), Join("settled"), label=2),
        ),
        result,
    )

    assert lower(read_script(print_plan(plan)), tools) == plan
