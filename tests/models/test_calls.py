"""Tool calls are put together from fragments, and closed as soon as they are complete."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.executor.models.base import CallPiece, CallRequest
from agentflow.executor.models.calls import (
    BadArguments,
    CallAssembler,
    CallClosed,
    CallGrew,
    CallOpened,
    read_arguments,
)


def first(index: int, arguments: str = "", *, id: str | None = None, name: str = "f") -> CallPiece:
    return CallPiece(index, id or f"id{index}", name, arguments)


def more(index: int, arguments: str) -> CallPiece:
    return CallPiece(index, None, None, arguments)


def run(*pieces: CallPiece) -> tuple[list[Any], tuple[CallRequest, ...]]:
    assembler = CallAssembler()
    events = [event for piece in pieces for event in assembler.feed(piece)]
    return events + assembler.finish(), assembler.calls()


def test_a_call_opens_grows_and_closes_at_its_brace() -> None:
    assembler = CallAssembler()

    assert assembler.feed(first(0)) == [CallOpened(0, "id0", "f")]
    assert assembler.feed(more(0, '{"a":')) == [CallGrew(0, '{"a":')]
    assert assembler.feed(more(0, " 1}")) == [
        CallGrew(0, " 1}"),
        CallClosed(0, CallRequest("id0", "f", '{"a": 1}')),
    ]
    assert assembler.finish() == []


def test_arguments_may_come_with_the_name() -> None:
    events, _ = run(first(0, '{"a": 1}'))

    assert [type(event) for event in events] == [CallOpened, CallGrew, CallClosed]


def test_interleaved_calls_are_kept_apart() -> None:
    _, calls = run(
        first(0, "{"), first(1, "{"), more(0, '"a"'), more(1, '"b"'), more(0, ":1}"), more(1, ":2}")
    )

    assert calls == (CallRequest("id0", "f", '{"a":1}'), CallRequest("id1", "f", '{"b":2}'))


def test_calls_that_all_have_index_0_are_told_apart_by_id() -> None:
    _, calls = run(first(0, '{"a":1}', id="x"), first(0, '{"a":2}', id="y"), first(0, "{}", id="z"))

    assert [(call.id, call.arguments_text) for call in calls] == [
        ("x", '{"a":1}'),
        ("y", '{"a":2}'),
        ("z", "{}"),
    ]


def test_id_and_name_repeated_on_every_fragment_are_one_call() -> None:
    _, calls = run(first(0, "{"), first(0, '"a":1'), first(0, "}"))

    assert calls == (CallRequest("id0", "f", '{"a":1}'),)


def test_a_call_without_id_gets_one() -> None:
    _, calls = run(CallPiece(0, None, "f", "{}"), CallPiece(1, None, "g", "{}"))

    assert [call.id for call in calls] == ["call_0", "call_1"]


def test_arguments_before_the_name_wait_for_it() -> None:
    events, _ = run(CallPiece(0, "id0", None, '{"a":1}'), CallPiece(0, None, "f", ""))

    assert events == [
        CallOpened(0, "id0", "f"),
        CallGrew(0, '{"a":1}'),
        CallClosed(0, CallRequest("id0", "f", '{"a":1}')),
    ]


def test_what_follows_the_closing_brace_belongs_to_no_call() -> None:
    _, calls = run(first(0, '{"a":1}{"a":2}'), more(0, "garbage"))

    assert calls == (CallRequest("id0", "f", '{"a":1}'),)


@pytest.mark.parametrize("arguments", ["", "false", '{"a": "unfinished'])
def test_a_call_without_a_closing_brace_closes_with_the_reply(arguments: str) -> None:
    events, _ = run(first(0, arguments))

    assert events[-1] == CallClosed(0, CallRequest("id0", "f", arguments))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('"\\{}[]ax é', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.text('"\\{}[]a'), JSON), st.booleans(), st.data())
def test_every_chunking_closes_exactly_at_the_end(
    arguments: dict[str, Any], ascii: bool, data: st.DataObject
) -> None:
    text = json.dumps(arguments, ensure_ascii=ascii)
    cuts = sorted(data.draw(st.lists(st.integers(1, len(text) - 1), max_size=6, unique=True)))
    bounds = [0, *cuts, len(text)]
    assembler = CallAssembler()
    assembler.feed(first(0))

    closed = [
        any(isinstance(event, CallClosed) for event in assembler.feed(more(0, text[a:b])))
        for a, b in pairwise(bounds)
    ]

    assert closed == [False] * len(cuts) + [True]
    assert read_arguments(assembler.calls()[0]) == arguments


@pytest.mark.parametrize("text", ["", "  ", "{}"])
def test_no_arguments_are_an_empty_object(text: str) -> None:
    assert read_arguments(CallRequest("id", "f", text)) == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": ', "at character 6"),
        ("[1]", "JSON array"),
        ("false", "JSON boolean"),
        ("3", "JSON number"),
        ('"x"', "JSON string"),
        ("null", "JSON null"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_unusable_arguments_are_told_to_the_model(text: str, problem: str) -> None:
    bad = read_arguments(CallRequest("id", "f", text))

    assert isinstance(bad, BadArguments)
    assert problem in str(bad)
    assert len(str(bad)) < 500
