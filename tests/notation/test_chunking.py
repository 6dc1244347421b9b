"""A text is read the same way however it is cut, and nothing but `PlanError` comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.planner.plan import Template
from agentflow.planner.read_events import ArgumentClosed, ArgumentGrew

FRAGMENTS = """\
1. |2. |3) |$1 = |$2 = |${3} = |Step 4: |- **5. |10000000000. |`6. |(7) |search(|fetch (|join|join()
join settled| join quorum(2)|return |return $1|Thought: |Thought 2: so|<END_OF_PLAN>|<END|```python
"|'|\"\"\"|'''|“|”|\\|\\$|\\u00e9|\\ud83d\\ude00|\\x4|r"|f'|(|)|[|]|{|}|,|, |:|=|==| if | if $1|each |#|# x
$1|$2.a|${1}|${1.a[0]["k"]}|$1[*].b|$1["x)"]|$|${|$1,000|$1.50|$1 million|US$1|$99|query=|k=|True|null|-3.5e2
12|a|é|word word|Léon (The|\n|\n\n|\r\n| |\t|. |; |and |the text, |🙂|\ufeff|\u2028|\x00""".replace(
    "\n", "|"
).split("|")
NOTATION = st.lists(st.sampled_from([*FRAGMENTS, "\n", "\n", '")\n', '("a")\n']), max_size=30).map(
    "".join
)
CALLS = st.lists(
    st.builds(
        "{}{}({}){}\n".format,
        st.sampled_from(["1. ", "2. ", "$3 = ", "Step 4: ", "5) ", "- 6. "]),
        st.sampled_from(["search", "fetch", "math "]),
        st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join),
        st.sampled_from(["", " if $1", " # if $1", " 7. fetch($1)", " join first if $1.a"]),
    ),
    max_size=5,
).map("".join)
TEXTS = NOTATION | CALLS | st.text(max_size=60)

Pieces = Callable[..., tuple[list[Any], Any]]


@settings(max_examples=400)
@given(data=st.data(), text=TEXTS, tools=st.sampled_from([None, ("search", "fetch")]))
def test_the_reading_does_not_depend_on_the_cuts(
    pieces: Pieces, data: st.DataObject, text: str, tools: Any
) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8).map(sorted))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    whole = pieces([text], tools=tools)

    assert pieces(parts, tools=tools) == whole
    assert pieces(text, tools=tools) == whole


@settings(max_examples=200)
@given(text=CALLS, known=st.sampled_from([(), (1,), (1, 2, 99)]))
def test_what_grew_is_the_beginning_of_the_value(
    pieces: Pieces, text: str, known: tuple[int, ...]
) -> None:
    events, _ = pieces([text], known=known)

    grown = {(e.id, e.key): e.text for e in events if isinstance(e, ArgumentGrew)}
    for event in events:
        if isinstance(event, ArgumentClosed) and (event.id, event.key) in grown:
            value = event.value
            if isinstance(value, Template):
                value = value.parts[0]
            if isinstance(value, str):
                assert value.startswith(grown.pop((event.id, event.key)))


@pytest.mark.parametrize(
    "fragment", ["(", "[", "{", "((", '"', "1. ", "1. f(", "\\", "$1[", "${", "<"]
)
def test_repetition_of_anything_is_read_or_refused(pieces: Pieces, fragment: str) -> None:
    for opening in ("", "1. f(", '1. f("', "1. f([", "return "):
        text = opening + fragment * 3000

        assert pieces([text]) == pieces([text[:1000], text[1000:]])
