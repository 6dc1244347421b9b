"""Results are understood in whatever shape they come, whole or cut."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentflow.testing.standin.evidence import Evidence, Observation

HITS = [
    {"file": "a.py", "line": 3, "text": "def heat(): # {"},
    {"file": "b/c.md", "line": 14, "text": 'the "kettle"'},
]
FOUND = {("a.py", 3): "def heat(): # {", ("b/c.md", 14): 'the "kettle"'}


def absorbed(tool: str, result: Any, **arguments: Any) -> Evidence:
    evidence = Evidence()
    text = result if isinstance(result, str) else json.dumps(result)
    evidence.absorb(Observation(tool, arguments, text))
    return evidence


@pytest.mark.parametrize(
    "result",
    [
        HITS,
        {"matches": HITS, "truncated": False},
        [{"path": h["file"], "line_number": h["line"], "content": h["text"]} for h in HITS],
        'a.py:3: def heat(): # {\nb/c.md:14:the "kettle"',
        json.dumps('a.py:3:def heat(): # {\n- b/c.md:14: the "kettle"'),
    ],
)
def test_search_results_give_lines(result: Any) -> None:
    evidence = absorbed("search_text", result, pattern="Heat")
    assert evidence.lines == FOUND
    assert list(evidence.files) == ["a.py", "b/c.md"]
    assert evidence.tried == {"heat"}


@pytest.mark.parametrize("cut", range(5, 60, 5))
def test_a_cut_search_result_gives_what_is_whole(cut: int) -> None:
    text = json.dumps(HITS)
    evidence = absorbed("search_text", text[:-cut] + "…", pattern="x")
    assert evidence.lines[("a.py", 3)] == "def heat(): # {"


def test_a_reading_gives_numbered_lines() -> None:
    evidence = absorbed("read_file", {"path": "a.py", "start": 7, "text": "x\n\ny"}, path="a.py")
    assert evidence.lines == {("a.py", 7): "x", ("a.py", 8): "", ("a.py", 9): "y"}
    assert evidence.read == {"a.py"}


def test_readings_of_a_map_are_all_taken() -> None:
    pieces = [{"path": "a", "start": 1, "text": "x"}, {"path": "b", "start": 2, "text": "y"}]
    assert absorbed("read_file", pieces).lines == {("a", 1): "x", ("b", 2): "y"}


def test_a_cut_reading_gives_the_lines_before_the_cut() -> None:
    text = json.dumps({"path": "a.py", "start": 1, "text": "one\ntwo\nthree"})
    evidence = absorbed("read_file", text[:-6] + "…", path="a.py")
    assert evidence.lines[("a.py", 2)] == "two"


def test_a_reading_as_plain_text_uses_the_arguments() -> None:
    evidence = absorbed("read_file", "one\ntwo", path="a.py", start=5)
    assert evidence.lines == {("a.py", 5): "one", ("a.py", 6): "two"}


@pytest.mark.parametrize(
    "result",
    [["a.py", "b.md"], [{"path": "a.py"}, {"path": "b.md"}], {"files": ["a.py", "b.md"]}],
)
def test_a_listing_gives_files_and_their_number(result: Any) -> None:
    evidence = absorbed("list_files", result, pattern="**/*")
    assert list(evidence.files) == ["a.py", "b.md"]
    assert evidence.listings == {"**/*": (2, False)}


def test_a_cut_listing_is_known_to_be_cut() -> None:
    evidence = absorbed("list_files", '["a.py", "b.md", "c…', pattern="*")
    assert evidence.listings == {"*": (2, True)}


@pytest.mark.parametrize("result", ["391", {"result": 391}, 391])
def test_a_value_is_kept_with_its_expression(result: Any) -> None:
    assert absorbed("calculate", result, expression="17*23").values == [("17*23", "391")]


@pytest.mark.parametrize("tool", ["search_text", "read_file", "list_files", "weather"])
@pytest.mark.parametrize("result", ["", "null", "{", "[]", '{"error": "no such file"}', "oops"])
def test_what_cannot_be_read_is_no_evidence(tool: str, result: str) -> None:
    evidence = absorbed(tool, result)
    assert evidence.lines == {}
    assert not evidence.files
