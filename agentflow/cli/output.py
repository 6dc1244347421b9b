"""Values, text and JSON as they are shown to people and programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from agentflow.tools.values import plain

_COMMANDS = re.compile(r"[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")

LEAST_SECONDS = 0.001
"""Seconds that were saved, hidden or waited at least, if they are to be mentioned."""

LEAST_USD = Decimal("0.000001")
"""USD that were saved or spent at least, if they are to be mentioned."""


def print_json(data: Any) -> None:
    """One JSON text on standard output, on a line of its own."""
    print(as_json(data), flush=True)


def as_json(data: Any, indent: int | None = None) -> str:
    """A value as JSON; what has no JSON form as its text.

    What JSON does not escape by itself and a terminal takes for a command is escaped as well.
    """
    text = json.dumps(plain(data), ensure_ascii=False, default=str, indent=indent)
    return _COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def as_text(value: Any) -> str:
    """A result for people: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else as_json(value, indent=2)


def gist(value: Any, width: int = 60) -> str:
    """What a value is, in a few words."""
    if isinstance(value, str) and len(value) > width:
        lines = counted(value.count("\n") + 1, "line")
        return f"{counted(len(value), 'character')}, {lines}"
    if isinstance(value, list | tuple | set | dict):
        return counted(len(value), "item")
    text = as_json(value)
    return text if len(text) <= width else text[: width - 1] + "…"


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: ``1 call``, ``1,200 calls``."""
    if number == 1:
        return f"{number:,} {noun}"
    return f"{number:,} {plural or (f'{noun}es' if noun.endswith('s') else f'{noun}s')}"


def size(count: int) -> str:
    """A number of bytes, as exact as it is worth reading."""
    amount, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.3g} {unit}"


def duration(seconds: float) -> str:
    """A duration, as exact as it is worth reading."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def chance(probability: float) -> str:
    """An estimated probability, as exact as it is."""
    if probability > 0.99:
        return "over 99%"
    return "under 1%" if probability < 0.01 else f"{probability:.0%}"


def listed(words: Sequence[str]) -> str:
    """Words as they are listed in a sentence."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def is_terminal(stream: Any) -> bool:
    """Whether a person looks at it."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def stdout_is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return is_terminal(sys.stdout)
