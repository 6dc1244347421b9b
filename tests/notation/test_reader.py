"""What the reader reports, when, and how it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentflow.errors import PlanError
from agentflow.planner.plan import Each, Join, Ref, Template
from agentflow.planner.read_events import (
    ArgumentClosed,
    ArgumentGrew,
    ArgumentOpened,
    CallOpened,
    CallRead,
    Ended,
    LineClosed,
    ReadEvent,
    Thought,
)
from agentflow.planner.reader import Reader, read_script
from agentflow.planner.script import Diagnostic, JoinMark, Line, Return, Script

Pieces = Callable[..., tuple[list[Any], Any]]


def feed(*pieces: str, **options: Any) -> list[list[ReadEvent]]:
    """The events of each piece."""
    reader = Reader(**options)
    return [reader.feed(piece) for piece in pieces]


def only(text: str, **options: Any) -> Line:
    """The last line of a plan."""
    return read_script(text, **options).lines[-1]


def test_every_step_is_reported_with_the_character_that_completes_it() -> None:
    line = Line(1, "search", ("ab",), (("k", 3),))

    assert feed("1. search(", '"a', 'b"', ", k", "=3", ")", "\n") == [
        [CallOpened(1, "search")],
        [ArgumentOpened(1, 0), ArgumentGrew(1, 0, "a")],
        [ArgumentGrew(1, 0, "b")],
        [ArgumentClosed(1, 0, "ab")],
        [ArgumentOpened(1, "k")],
        [ArgumentClosed(1, "k", 3), CallRead(line)],
        [LineClosed(line)],
    ]


def test_a_line_is_committed_by_the_next_call_on_it() -> None:
    events = feed("1. f(1) ", "2. f(2)")

    assert not [event for event in events[0] if isinstance(event, LineClosed)]
    assert events[1][:2] == [LineClosed(Line(1, "f", (1,))), CallOpened(2, "f")]


def test_a_line_is_committed_by_the_end_of_the_text() -> None:
    reader = Reader()
    reader.feed("1. f(1)")

    assert reader.finish() == [LineClosed(Line(1, "f", (1,))), Ended(None)]


def test_the_guard_and_the_policy_come_with_the_commit() -> None:
    call, end = feed("1. f(1)\n2. f(each $1)", " join first if $1.ok\n")

    assert call[-1] == CallRead(Line(2, "f", (Each(Ref(1)),)))
    guarded = Line(2, "f", (Each(Ref(1)),), guard=Ref(1, ("ok",)), join=Join("first"))
    assert end == [LineClosed(guarded)]


def test_a_string_grows_up_to_its_first_reference(pieces: Pieces) -> None:
    events, _ = pieces(['1. f("a")\n2. f("for $5, \\$1 or $HOME: ${1.n} and more")\n'])

    assert ArgumentGrew(2, 0, "for $5, $1 or $HOME: ") in events


def test_escapes_are_decoded_before_they_are_reported() -> None:
    assert feed('1. f("', "\\", "u00", "e9", "\\n", "\\ud83d", "\\ude00", '"')[1:-1] == [
        [],
        [],
        [ArgumentGrew(1, 0, "é")],
        [ArgumentGrew(1, 0, "\n")],
        [],
        [ArgumentGrew(1, 0, "😀")],
    ]


def test_nested_strings_and_bare_arguments_do_not_grow(pieces: Pieces) -> None:
    events, _ = pieces(['1. f(["abc", {"k": "def"}])\n2. f(Léon (The Professional))\n'])

    assert not [event for event in events if isinstance(event, ArgumentGrew)]
    assert ArgumentClosed(2, 0, "Léon (The Professional)") in events


def test_arguments_that_may_be_one_bare_text_are_not_reported_before_that_is_known() -> None:
    start, rest = feed("1. f($0, ", "of all)\n", known=[0])

    assert start == [CallOpened(1, "f")]
    assert rest[:2] == [
        ArgumentOpened(1, 0),
        ArgumentClosed(1, 0, Template((Ref(0), ", of all"))),
    ]


def test_thoughts_are_reported_and_kept_with_the_next_line() -> None:
    reader = Reader()
    events = reader.feed("**Thought:** find it\nThought 2: slowly\n1. f()\n2. f()\n")

    assert events[:2] == [Thought("find it"), Thought("slowly")]
    assert [line.thought for line in reader.script.lines] == ["find it\nslowly", ""]


def test_the_plan_ends_once_and_what_follows_changes_nothing_but_a_warning() -> None:
    reader = Reader()
    first = reader.feed("1. f()\n2. join()")
    more = reader.feed('\nNow:\n3. f("open\n4. f(\n')

    assert first[-1] == Ended(JoinMark(2))
    assert more + reader.finish() == []
    assert reader.script == Script((Line(1, "f"),), JoinMark(2))
    assert reader.script.warnings == (Diagnostic("after_join"),)


def test_join_without_brackets_ends_the_plan_at_the_end_of_its_line() -> None:
    assert feed("1. f()\njoin", "\n")[1] == [Ended(JoinMark())]


def test_what_is_found_before_an_error_is_not_lost() -> None:
    reader = Reader()

    events = reader.feed("1. f()\n1. f()\n")

    assert events[-1] == LineClosed(Line(1, "f"))
    assert reader.error is not None and reader.error.kind == "duplicate_id"
    for _ in range(2):
        with pytest.raises(PlanError, match="used twice"):
            reader.feed("2. f()\n")
    with pytest.raises(PlanError):
        reader.finish()


def test_an_error_is_raised_at_once_if_nothing_else_was_found() -> None:
    reader = Reader()
    reader.feed("1. f(1)\n2. f('a' b")

    with pytest.raises(PlanError) as caught:
        reader.feed(")")
    assert (caught.value.kind, caught.value.at) == ("bad_args", 2)


@pytest.mark.parametrize(
    ("text", "kind", "parts"),
    [
        ('1. f("a" + "b")\n', "bad_args", ["'+'", "f(\"a\" + \"b\")", "quotes around"]),
        ("1. f(k=1, k=2)\n", "bad_args", ["k is given twice"]),
        ('1. f({"a": 1, "a": 2})\n', "bad_args", ["'a' is given twice"]),
        ("1. f([x for x in y])\n", "bad_args", ["x is not a value"]),
        ("1. f({1, 2})\n", "bad_args", ["a colon"]),
        ("1. f({[1]: 2})\n", "bad_args", ["key", "quotes"]),
        ("1. f(1]\n2. join()", "bad_args", ["']'"]),
        ("1. f(1e999)\n", "bad_args", ["1e999 is not a number"]),
        (f"1. f({'[' * 101}{']' * 101})\n", "bad_args", ["100 deep"]),
        ('1. f("x", g(2))\n', "nested_call", ["g(...)", "line of its own"]),
        ('1. f("a", "b\n2. join()', "unterminated_call", ["close", "f("]),
        ('1. f(k=\n2. join()', "unterminated_call", ["value is missing"]),
        ("1. f(1) if $1 and $2\n", "bad_args", ["if $1 and $2", "one reference"]),
        ("", "empty_plan", ["$1 = tool(argument)"]),
        ("1. f(1)\n1. f(2)\n", "duplicate_id", ["used twice"]),
    ],
)  # fmt: skip
def test_errors_say_what_was_found_where_and_what_to_do(
    text: str, kind: str, parts: list[str]
) -> None:
    with pytest.raises(PlanError) as caught:
        read_script(text)

    assert caught.value.kind == kind
    for part in parts:
        assert part.lower() in str(caught.value).lower()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Apollo 13", "Apollo 13"),
        ("2001: A Space Odyssey", "2001: A Space Odyssey"),
        ("(500) Days of Summer", "(500) Days of Summer"),
        ("Schindler's List", "Schindler's List"),
        ("#1 hit (of 2024)", "#1 hit (of 2024)"),
        ("https://a.test/?q=x#top", "https://a.test/?q=x#top"),
        ("1984", 1984),
        ("True", True),
        ("True Grit", "True Grit"),
        ("-1_000.5e-1", -100.05),
        ("0x1F", 31),
        ("('a', \"b\",)", ["a", "b"]),
        ("('a')", "a"),
        ('"a" "b"\n  "c"', "abc"),
        ("'''it's'''", "it's"),
        ('"""say "hi" """', 'say "hi" '),
        (r'r"\d+\""', r"\d+\""),
        (r'"C:\users \x4 \N{DASH} \/"', r"C:\users \x4 \N{DASH} /"),
        (r'"\101\0"', "A\0"),
        (r'"\ud83d \ude00"', "\ufffd \ufffd"),
        ('"a\\\nb"', "ab"),
        ("“it’s ‘so’”", "it’s ‘so’"),
        ('{"a": 1, None: 2, 3: [], true: {}}', {"a": 1, "null": 2, "3": [], "true": {}}),
    ],
)
def test_arguments_are_read_as_their_values(text: str, value: object) -> None:
    [found] = only(f"1. f({text})\n").args

    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text", ["2 + 3", "$0 * 2", "2024-01-31", "Oslo, 20240131", "k = x", "a 'b'"]
)
def test_what_looks_like_a_sum_or_a_name_is_no_bare_text(text: str) -> None:
    with pytest.raises(PlanError) as caught:
        read_script(f"1. f({text})\n", known=[0])
    assert caught.value.kind == "bad_args"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("$0 costs US$0, $0.50, $0,000, $0M, $0bn, $0 million", 1),
        ("${0}0 and $0k", 1),
        ("$0km, $0.x, $0,1, $0%, x$0, $0人", 6),
        ("$00 $HOME ${HOME} ${ 0 } $", 1),
        ("$99999999999999999999", 0),
    ],
)
def test_references_in_text_are_told_from_money(text: str, wanted: int) -> None:
    [value] = only(f'1. f("{text}")\n', known=[0]).args

    parts = value.parts if isinstance(value, Template) else (value,)
    assert [part for part in parts if isinstance(part, Ref)] == [Ref(0)] * wanted


def test_ids_of_earlier_plans_can_be_referred_to_and_defined_anew() -> None:
    script = read_script('1. f("so $1 then $2")\n2. f("now $2")\n', known=[1])

    assert script.lines[0].args == (Template(("so ", Ref(1), " then $2")),)
    assert script.lines[1].args == ("now $2",)
    assert Diagnostic("unresolved_ref_literal", 1) in script.warnings


def test_lines_know_where_they_stand_in_the_text() -> None:
    script = read_script('Plan:\n\n1. f("a\nb",\n  2)\n2. f() 3. f()\njoin()\n')

    assert [line.row for line in script.lines] == [3, 6, 6]


@pytest.mark.parametrize(
    ("text", "tools"),
    [
        ("1. Search (the web) for it\n", ()),
        ("I will use 1. f(x) here\n", None),
        ("I will use 1. g(x) here\n", ("f",)),
        ("# 1. f(1)\n", ("f",)),
        ("1. f [1]\n", ("f",)),
        ("$1.f(1)\n", ("f",)),
    ],
)
def test_prose_is_not_read_as_calls(text: str, tools: Any) -> None:
    assert [line.id for line in read_script(text + "9. f()\n", tools=tools).lines] == [9]


@pytest.mark.parametrize(
    ("text", "tools"),
    [
        ("1. sarch (query='x')\n", ("search",)),
        ("1. sarch (\"x\")\n", ("search",)),
        ("1. search (x)\n", ("search",)),
        ("Sure: 1. search(x)\n", ("search",)),
        ("1. search (x)\n", None),
    ],
)  # fmt: skip
def test_calls_are_not_taken_for_prose(text: str, tools: Any) -> None:
    assert len(read_script(text, tools=tools).lines) == 1


@pytest.mark.parametrize(
    "head",
    [
        *["1. ", "1) ", "(1) ", "[1] ", "1: ", "1 = ", "$1 = ", "${1} = ", "$1: ", "01. ", "Step 1: ", "TASK #1. "],
        *["Action: 1. ", "#1. ", "## 1. ", "**1.** ", "- **1.** `", "> 1. ", "→ 1. ", "\ufeff1. ", "1、", "1 - ", "2. $1 = ", "\t1.\t"],
    ],
)  # fmt: skip
def test_ids_are_written_in_many_ways(head: str) -> None:
    assert only(f"{head}search('x')\n") == Line(1, "search", ("x",))


def test_a_call_of_a_tool_inside_a_bare_argument_is_an_error_only_if_tools_are_known() -> None:
    assert only("1. f(sqrt(16))\n", tools=("f",)).args == ("sqrt(16)",)
    with pytest.raises(PlanError) as caught:
        read_script("1. f(g(a))\n", tools=("f", "g"))
    assert caught.value.kind == "nested_call"


def test_calls_without_ids_are_noticed() -> None:
    script = read_script('f("a")\n1. f("b")\njoin()\n', tools=("f",))

    assert script.lines == (Line(1, "f", ("b",)),)
    assert Diagnostic("call_without_id") in script.warnings


@pytest.mark.parametrize("text", ["1. f([1, {'a': [2\n", "1. f(1\n", "1. f(a b\n", "1. f(k=1,\n"])
def test_a_missing_bracket_is_closed_by_the_next_head(text: str) -> None:
    for head in ("2. f()\n", "join()\n", "Thought: so\n2. f()\n", "return $1\n", "<END_OF_PLAN>\n"):
        script = read_script(text + head)

        assert Diagnostic("unclosed_call", 1) in script.warnings
        assert script.lines[0].id == 1


def test_a_returned_value_ends_the_plan() -> None:
    [events] = feed("1. f()\nreturn [$1,\n 'x ${1.y}']\n")

    assert events[-1] == Ended(Return([Ref(1), Template(("x ", Ref(1, ("y",))))]))
