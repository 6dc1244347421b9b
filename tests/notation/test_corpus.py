"""The corpora: plans as models write them, and the one right reading."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentflow.errors import PlanError
from agentflow.planner.check import check, read_plan
from agentflow.planner.jsonform import error_as_json, script_as_json, tools_from_json
from agentflow.planner.printer import print_script
from agentflow.planner.reader import Reader

CORPUS = Path(__file__).parents[1] / "corpus"
TOKEN = re.compile(r"\s?\w{1,6}|\s|[^\w\s]{1,2}")
CUTS: dict[str, Callable[[str], list[str]]] = {
    "whole": lambda text: [text],
    "characters": list,
    "tokens": TOKEN.findall,
    "lines": lambda text: text.splitlines(keepends=True),
    "twelves": lambda text: [text[start : start + 12] for start in range(0, len(text), 12)],
}


def entries(*names: str, ok: tuple[bool, ...] = (True, False)) -> list[Any]:
    """The entries of these files whose reading succeeds, or fails, or both."""
    texts = [(CORPUS / f"{name}.jsonl").read_text(encoding="utf-8") for name in names]
    found = [json.loads(line) for text in texts for line in text.splitlines()]
    return [pytest.param(e, id=e["name"]) for e in found if e["expected"]["ok"] in ok]


def read(entry: dict[str, Any], cut: str) -> dict[str, Any]:
    """What an entry's text, fed in pieces, is read as."""
    tools = tools_from_json(entry["tools"])
    reader = Reader(tools=tools)
    try:
        try:
            for piece in CUTS[cut](entry["text"]):
                reader.feed(piece)
            reader.finish()
        except PlanError:
            check(reader.script, tools)
            raise
        check(reader.script, tools)
    except PlanError as error:
        return error_as_json(error)
    return script_as_json(reader.script)


def bound(task: dict[str, Any], tools: list[dict[str, Any]]) -> dict[str, Any]:
    """The arguments by parameter name, whether they were given by position or by name."""
    names: list[str] = next((t["params"] for t in tools if t["name"] == task["tool"]), [])
    return {**dict(zip(names, task["args"], strict=False)), **task["kwargs"]}


def same(got: dict[str, Any], want: dict[str, Any], tools: list[dict[str, Any]]) -> bool:
    """Whether a reading is the expected one; thoughts and warnings are not compared."""
    if not got["ok"] or not want["ok"]:
        return bool(got["ok"] == want["ok"] and got["error"] == want["error"])

    def graph(reading: dict[str, Any]) -> list[Any]:
        return [
            (task["id"], task["tool"], sorted(task["deps"]), bound(task, tools))
            for task in reading["tasks"]
        ]

    return graph(got) == graph(want) and (got["join"] is None) == (want["join"] is None)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("entry", entries("plans"))
def test_plans_are_read_as_expected(entry: dict[str, Any], cut: str) -> None:
    got = read(entry, cut)

    wanted = [entry["expected"], *entry.get("acceptable", [])]
    assert any(same(got, want, entry["tools"]) for want in wanted), got


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("entry", entries("paths"))
def test_paths_maps_guards_and_returns_are_read_as_expected(
    entry: dict[str, Any], cut: str
) -> None:
    got = read(entry, cut)

    got.pop("message", None)
    assert got == entry["expected"]


@pytest.mark.parametrize("entry", entries("plans", "paths", ok=(True,)))
def test_what_is_printed_reads_as_the_same_script(entry: dict[str, Any]) -> None:
    tools = tools_from_json(entry["tools"])
    script = read_plan(entry["text"], tools)

    assert read_plan(print_script(script), tools) == script


@pytest.mark.parametrize("entry", entries("plans", "paths", ok=(False,)))
def test_errors_name_the_line_and_say_what_to_do(entry: dict[str, Any]) -> None:
    got = read(entry, "whole")

    assert got["at"] == entry["expected"]["at"]
    assert len(got["message"]) > 20


@pytest.mark.parametrize(
    ("got", "want"),
    [
        ({"ok": False, "error": "arity", "at": 1}, {"ok": False, "error": "bad_args", "at": 1}),
        ({"ok": False, "error": "arity", "at": 1}, {"ok": True, "tasks": [], "join": None}),
        ({"ok": True, "tasks": [], "join": {"id": 1}}, {"ok": True, "tasks": [], "join": None}),
    ],
)
def test_a_different_reading_is_told_apart(got: dict[str, Any], want: dict[str, Any]) -> None:
    assert not same(got, want, [])
    assert same(got, got, [])
