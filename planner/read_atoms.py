"""Reads values that stand without quotes: references, numbers, names of constants."""

from __future__ import annotations

import math
import re

from agentflow.planner.scanner import Reading, Scanner

CONSTANTS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
"""The words that are values, in Python and in JSON."""

WORD = re.compile(r"[\w.-]*")
"""A name or a word of prose."""

NUMBER = re.compile(r"[\w.+-]*")
"""What a number may consist of; the text is then checked by `number`."""

MAX_NUMBER = 4300
"""Characters of the longest number read."""

_INTEGER = re.compile(
    r"[+-]?(?:0(?:_?0)*|[1-9](?:_?[0-9])*|0[xX][0-9a-fA-F]++|0[oO][0-7]++|0[bB][01]++)"
)
_DECIMAL = re.compile(
    r"[+-]?(?:[0-9](?:_?[0-9])*(?:\.(?:[0-9](?:_?[0-9])*)?)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?"
)
_REFERENCE = re.compile(r"[\w.]*")
_IN_BRACKETS = re.compile(r"[^\]\"'\n]*")
_IN_QUOTES = {mark: re.compile(rf"[^{mark}\\]*") for mark in "\"'"}


def number(text: str) -> int | float | None:
    """The number a text is, as Python and JSON write it; None if it is none."""
    if len(text) > MAX_NUMBER:
        return None
    if _INTEGER.fullmatch(text):
        return int(text, 0)
    if _DECIMAL.fullmatch(text) and not text.lstrip("+-").replace("_", "").isdigit():
        value = float(text)
        return value if math.isfinite(value) else None
    return None


def read_reference(scanner: Scanner) -> Reading[str]:
    """Reads the text of an unquoted reference, from its dollar sign to the end of its path."""
    scanner.pos += 1
    pieces = ["$"]
    braced = (yield from scanner.peek()) == "{"
    if braced:
        scanner.pos += 1
        pieces.append("{")
    while True:
        pieces.append((yield from scanner.run(_REFERENCE)))
        char = yield from scanner.peek()
        if char == "[":
            pieces.append((yield from _in_brackets(scanner)))
        elif char == "}" and braced:
            scanner.pos += 1
            pieces.append("}")
            braced = False
        else:
            return "".join(pieces)


def _in_brackets(scanner: Scanner) -> Reading[str]:
    pieces: list[str] = []
    while True:
        pieces.append((yield from scanner.run(_IN_BRACKETS)))
        char = yield from scanner.peek()
        if char in _IN_QUOTES:
            pieces.append((yield from _in_quotes(scanner)))
            continue
        if char == "]":
            scanner.pos += 1
            pieces.append("]")
        return "".join(pieces)


def _in_quotes(scanner: Scanner) -> Reading[str]:
    mark = yield from scanner.peek()
    scanner.pos += 1
    pieces = [mark]
    while True:
        pieces.append((yield from scanner.run(_IN_QUOTES[mark])))
        char = yield from scanner.peek()
        scanner.pos += len(char)
        pieces.append(char)
        if char == "\\":
            following = yield from scanner.peek()
            scanner.pos += len(following)
            pieces.append(following)
        else:
            return "".join(pieces)
