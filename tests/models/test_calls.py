"""Tool calls are put together from fragments, and their arguments read while they come."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.executor.models.base import CallPiece, CallRequest
from agentflow.executor.models.calls import CallAssembler, CallTexts
from agentflow.tools.arguments import (
    ArgumentClosed,
    ArgumentEvent,
    ArgumentGrew,
    ArgumentOpened,
    CallBroken,
    CallClosed,
    CallOpened,
)


def first(index: int, arguments: str = "", *, id: str | None = None, name: str = "f") -> CallPiece:
    return CallPiece(index, id or f"id{index}", name, arguments)


def more(index: int, arguments: str) -> CallPiece:
    return CallPiece(index, None, None, arguments)


def run(*pieces: CallPiece) -> tuple[list[ArgumentEvent], CallAssembler]:
    assembler = CallAssembler()
    events = [event for piece in pieces for event in assembler.feed(piece)]
    return events + assembler.finish(), assembler


def closed(events: Iterable[ArgumentEvent]) -> list[int]:
    """The calls that were closed, in that order."""
    return [event.id for event in events if isinstance(event, CallClosed)]


def test_a_call_opens_grows_and_closes_at_its_brace() -> None:
    assembler = CallAssembler()

    assert assembler.feed(first(0)) == [CallOpened(0, "f")]
    assert assembler.feed(more(0, '{"a":')) == []
    assert assembler.feed(more(0, ' "x')) == [ArgumentOpened(0, "a"), ArgumentGrew(0, "a", "x")]
    assert assembler.feed(more(0, 'y", "k": 1')) == [
        ArgumentGrew(0, "a", "y"),
        ArgumentClosed(0, "a", "xy"),
        ArgumentOpened(0, "k"),
    ]
    assert assembler.arguments(0) == {"a": "xy"}
    assert assembler.feed(more(0, "}")) == [ArgumentClosed(0, "k", 1), CallClosed(0)]
    assert assembler.finish() == []
    assert assembler.call(0) == CallRequest("id0", "f", '{"a": "xy", "k": 1}')


def test_arguments_may_come_with_the_name() -> None:
    events, _ = run(first(0, '{"a": 1}'))

    assert [type(event) for event in events] == [
        CallOpened,
        ArgumentOpened,
        ArgumentClosed,
        CallClosed,
    ]


def test_interleaved_calls_are_kept_apart() -> None:
    events, assembler = run(
        first(0, "{"), first(1, "{"), more(0, '"a"'), more(1, '"b"'), more(1, ":2}"), more(0, ":1}")
    )

    assert assembler.calls() == (
        CallRequest("id0", "f", '{"a":1}'),
        CallRequest("id1", "f", '{"b":2}'),
    )
    assert [assembler.arguments(place) for place in (0, 1)] == [{"a": 1}, {"b": 2}]
    assert closed(events) == [1, 0]


def test_calls_that_all_have_index_0_are_told_apart_by_id() -> None:
    events, assembler = run(
        first(0, '{"a":1}', id="x"), first(0, '{"a":2}', id="y"), first(0, "{}", id="z")
    )

    assert [(call.id, call.arguments_text) for call in assembler.calls()] == [
        ("x", '{"a":1}'),
        ("y", '{"a":2}'),
        ("z", "{}"),
    ]
    assert closed(events) == [0, 1, 2]


def test_further_fragments_of_an_index_belong_to_its_last_call() -> None:
    _, assembler = run(first(0, "{}", id="x"), first(0, "{", id="y"), more(0, '"a":1}'))

    assert [call.arguments_text for call in assembler.calls()] == ["{}", '{"a":1}']


@pytest.mark.parametrize(
    "again",
    [("id0", "f"), ("id0", None), ("id0", "other"), ("another", None), (None, "f")],
    ids=str,
)
def test_id_or_name_given_again_are_no_new_call(again: tuple[str | None, str | None]) -> None:
    _, assembler = run(first(0, "{"), CallPiece(0, *again, '"a":1'), CallPiece(0, *again, "}"))

    assert assembler.calls() == (CallRequest("id0", "f", '{"a":1}'),)


def test_a_call_without_id_gets_one() -> None:
    _, assembler = run(CallPiece(0, None, "f", "{}"), CallPiece(1, None, "g", "{}"))

    assert [call.id for call in assembler.calls()] == ["call_0", "call_1"]


def test_arguments_before_the_name_wait_for_it() -> None:
    assembler = CallAssembler()

    assert assembler.feed(CallPiece(0, "id0", None, '{"a"')) == []
    assert assembler.feed(CallPiece(0, None, None, ":1")) == []
    assert assembler.arguments(0) == {}
    assert assembler.feed(CallPiece(0, None, "f", "}")) == [
        CallOpened(0, "f"),
        ArgumentOpened(0, "a"),
        ArgumentClosed(0, "a", 1),
        CallClosed(0),
    ]


def test_a_call_that_never_gets_a_name_is_opened_when_the_reply_ends() -> None:
    events, assembler = run(CallPiece(0, "id0", None, "{}"), first(1, "{}"))

    assert events == [CallOpened(1, "f"), CallClosed(1), CallOpened(0, ""), CallClosed(0)]
    assert assembler.call(0) == CallRequest("id0", "", "{}")


def test_what_follows_the_closing_brace_belongs_to_no_call() -> None:
    events, assembler = run(first(0, '{"a":1}{"a":2}'), more(0, "garbage"))

    assert assembler.calls() == (CallRequest("id0", "f", '{"a":1}'),)
    assert [event.value for event in events if isinstance(event, ArgumentClosed)] == [1]


@pytest.mark.parametrize("arguments", ["", "  \n"])
def test_a_call_without_arguments_closes_with_the_reply(arguments: str) -> None:
    events, assembler = run(first(0, arguments))

    assert events == [CallOpened(0, "f"), CallClosed(0)]
    assert assembler.arguments(0) == {}


@pytest.mark.parametrize(
    ("arguments", "position"), [("false", 0), ("x", 0), ('{"a": "unfinished', 6), ('{"a": 1', 7)]
)
def test_a_call_that_is_no_object_breaks_and_keeps_its_text(arguments: str, position: int) -> None:
    events, assembler = run(first(0, arguments))

    broken = events[-1]
    assert isinstance(broken, CallBroken)
    assert (broken.id, broken.error.tool, broken.error.position) == (0, "f", position)
    assert closed(events) == []
    assert assembler.calls() == (CallRequest("id0", "f", arguments),)


def test_one_broken_call_leaves_the_others_alone() -> None:
    events, assembler = run(first(0, "{"), first(1, "{"), more(0, "}"), more(1, "nonsense"))

    assert closed(events) == [0]
    assert [event.id for event in events if isinstance(event, CallBroken)] == [1]
    assert assembler.call(1).arguments_text == "{nonsense"


def test_there_is_no_call_before_its_first_piece() -> None:
    with pytest.raises(IndexError):
        CallAssembler().call(0)


def test_texts_alone_give_the_same_calls() -> None:
    pieces = [
        first(0, '{"a": "}"}</tool_call>'),
        first(1),
        first(2, '{"cut": "'),
        more(1, "false"),
        more(0, "{}"),
    ]
    texts = CallTexts()
    for piece in pieces:
        texts.add(piece)

    _, assembler = run(*pieces)

    assert texts.calls() == assembler.calls()
    assert [call.arguments_text for call in texts.calls()] == ['{"a": "}"}', "false", '{"cut": "']


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

    ends = [bool(closed(assembler.feed(more(0, text[a:b])))) for a, b in pairwise(bounds)]

    assert ends == [False] * len(cuts) + [True]
    assert assembler.arguments(0) == arguments
