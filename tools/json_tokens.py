"""What the tokens of JSON look like, also those of which only a beginning is there."""

from __future__ import annotations

import json
import re
from typing import Any

_HEX = "[0-9a-fA-F]"
_LOW_BEGUN = rf"(?:\\(?:u(?:[dD](?:[c-fC-F]{_HEX}?)?)?)?)?\Z"  # of a low surrogate's escape

# Not the high half of a surrogate pair, as long as the low one may follow.
_RUN = re.compile(
    r'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|'
    rf"u(?![dD][89abAB]{_HEX}{{2}}{_LOW_BEGUN}){_HEX}{{4}}))*"
)
ESCAPE_BEGUN = re.compile(rf"\\(?:\Z|u(?:{_HEX}{{0,3}}\Z|[dD][89abAB]{_HEX}{{2}}{_LOW_BEGUN}))")
"""An escape at the end of a text that is not complete, or half of a pair."""

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")

LITERALS: dict[str, tuple[str, Any]] = {
    "t": ("true", True),
    "f": ("false", False),
    "n": ("null", None),
}
"""By the first character."""

TYPES = {
    "[": "array",
    '"': "string",
    "t": "boolean",
    "f": "boolean",
    "n": "null",
    **dict.fromkeys("-0123456789", "number"),
}
"""Names of the types that are no object, by the first character."""

_DIGITS = "0123456789"
_FIRST_DIGIT = {"0": "zero", **dict.fromkeys("123456789", "integer")}
_EXPONENT = dict.fromkeys("eE", "exponent")

FIGURES = {
    "begin": {"-": "minus", **_FIRST_DIGIT},
    "minus": _FIRST_DIGIT,
    "zero": {".": "point", **_EXPONENT},
    "integer": {".": "point", **_EXPONENT, **dict.fromkeys(_DIGITS, "integer")},
    "point": dict.fromkeys(_DIGITS, "fraction"),
    "fraction": {**_EXPONENT, **dict.fromkeys(_DIGITS, "fraction")},
    "exponent": {**dict.fromkeys("+-", "signed"), **dict.fromkeys(_DIGITS, "power")},
    "signed": dict.fromkeys(_DIGITS, "power"),
    "power": dict.fromkeys(_DIGITS, "power"),
}
"""By what was read last of a number: which characters may follow, and what they are."""

_BLANKS = re.compile(r"[ \t\n\r]*+")


def after_blanks(text: str, at: int) -> int:
    """Where the white space that begins at a place ends."""
    blanks = _BLANKS.match(text, at)
    assert blanks is not None
    return blanks.end()


def run_end(text: str, at: int) -> int:
    """Where the part of a string that begins at a place ends; it can be decoded by itself."""
    run = _RUN.match(text, at)
    assert run is not None
    return run.end()


def decoded(run: str) -> str:
    """The text that part of a string stands for."""
    return json.loads(f'"{run}"') if "\\" in run else run


def good_figures(written: str) -> int:
    """How many characters of a text are a complete number."""
    number = _NUMBER.match(written)
    return number.end() if number else 0


def number(written: str) -> int | float:
    """The value of a complete number.

    Raises:
        ValueError: It has more digits than Python reads.
    """
    return int(written) if written.lstrip("-").isdigit() else float(written)
