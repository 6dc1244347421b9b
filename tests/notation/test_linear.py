"""Reading costs time and memory in proportion to the text."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from agentflow.errors import PlanError
from agentflow.planner import reader as reader_module
from agentflow.planner.reader import Reader, read_script
from agentflow.planner.scanner import Scanner

REPEATED = {
    "lines": '@. search("population of Spain", k=3)\n',
    "one string": "some words, ",
    "references": "$0 and ${0.a} ",
    "escapes": "\\n\\$\\u00e9",
    "bare": "Léon (The Professional) ",
    "prose": "this is what (I think) it - might be. ",
    "list": '"a", [1, {"k": $0}], ',
    "newlines": "\n",
    "numbered lines": "\n12. of them ",
    "spaces": "    ",
    "unreadable": "a + 'b' (c) ",
    "brackets": "(",
    "digits": "7",
}
OPENINGS = {
    "one string": '1. f("',
    "references": '1. f("',
    "escapes": '1. f("',
    "bare": "1. f(",
    "list": "1. f([",
    "newlines": "1. f(1, ",
    "numbered lines": "1. f(a b",
    "spaces": "1. f(1) ",
    "unreadable": '1. f("x" + ',
    "brackets": "1. f(",
    "digits": "1. f(",
}


class Counting(Scanner):
    """Counts the characters that pass through the window, again when they come again."""

    __slots__ = ("characters",)

    def __init__(self) -> None:
        super().__init__()
        self.characters = 0

    def feed(self, text: str) -> None:
        super().feed(text)
        self.characters += len(self.text)


@contextmanager
def counted_calls() -> Iterator[list[int]]:
    """Counts the functions that are entered, Python's own included."""
    calls = [0]

    def note(frame: FrameType, event: str, argument: Any) -> None:
        calls[0] += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def text_of(kind: str, characters: int) -> str:
    """About so many characters of one kind; every line with an id of its own."""
    repeated = REPEATED[kind]
    count = characters // len(repeated)
    return OPENINGS.get(kind, "") + "".join(repeated.replace("@", f"{n:05}") for n in range(count))


def work(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Functions entered and characters looked at, for a text in pieces of this size."""
    monkeypatch.setattr(reader_module, "Scanner", Counting)
    reader = Reader(known=[0])
    with counted_calls() as calls:
        try:
            for start in range(0, len(text), size):
                reader.feed(text[start : start + size])
            reader.finish()
        except PlanError:
            pass
    scanner = reader._scanner
    assert isinstance(scanner, Counting)
    return calls[0], scanner.characters


@pytest.mark.parametrize("size", [1, 7, 1_000_000])
@pytest.mark.parametrize("kind", REPEATED)
def test_twice_the_text_is_at_most_twice_the_work(
    kind: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = work(text_of(kind, 4000), size, monkeypatch)
    twice = work(text_of(kind, 8000), size, monkeypatch)

    for one, two in zip(once, twice, strict=True):
        assert two <= 2.1 * one + 50


def test_a_million_characters_are_read() -> None:
    lines = "".join(f'{number}. search("item number {number}")\n' for number in range(28_000))
    string = f'1. write("{"word " * 200_000}")\n'

    assert len(read_script(lines).lines) == 28_000
    assert len(read_script(string).lines[0].args[0]) == 1_000_000


def test_what_was_read_does_not_stay_in_memory() -> None:
    reader = Reader()
    for number in range(2000):
        reader.feed(f'{number}. search("item")\nAnd some prose about it, in passing.\n')

    scanner = reader._scanner
    assert len(scanner.text) < 200
    assert not scanner._saved
