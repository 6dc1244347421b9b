"""JSON arguments are read while they are being written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from agentflow.errors import ArgumentError, MalformedArguments
from agentflow.tools.arguments import (
    ArgumentClosed,
    ArgumentEvent,
    ArgumentGrew,
    ArgumentOpened,
    CallBroken,
    CallClosed,
)
from agentflow.tools.json_arguments import MOST_NESTED, ArgumentsReader


def fed(reader: ArgumentsReader, pieces: Iterable[str]) -> list[ArgumentEvent]:
    return [event for piece in pieces for event in reader.feed(piece)]


def events(*pieces: str) -> list[ArgumentEvent]:
    """What comes of some pieces and the end of the text."""
    reader = ArgumentsReader(0, "search")
    return fed(reader, pieces) + reader.finish()


def error(*pieces: str) -> MalformedArguments:
    """Why the pieces cannot be read; the last event, and the only one of its kind."""
    *before, last = events(*pieces)
    assert isinstance(last, CallBroken)
    assert not any(isinstance(event, CallBroken | CallClosed) for event in before)
    return last.error


def values(*pieces: str) -> dict[str, Any]:
    """The values of arguments that can be read."""
    reader = ArgumentsReader(0, "search")
    fed(reader, pieces)
    assert reader.ended
    return reader.arguments


def test_an_argument_opens_grows_and_closes_as_it_is_written() -> None:
    reader = ArgumentsReader(7, "search")

    assert reader.feed('{"query": ') == []
    assert reader.feed('"') == [ArgumentOpened(7, "query")]
    assert reader.feed("two wo") == [ArgumentGrew(7, "query", "two wo")]
    assert reader.feed('rds", "k"') == [
        ArgumentGrew(7, "query", "rds"),
        ArgumentClosed(7, "query", "two words"),
    ]
    assert reader.feed(": 1") == [ArgumentOpened(7, "k")]
    assert reader.end is None
    assert reader.feed("}") == [ArgumentClosed(7, "k", 1), CallClosed(7)]
    assert reader.ended
    assert reader.arguments == {"query": "two words", "k": 1}


def test_growth_of_one_piece_of_text_is_told_once() -> None:
    found = events('{"a": "one\\n\\u0041\\ud83d\\ude00\\"two', ' \\t"}')

    grown = [event for event in found if isinstance(event, ArgumentGrew)]
    assert grown == [ArgumentGrew(0, "a", 'one\nA😀"two'), ArgumentGrew(0, "a", " \t")]


@pytest.mark.parametrize(
    ("written", "character"),
    [("\\n", "\n"), ("\\u00e9", "é"), ("\\ud83d\\ude00", "😀"), ('\\"', '"'), ("\\\\", "\\")],
)
def test_an_escape_is_told_when_it_is_complete(written: str, character: str) -> None:
    reader = ArgumentsReader(0, "search")
    reader.feed('{"a": "')

    *before, last = [reader.feed(char) for char in written]

    assert not any(before)
    assert last == [ArgumentGrew(0, "a", character)]


@pytest.mark.parametrize(
    ("follows", "text"),
    [
        ("x", "\ud83dx"),
        ('"', "\ud83d"),
        ("\\n", "\ud83d\n"),
        ("\\u0", "\ud83d"),
        ("\\ud8", "\ud83d"),
        ("\\ud83d\\ude00", "\ud83d😀"),
    ],
)
def test_half_a_surrogate_pair_waits_until_the_other_cannot_come(follows: str, text: str) -> None:
    reader = ArgumentsReader(0, "search")
    assert not any(fed(reader, '{"a": "\\ud83d')[1:])

    found = fed(reader, follows)

    pieces = [event.text for event in found if isinstance(event, ArgumentGrew)]
    assert "".join(pieces) == text


def test_only_texts_that_are_arguments_grow() -> None:
    found = events('{"a": ["x", {"b": "y"}], "c": {"d": "z"}}')

    assert found == [
        ArgumentOpened(0, "a"),
        ArgumentClosed(0, "a", ["x", {"b": "y"}]),
        ArgumentOpened(0, "c"),
        ArgumentClosed(0, "c", {"d": "z"}),
        CallClosed(0),
    ]


@pytest.mark.parametrize("written", ["12", "-0", "1.5", "1e5", "12345678901234567890", "1E400"])
def test_a_number_closes_when_what_follows_proves_its_end(written: str) -> None:
    reader = ArgumentsReader(0, "search")

    assert fed(reader, '{"k":' + written) == [ArgumentOpened(0, "k")]
    assert reader.arguments == {}
    assert reader.feed(" ") == [ArgumentClosed(0, "k", json.loads(written))]
    assert type(reader.arguments["k"]) is type(json.loads(written))


@pytest.mark.parametrize(("written", "value"), [("true", True), ("false", False), ("null", None)])
def test_a_word_closes_with_its_last_character(written: str, value: bool | None) -> None:
    reader = ArgumentsReader(0, "search")

    assert fed(reader, '{"k":' + written[:-1]) == [ArgumentOpened(0, "k")]
    assert reader.feed(written[-1]) == [ArgumentClosed(0, "k", value)]


def test_an_argument_written_twice_is_opened_again_and_the_last_value_stays() -> None:
    reader = ArgumentsReader(0, "search")

    found = fed(reader, ['{"a": 1, "b": 2, "a": 3}'])

    assert [event for event in found if isinstance(event, ArgumentOpened)] == [
        ArgumentOpened(0, "a"),
        ArgumentOpened(0, "b"),
        ArgumentOpened(0, "a"),
    ]
    assert list(reader.arguments.items()) == [("a", 3), ("b", 2)]


@pytest.mark.parametrize("text", ["", " \n\t\r "])
def test_no_text_stands_for_no_arguments(text: str) -> None:
    assert events(*text) == [CallClosed(0)]


def test_what_follows_the_closing_brace_is_not_looked_at() -> None:
    reader = ArgumentsReader(0, "search")

    assert reader.feed(' {} {"a": nonsense') == [CallClosed(0)]
    assert reader.feed("more") == reader.finish() == []
    assert reader.end == 3


def test_nothing_is_said_after_an_error() -> None:
    reader = ArgumentsReader(0, "search")

    assert len(reader.feed("{x")) == 1
    assert reader.feed('"a": 1}') == reader.finish() == []
    assert not reader.ended


def test_what_was_found_before_an_error_is_told_first() -> None:
    found = events('{"a": "x", "k": 5, oh}')

    assert [type(event) for event in found] == [
        ArgumentOpened,
        ArgumentGrew,
        ArgumentClosed,
        ArgumentOpened,
        ArgumentClosed,
        CallBroken,
    ]


def test_an_error_names_the_tool_the_fault_its_place_and_the_remedy() -> None:
    found = error('{"query": "x" "k": 1}')

    assert isinstance(found, ArgumentError)
    assert (found.tool, found.position) == ("search", 14)
    assert str(found) == (
        "search: the arguments cannot be read: a comma or a closing brace is expected,"
        """ at character 14, in '{"query": "x" "'. Write one JSON object."""
    )


def test_an_error_quotes_no_more_than_a_little() -> None:
    found = error('{"query": "' + "long " * 10_000 + '" 1')

    assert "long long" in str(found)
    assert len(str(found)) < 250


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("false", "boolean"),
        ("true", "boolean"),
        ("null", "null"),
        ("[1]", "array"),
        ('"x"', "string"),
        ("3", "number"),
        ("-1", "number"),
    ],
)
def test_arguments_of_another_type_are_refused_at_their_first_character(
    text: str, kind: str
) -> None:
    reader = ArgumentsReader(0, "search")

    (broken,) = reader.feed("  " + text[0])

    assert isinstance(broken, CallBroken)
    assert f"they are a JSON {kind}, not an object" in str(broken.error)
    assert broken.error.position == 2


@pytest.mark.parametrize(
    ("text", "problem", "position"),
    [
        ("S", "do not begin with a brace", 0),
        ("{,", "a key in double quotes is expected", 1),
        ("{'", "a key in double quotes is expected", 1),
        ('{"a" 1', "a colon is expected", 5),
        ('{"a": ,', "a value is expected", 6),
        ('{"a": }', "a value is expected", 6),
        ('{"a": ]', "a value is expected", 6),
        ('{"a": [,', "a value is expected", 7),
        ('{"a": [1}', "a comma or a closing bracket is expected", 8),
        ('{"a": 1]', "a comma or a closing brace is expected", 7),
        ('{"a": 1 ,\n }', "a comma stands before the closing bracket", 8),
        ('{"a": [1 , ]', "a comma stands before the closing bracket", 9),
        ('{"a": tra', "true is expected", 6),
        ('{"a": nulL', "null is expected", 6),
        ('{"a": N', "a value is expected", 6),
        ('{"a": I', "a value is expected", 6),
        ('{"a": -I', "a number is not complete", 6),
        ('{"a": +', "a value is expected", 6),
        ('{"a": 01', "a number ends here", 7),
        ('{"a": 1.}', "a number is not complete", 7),
        ('{"a": 1.5e+}', "a number is not complete", 9),
        ('{"a": 1e++', "a number is not complete", 7),
        ('{"a": 1 2', "a comma or a closing brace is expected", 8),
        ('{"a": 1_', "a number ends here", 7),
        ('{"a": ' + "9" * 4301 + "}", "a number has too many digits", 6),
        ('{"a": "x\n', "has to be escaped", 8),
        ('{"a": "x\\q', "a backslash before 'q'", 8),
        ('{"a": "x\\u12x', "needs four hexadecimal digits", 8),
        ('{"a": "\\ud83d\\uZ', "needs four hexadecimal digits", 13),
        ('{"\\x', "a backslash before 'x'", 2),
        ("\ufeff", "do not begin with a brace", 0),
        ('{"a": \u00a0', "a value is expected", 6),
    ],
)
def test_a_fault_is_found_with_the_character_that_proves_it(
    text: str, problem: str, position: int
) -> None:
    reader = ArgumentsReader(0, "search")

    assert not any(isinstance(event, CallBroken) for event in fed(reader, text[:-1]))
    *_, broken = reader.feed(text[-1])

    assert isinstance(broken, CallBroken)
    assert problem in str(broken.error)
    assert broken.error.position == position
    assert str(error(text)) == str(broken.error)


def test_only_the_escapes_of_json_are_read() -> None:
    escapes = {char for char in map(chr, range(128)) if isinstance(json_or_none(char), dict)}

    for char in map(chr, range(128)):
        broken = any(isinstance(event, CallBroken) for event in events(f'{{"a": "\\{char}"}}'))
        assert broken == (char not in escapes), char


def json_or_none(char: str) -> Any:
    try:
        return json.loads(f'{{"a": "\\{char}"}}')
    except json.JSONDecodeError:
        return None


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("{", 1),
        ('{"a', 1),
        ('{"a"', 4),
        ('{"a": ', 6),
        ('{"a": "x', 6),
        ('{"a": "x\\', 6),
        ('{"a": "x\\ud83d\\u', 6),
        ('{"a": fal', 6),
        ('{"a": -', 6),
        ('{"a": 12', 8),
        ('{"a": 12.', 8),
        ('{"a": [1, ', 10),
        ('{"a": 1,', 8),
        ('{"a": 1', 7),
        ('{"a": {}', 8),
    ],
)
def test_arguments_that_end_too_early_are_refused_where_json_refuses_them(
    text: str, position: int
) -> None:
    with pytest.raises(json.JSONDecodeError) as python:
        json.loads(text)

    found = error(*text)

    assert "they end too early, after" in str(found)
    assert found.position == position <= python.value.pos


def test_arguments_may_be_nested_deeply_but_not_without_end() -> None:
    deep = "[" * (MOST_NESTED - 1)
    assert values('{"a":', deep, "]" * (MOST_NESTED - 1), "}")

    found = error('{"a":', deep + "[")

    assert f"nested more than {MOST_NESTED} deep" in str(found)
    assert found.position == 5 + MOST_NESTED - 1
    assert error('{"a":' * 100_000).position == MOST_NESTED * 5


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "' + "x" * 100_000 + '"}',
        '{"a": "' + "\\n" * 50_000 + '"}',
        '{"a": "' + "\\ud83d\\ude00" * 10_000 + '"}',
        '{"a": ' + "[" + "1, " * 30_000 + "1]}",
        "{" + " " * 100_000 + "}",
        '{"a": 0.' + "1" * 100_000 + "}",
        '{"' + "k" * 100_000 + '": 1}',
    ],
    ids=["text", "escapes", "pairs", "list", "blanks", "number", "key"],
)
@pytest.mark.parametrize("size", [1, 7, 1_000_000])
def test_long_arguments_are_read_whole(text: str, size: int) -> None:
    pieces = [text[at : at + size] for at in range(0, len(text), size)]

    assert values(*pieces) == json.loads(text)


def test_only_the_values_are_kept() -> None:
    reader = ArgumentsReader(0, "search")
    for _ in range(1000):
        reader.feed(" " * 1000)
    reader.feed('{"a": "')
    for _ in range(1000):
        reader.feed("\\u0041" * 1000)
    reader.feed('"')

    kept = [getattr(reader, name) for name in ArgumentsReader.__slots__]
    assert reader.arguments == {"a": "A" * 1_000_000}
    assert sum(len(value) for value in kept if isinstance(value, str | list)) < 200
