"""References as they are written: ``$1``, ``${1}``, and with a path ``$1.hits[0].url``.

Inside a longer string a path is read only in braces, and what is not a use of an earlier
line is text: amounts of money, shell variables, ids that do not exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple, TypeAlias

from agentflow.planner.escapes import unescaped
from agentflow.planner.plan import ALL, PathStep, Ref, Template

Earlier: TypeAlias = Callable[[int], bool]
"""Whether an id is that of an earlier line."""

MAX_DIGITS = 18
"""An id with more digits is none: ids come from a model."""

_ID = rf"[0-9]{{1,{MAX_DIGITS}}}+"
_KEY = r"\"[^\"\\]*+(?:\\.[^\"\\]*+)*\"|'[^'\\]*+(?:\\.[^'\\]*+)*'"
_STEP = rf"\.[^\W\d]\w*+|\[\s*+(?:-?{_ID}|\*|{_KEY})\s*+\]"
_STEPS = re.compile(_STEP, re.DOTALL)
_PATH = rf"((?:{_STEP})*)"
_BRACED = rf"\{{({_ID}){_PATH}\}}"

_ALONE = re.compile(rf"\$(?:({_ID})|{_BRACED}){_PATH}", re.DOTALL)
_QUOTED = re.compile(rf"\$(?:({_ID}){_PATH}|{_BRACED})", re.DOTALL)

# Money: US$5, $1,000, $1.50, $5M, $5bn, $1 billion.
_WITHIN = re.compile(
    rf"(?<![A-Z])\$({_ID})"
    r"(?![0-9]|,[0-9]{3}(?![0-9])|\.[0-9]|(?:[kKmMbBtT]|MM|[bmt]n)(?![A-Za-z])"
    r"|[\s-]{1,3}(?i:hundred|thousand|million|billion|trillion|bn|mn|dollars?|usd)\b)"
    rf"|\${_BRACED}",
    re.DOTALL,
)
_BACKSLASHED = re.compile(r"(?<=\\)\$")


class Resolved(NamedTuple):
    """What a string stands for.

    Attributes:
        value: The text itself, a `Ref` if it is exactly one, or a `Template`.
        literal: Whether something looked like a reference but is no earlier line.
    """

    value: str | Ref | Template
    literal: bool


def alone(text: str) -> Ref | None:
    """The reference that an unquoted text is, if it is one."""
    return _ref(_ALONE.fullmatch(text))


def leading(text: str) -> tuple[Ref, str] | None:
    """The reference an unquoted text begins with, and what follows it."""
    match = _ALONE.match(text)
    ref = _ref(match)
    return None if match is None or ref is None else (ref, text[match.end() :])


def resolve(text: str, escaped: Collection[int], earlier: Earlier) -> Resolved:
    """Finds the references in the decoded text of a quoted string.

    Args:
        text: The decoded text.
        escaped: Positions of dollar signs that were written after a backslash.
        earlier: Which ids may be referred to from inside a longer string.
    """
    if "$" not in text:
        return Resolved(text, False)
    if 0 not in escaped and (match := _QUOTED.fullmatch(text)):
        number, path, braced, braced_path = match.groups()
        return Resolved(Ref(int(number or braced), steps(path or braced_path or "")), False)
    parts: list[str | Ref] = []
    start, literal = 0, False
    for match in _WITHIN.finditer(text):
        if match.start() in escaped:
            continue
        number, braced, path = match.groups()
        if not earlier(int(number or braced)):
            literal = True
            continue
        parts += (text[start : match.start()], Ref(int(number or braced), steps(path or "")))
        start = match.end()
    if not parts:
        return Resolved(text, literal)
    parts.append(text[start:])
    return Resolved(Template(tuple(part for part in parts if part != "")), literal)


def resolve_bare(text: str, earlier: Earlier) -> Resolved:
    """As `resolve`, for an argument without quotes, where nothing is decoded."""
    return resolve(text, {match.start() for match in _BACKSLASHED.finditer(text)}, earlier)


def without_references(text: str) -> str:
    """The text with everything taken out that is written like a reference."""
    return _QUOTED.sub("", text)


def steps(path: str) -> tuple[PathStep, ...]:
    """The steps of a path such as ``.hits[0]["a b"][*]``."""
    return tuple(_steps(path)) if path else ()


def _steps(path: str) -> Iterator[PathStep]:
    for match in _STEPS.finditer(path):
        step = match[0]
        if step[0] == ".":
            yield step[1:]
            continue
        inner = step[1:-1].strip()
        if inner == "*":
            yield ALL
        elif inner[0] in "\"'":
            yield unescaped(inner[1:-1])
        else:
            yield int(inner)


def _ref(match: re.Match[str] | None) -> Ref | None:
    if match is None:
        return None
    number, braced, inside, after = match.groups()
    return Ref(int(number or braced), steps((inside or "") + after))
