"""A call written as JSON and the same call written in a plan are told with the same events."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.planner import read_events
from agentflow.planner.printer import print_line
from agentflow.planner.reader import Reader
from agentflow.planner.script import Line
from agentflow.tools.arguments import ArgumentEvent, ArgumentGrew, CallClosed, CallOpened
from agentflow.tools.json_arguments import ArgumentsReader

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text(
    "\"'\\${}[](), \n1ax", max_size=12
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
CALLS = st.dictionaries(st.sampled_from(["query", "k", "text", "a_1", "B"]), VALUES, max_size=4)
CUTS = st.lists(st.floats(0, 1), max_size=8)


def cut(text: str, places: Iterable[float]) -> list[str]:
    """The text in pieces; each place is a share of it."""
    bounds = [0, *sorted(int(place * len(text)) for place in places), len(text)]
    return [text[a:b] for a, b in pairwise(bounds)]


def joined(events: Iterable[Any]) -> list[Any]:
    """The events, what one argument grew by put together."""
    out: list[Any] = []
    for event in events:
        last = out[-1] if out else None
        if isinstance(event, ArgumentGrew) and isinstance(last, ArgumentGrew):
            out[-1] = ArgumentGrew(event.id, event.key, last.text + event.text)
        else:
            out.append(event)
    return out


def as_json(arguments: dict[str, Any], places: Iterable[float], ascii: bool) -> list[Any]:
    reader = ArgumentsReader(3, "search")
    events: list[ArgumentEvent] = [CallOpened(3, "search")]
    for piece in cut(json.dumps(arguments, ensure_ascii=ascii), places):
        events += reader.feed(piece)
    return joined(events)


def as_plan(arguments: dict[str, Any], places: Iterable[float]) -> list[Any]:
    reader = Reader()
    events: list[Any] = []
    text = print_line(Line(id=3, tool="search", args=(), kwargs=tuple(arguments.items())))
    for piece in cut(f"{text}\n", places):
        events += reader.feed(piece)
    call = events[: 1 + [type(event) for event in events].index(read_events.CallRead)]
    return joined([*call[:-1], CallClosed(call[-1].line.id)])


@settings(max_examples=300)
@given(arguments=CALLS, places=st.tuples(CUTS, CUTS), ascii=st.booleans())
def test_both_syntaxes_give_the_same_events(
    arguments: dict[str, Any], places: tuple[list[float], list[float]], ascii: bool
) -> None:
    events = as_json(arguments, places[0], ascii)

    assert repr(as_plan(arguments, places[1])) == repr(events)
    assert len(events) >= 2 + 2 * len(arguments)
