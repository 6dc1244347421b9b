"""Whatever the text and however it is cut, arguments are read as Python's `json` reads them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, NoReturn

import pytest

from agentflow.tools.arguments import (
    ArgumentClosed,
    ArgumentEvent,
    ArgumentGrew,
    ArgumentOpened,
    CallBroken,
    CallClosed,
)
from agentflow.tools.json_arguments import ArgumentsReader

DOCUMENTS = 25_000  # by each seed
STRINGS = [
    "a", "b", " ", "héllo", "日本", "😀", "\ud83d", "\ude00", "\x7f", "\u2028", "/", "'", "{[:,", "]}",
    "true", "1", "\\\"", "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t", "\\u0041", "\\u00e9",
    "\\uD83D\\uDE00", "\\ud83d\\ude00", "\\ud83d", "\\ude00", "\\udbff\\udfff", "\\ud83d\\ud83d",
    "\\ud83d\\n", "\\ud83d\\u0041", "\\u005c", "\\u0000", "\\uFFFF",
]  # fmt: skip
NUMBERS = ["0", "-0", "7", "-31", "1234567890123456789", "0.5", "-0.0", "1.25", "1e5", "1E+2",
           "-3e-7", "0e0", "1E400", "2.5E-400"]  # fmt: skip
KEYS = ['"a"', '"b"', '"query"', '""', '"\\u0061"', '"é"', '"a\\nb"', '"\\ud83d\\ude00"']
BLANKS = ("", "", "", "", " ", "\n", "\t \n", "\r")
NOISE: list[str] = [
    *'{}[]",:\\tfn-0123.eE+ \n\x00\x1fu',
    "NaN",
    "-Infinity",
    "\\u12",
    "\\ud83d",
    "true",
    "é",
]

Outcome = tuple[list[Any], str, int | None]
"""Events with their pieces joined; what was closed; the end of the object."""


class Documents:
    """Texts of JSON objects, a quarter of them spoilt."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def __iter__(self) -> Iterator[str]:
        for number in range(DOCUMENTS):
            text = self._blank() + self._object(0) + self._blank()
            yield self._spoilt(text) if number % 4 == 3 else text

    def cuts(self, text: str) -> Iterator[str]:
        """The text one by one, or in a few pieces."""
        if self.chance.random() < 0.5:
            return iter(text)
        places = sorted(self.chance.choices(range(len(text) + 1), k=4))
        return (text[a:b] for a, b in pairwise([0, *places, len(text)]))

    def _blank(self) -> str:
        return self.chance.choice(BLANKS)

    def _spaced(self, text: str) -> str:
        return f"{self._blank()}{text}{self._blank()}"

    def _object(self, depth: int) -> str:
        count = int(self.chance.random() * (4 if depth else 7))
        members = [
            f"{self._spaced(self.chance.choice(KEYS))}:{self._spaced(self._value(depth))}"
            for _ in range(count)
        ]
        return "{" + (",".join(members) or self._blank()) + "}"

    def _list(self, depth: int) -> str:
        count = int(self.chance.random() * 4)
        return f"[{','.join(self._spaced(self._value(depth)) for _ in range(count))}]"

    def _value(self, depth: int) -> str:
        kind = self.chance.random()
        if kind < 0.45:
            return '"' + "".join(self.chance.choices(STRINGS, k=int(kind * 12))) + '"'
        if kind < 0.65:
            return self.chance.choice(NUMBERS)
        if kind < 0.8 or depth > 3:
            return self.chance.choice(("true", "false", "null"))
        return self._object(depth + 1) if kind < 0.9 else self._list(depth + 1)

    def _spoilt(self, text: str) -> str:
        at = int(self.chance.random() * len(text))
        kind = self.chance.randrange(5)
        if kind == 0:
            return text[:at]
        if kind == 1:
            return text[:at] + text[at + 1 :]
        noise = self.chance.choice(NOISE)
        return text[:at] + noise + text[at + (kind == 2) :]


def outcome(pieces: Iterable[str]) -> Outcome:
    """What reading the pieces gives, the text of errors included."""
    reader = ArgumentsReader(0, "f")
    found: list[ArgumentEvent] = []
    for piece in pieces:
        found += reader.feed(piece)
    found += reader.finish()
    events: list[Any] = []
    for event in found:
        if isinstance(event, ArgumentGrew):
            assert isinstance(events[-1], list) or events[-1] == ArgumentOpened(0, event.key)
            if not isinstance(events[-1], list):
                events.append([])
            events[-1].append(event.text)
        elif isinstance(event, CallBroken):
            events.append((event.error.position, str(event.error)))
        else:
            events.append(event)
    events = ["".join(event) if isinstance(event, list) else event for event in events]
    return events, repr(reader.arguments), reader.end


def refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


DECODER = json.JSONDecoder(parse_constant=refuse)


def python(text: str) -> tuple[dict[str, Any], int]:
    """The object a text begins with, and where it ends, as Python's `json` reads it.

    Raises:
        ValueError: It is not one; a `json.JSONDecodeError` where `json` says so.
    """
    start = len(text) - len(text.lstrip(" \t\n\r"))
    if start == len(text):
        return {}, start
    value, end = DECODER.raw_decode(text, start)
    if not isinstance(value, dict):
        raise json.JSONDecodeError("not an object", text, start)
    return value, end


def check_value(text: str, result: Outcome) -> None:
    """The text is a complete object: the values are those of Python."""
    expected, end = python(text)
    events, arguments, ended = result
    assert (arguments, ended) == (repr(expected), end)
    assert events[-1] == CallClosed(0)
    closed = {event.key: event.value for event in events if isinstance(event, ArgumentClosed)}
    assert repr(closed) == repr(expected)
    for before, event in pairwise(events):
        if isinstance(event, ArgumentClosed):
            grew = isinstance(event.value, str) and event.value
            assert before == (grew or ArgumentOpened(0, event.key))


def check_error(text: str, result: Outcome, position: int | None) -> None:
    """The text is no object: that is found no later than Python finds it."""
    (found, message), _, end = result[0][-1], *result[1:]
    assert end is None
    assert "Write one JSON object" in message
    if position is None:
        return
    assert found <= position
    start = text[: position + 1]
    reader = ArgumentsReader(0, "f")
    broken = any(isinstance(event, CallBroken) for event in reader.feed(start))
    assert broken or may_go_on(start)


ENDS = [
    middle + after
    for middle in ("", '"', 'n"', '0"', '00"', '000"', '0000"', 'u0000"', "0", '"0"', "{", "[")
    for after in ("", ":0", "0")
] + ["rue", "ue", "e", "alse", "lse", "se", "ull", "ll", "l", '"":0']


def may_go_on(start: str) -> bool:
    """Whether something can be written after a text such that the whole is an object."""
    outside = re.sub(r'"(?:[^"\\]|\\.?)*("|$)', "", start, flags=re.DOTALL)
    opened: list[str] = []
    for char in outside:
        if char in "{[":
            opened.append("}" if char == "{" else "]")
        elif char in "}]" and opened:
            opened.pop()
    closers = "".join(reversed(opened))
    extra = {"{": "}", "[": "]"}
    return any(is_object(start + end + extra.get(end[:1], "") + closers) for end in ENDS)


def is_object(text: str) -> bool:
    try:
        python(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("seed", range(4))
def test_arguments_are_read_as_python_reads_them(seed: int) -> None:
    documents = Documents(seed)
    for text in documents:
        result = outcome([text])

        assert outcome(documents.cuts(text)) == result, text
        try:
            python(text)
        except ValueError as error:
            check_error(text, result, getattr(error, "pos", None))
        else:
            check_value(text, result)
