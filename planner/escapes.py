"""Escapes in quoted strings: those of Python and JSON, and ``\\$`` for a plain dollar.

An escape that is none of these stays in the text with its backslash, as in Python, so that
``"C:\\users"`` or a regular expression survives.
"""

from __future__ import annotations

import json
import re

SIMPLE = {
    "\\": "\\",
    '"': '"',
    "'": "'",
    "/": "/",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\n": "",
}
"""What one character after a backslash stands for."""

HEX_LENGTHS = {"x": 2, "u": 4, "U": 8}
"""How many hexadecimal digits follow."""

REPLACEMENT = "\ufffd"
"""Stands for half of a surrogate pair, which is no character."""

_ESCAPE = re.compile(r"\\(?:([xuU])([0-9a-fA-F]*+)|([0-7]{1,3})|(.))", re.DOTALL)
_SURROGATES = re.compile("([\ud800-\udbff])([\udc00-\udfff])|[\ud800-\udfff]")
_REFERENCE_LIKE = re.compile(r"\$(?=[0-9{])")


def quoted(text: str) -> str:
    """The text in double quotes, such that reading it gives the text and no reference."""
    return _REFERENCE_LIKE.sub(r"\\$", json.dumps(text, ensure_ascii=False))


def unescaped(text: str) -> str:
    """The text that the inside of a quoted string stands for."""
    if "\\" not in text:
        return text
    return _SURROGATES.sub(_paired, _ESCAPE.sub(_decoded, text))


def numbered(letter: str, digits: str) -> str:
    """The character of a numeric escape; the escape itself if there is no such character."""
    code = int(digits, 16) if len(digits) == HEX_LENGTHS[letter] else -1
    return chr(code) if 0 <= code <= 0x10FFFF else f"\\{letter}{digits}"


def paired(high: str, low: str) -> str:
    """The character that two surrogates stand for together."""
    return (high + low).encode("utf-16", "surrogatepass").decode("utf-16")


def _decoded(match: re.Match[str]) -> str:
    letter, digits, octal, char = match.groups()
    if letter:
        count = HEX_LENGTHS[letter]
        return numbered(letter, digits[:count]) + digits[count:]
    if octal:
        return chr(int(octal, 8))
    return "$" if char == "$" else SIMPLE.get(char, match[0])


def _paired(match: re.Match[str]) -> str:
    return paired(match[1], match[2]) if match[1] else REPLACEMENT
