"""What tool results told: lines of files, files that exist, values, and what was tried.

Results come in many shapes (JSON, text, cut in the middle); whatever can be read is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentflow.testing.standin.toolbox import Role, role_of

_GREP = re.compile(r"^\s*(?:[-*]\s+)?([^\s:][^:\n]*):(\d+):\s?(.*)$", re.MULTILINE)
_PATH = ("file", "path", "filename", "name")
_NUMBER = ("line", "line_number", "lineno", "number")
_TEXT = ("text", "content", "match", "contents")
_CUT = re.compile(r"\s*(?:…|\.{3})\s*(?:\([^()\n]*\))?\s*\Z")
_FAILED = re.compile(r"\s*(?:failed|skipped|cancelled|not called)\b")


@dataclass(frozen=True, slots=True)
class Observation:
    """One tool call and what it gave.

    Attributes:
        tool: Name of the tool.
        arguments: As far as they are known.
        result: Text of the result: JSON, cut JSON or anything else.
    """

    tool: str
    arguments: Mapping[str, Any]
    result: str


@dataclass(slots=True)
class Evidence:
    """What is known so far.

    Attributes:
        lines: Text by (file, line number).
        files: Paths known to exist, in the order met.
        tried: Everything searched for and every pattern listed, in lower case.
        read: Paths that were read.
        values: (expression, value) of every sum.
        listings: Number of files by listing pattern, and whether there are more.
    """

    lines: dict[tuple[str, int], str] = field(default_factory=dict)
    files: dict[str, None] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    values: list[tuple[str, str]] = field(default_factory=list)
    listings: dict[str, tuple[int, bool]] = field(default_factory=dict)

    def absorb(self, observation: Observation) -> None:
        """Take in one more result; of a call that failed, only that it was tried."""
        if _FAILED.match(observation.result):
            observation = replace(observation, result="")
        match role_of(observation.tool):
            case Role.SEARCH:
                self._absorb_search(observation)
            case Role.READ:
                self._absorb_read(observation)
            case Role.LIST:
                self._absorb_listing(observation)
            case Role.CALCULATE:
                self._absorb_value(observation)
            case None:
                pass

    def _absorb_search(self, observation: Observation) -> None:
        self.tried.add(_argument(observation, "pattern", "query", "text").lower())
        for item in _items(observation.result):
            path, number, text = _get(item, _PATH), _get(item, _NUMBER), _get(item, _TEXT)
            if isinstance(path, str) and isinstance(number, int):
                self._add_line(path, number, str(text or ""))
        for path, number, text in _GREP.findall(_plain(observation.result)):
            self._add_line(path, int(number), text)

    def _absorb_read(self, observation: Observation) -> None:
        pieces = [item for item in _items(observation.result) if _get(item, _TEXT) is not None]
        if not pieces and (text := _plain(observation.result)):
            pieces = [{"text": text}]
        for piece in pieces:
            path = _get(piece, _PATH) or _argument(observation, "path", "file")
            start = piece.get("start") or observation.arguments.get("start")
            text = _get(piece, _TEXT)
            if not isinstance(path, str) or not path or not isinstance(text, str):
                continue
            self.read.add(path)
            first = start if isinstance(start, int) else 1
            for offset, line in enumerate(text.split("\n")):
                self._add_line(path, first + offset, line)

    def _absorb_listing(self, observation: Observation) -> None:
        pattern = _argument(observation, "pattern", "glob") or "**/*"
        self.tried.add(pattern.lower())
        found = list(_paths(observation.result))
        self.files.update(dict.fromkeys(found))
        if observation.result:
            self.listings[pattern] = (len(found), bool(_CUT.search(observation.result)))

    def _absorb_value(self, observation: Observation) -> None:
        parsed = _parsed(observation.result)
        value = parsed.get("result", parsed) if isinstance(parsed, dict) else parsed
        shown = observation.result.strip() if value is None else str(value)
        if shown:
            self.values.append((_argument(observation, "expression"), shown))

    def _add_line(self, path: str, number: int, text: str) -> None:
        self.files.setdefault(path)
        known = self.lines.get((path, number), "")
        if len(text) >= len(known):
            self.lines[path, number] = text.rstrip()


def _argument(observation: Observation, *names: str) -> str:
    for name in names:
        if isinstance(value := observation.arguments.get(name), str):
            return value
    return ""


def _get(item: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((item[name] for name in names if name in item), None)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _plain(text: str) -> str:
    """The text, unless it is (cut) JSON; a JSON string is its text."""
    parsed = _parsed(text)
    if isinstance(parsed, str):
        return parsed
    return "" if parsed is not None or text.lstrip()[:1] in ("{", "[") else text


def _items(text: str) -> Iterator[dict[str, Any]]:
    """Every object in a JSON text, however deep in lists, and in what is left of a cut one."""
    parsed = _parsed(text)
    yield from _objects(_salvaged(text) if parsed is None else parsed)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        inner = [v for v in value.values() if isinstance(v, list)]
        if not inner:
            yield value
        for each in inner:
            yield from _objects(each)
    elif isinstance(value, list):
        for each in value:
            yield from _objects(each)


def _salvaged(text: str) -> list[Any]:
    """The complete values inside a cut JSON text, and a last object closed where it was cut."""
    decoder = json.JSONDecoder()
    found: list[Any] = []
    position = text.find("{")
    while position != -1:
        try:
            value, end = decoder.raw_decode(text, position)
        except ValueError:
            if (last := _closed(text[position:])) is not None:
                found.append(last)
            break
        found.append(value)
        position = text.find("{", end)
    return found


def _closed(text: str) -> Any:
    """A JSON object whose end is missing, closed after its last whole line or value."""
    text = _CUT.sub("", text).rstrip("\\")
    for end in ('"}', "}", '""}'):
        if (value := _parsed(text + end)) is not None:
            return value
    head = text.rpartition(",")[0]
    return _parsed(head + "}") if head else None


def _paths(text: str) -> Iterator[str]:
    """The paths in a listing."""
    parsed = _parsed(text)
    if parsed is None and text.lstrip().startswith("["):
        parsed = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
    if isinstance(parsed, dict):
        parsed = next((v for v in parsed.values() if isinstance(v, list)), [])
    if parsed is None:
        parsed = [line.strip("-* ") for line in text.splitlines() if "/" in line or "." in line]
    for item in parsed if isinstance(parsed, list) else ():
        path = _get(item, _PATH) if isinstance(item, dict) else item
        if isinstance(path, str) and path:
            yield path
