"""Reads quoted strings while they are being written."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from agentflow.planner.escapes import HEX_LENGTHS, REPLACEMENT, SIMPLE, numbered, paired
from agentflow.planner.references import MAX_DIGITS, Earlier
from agentflow.planner.scanner import DIGITS, Reading, Scanner, TextEnded

CLOSERS = {'"': '"', "'": "'", "“": "”", "”": "”", "‘": "’"}
"""The quotation mark that ends a string, by the one that opens it."""

PREFIXES = frozenset({"r", "b", "u", "f", "br", "rb", "fr", "rf"})
"""Letters that may stand before a quotation mark, as in Python."""

_LONGEST_ESCAPE = 10
_PLAIN = {closer: re.compile(rf"[^{closer}\\$]*") for closer in CLOSERS.values()}
_HEX = re.compile(r"[0-9a-fA-F]*")
_OCTAL = re.compile(r"[0-7]*")


class Quoted(NamedTuple):
    """A string that was read.

    Attributes:
        text: The text, decoded.
        escaped: Positions of the dollar signs in it that were written after a backslash.
    """

    text: str
    escaped: frozenset[int]


class StringReader:
    """Reads one quoted string.

    Args:
        scanner: Stands at the opening quotation mark.
        raw: Whether backslashes are plain text.
        grow: Is told more of the text as it comes, up to the first reference.
        earlier: Which ids are references.
    """

    __slots__ = (
        "_closer",
        "_earlier",
        "_escaped",
        "_grow",
        "_high",
        "_length",
        "_pieces",
        "_raw",
        "_scanner",
        "_told",
    )

    def __init__(
        self, scanner: Scanner, raw: bool, grow: Callable[[str], None] | None, earlier: Earlier
    ) -> None:
        self._scanner = scanner
        self._raw = raw
        self._grow = grow
        self._earlier = earlier
        self._closer = CLOSERS[scanner.text[scanner.pos]]
        self._pieces: list[str] = []
        self._told = 0  # how many of the pieces
        self._length = 0
        self._escaped: list[int] = []
        self._high = ""  # the first half of a surrogate pair, counted but not a piece yet

    def read(self) -> Reading[Quoted]:
        """Reads to the end of the string.

        Raises:
            TextEnded: The text ended first.
        """
        scanner, plain = self._scanner, _PLAIN[self._closer]
        triple = yield from self._opening()
        while triple is not None:
            if match := plain.match(scanner.text, scanner.pos):
                scanner.pos = match.end()
                self._add(match[0])
            if scanner.pos >= len(scanner.text):
                yield from self._more()
                continue
            char = scanner.text[scanner.pos]
            scanner.pos += 1
            if char == "$" or scanner.pos + _LONGEST_ESCAPE > len(scanner.text):
                self._tell()  # what follows may have to be waited for
            if char == "\\":
                yield from self._escape()
            elif char == "$":
                yield from self._dollar()
            elif not triple or (yield from self._closes()):
                break
        self._settle()
        self._tell()
        return Quoted("".join(self._pieces), frozenset(self._escaped))

    def _opening(self) -> Reading[bool | None]:
        """Whether it is a triple-quoted string; None if it is empty and read already."""
        scanner, closer = self._scanner, self._closer
        scanner.pos += 1
        if closer not in "\"'" or (yield from scanner.peek()) != closer:
            return False
        scanner.pos += 1
        if (yield from scanner.peek()) != closer:
            return None
        scanner.pos += 1
        return True

    def _closes(self) -> Reading[bool]:
        """Whether the quotation mark just read is the first of three."""
        for found in (1, 2):
            if (yield from self._scanner.peek()) != self._closer:
                self._add(self._closer * found)
                return False
            self._scanner.pos += 1
        return True

    def _escape(self) -> Reading[None]:
        scanner = self._scanner
        char = yield from scanner.peek()
        if self._raw and char:
            scanner.pos += 1
            self._add("\\")
            self._plain(char)
        elif char in HEX_LENGTHS:
            scanner.pos += 1
            digits = yield from scanner.run(_HEX, HEX_LENGTHS[char])
            self._decoded(numbered(char, digits))
        elif char and char in "01234567":
            self._decoded(chr(int((yield from scanner.run(_OCTAL, 3)), 8)))
        elif char == "\\":
            scanner.pos += 1
            self._add("\\")
            if (yield from scanner.peek()) == "$":
                scanner.pos += 1
                self._plain("$")
        elif char == "$" or char in SIMPLE or char == self._closer:
            scanner.pos += 1
            self._plain(SIMPLE.get(char, char))
        else:
            self._add("\\")

    def _dollar(self) -> Reading[None]:
        """Reads on far enough to know whether the text so far ends before a reference."""
        scanner = self._scanner
        found = "$"
        if (yield from scanner.peek()) == "{":
            scanner.pos += 1
            found = "${"
        digits = yield from scanner.run(DIGITS)
        if 0 < len(digits) <= MAX_DIGITS and self._earlier(int(digits)):
            self._tell()
            self._grow = None
        self._add(found + digits)

    def _plain(self, char: str) -> None:
        """Adds a character that stood after a backslash."""
        if char == "$":
            self._escaped.append(self._length)
        self._add(char)

    def _decoded(self, text: str) -> None:
        """Adds what a numeric escape stands for."""
        if len(text) > 1 or not "\ud800" <= text <= "\udfff":
            self._add(text)
        elif text >= "\udc00" and self._high:
            self._pieces.append(paired(self._high, text))
            self._high = ""
        elif text >= "\udc00":
            self._add(REPLACEMENT)
        else:
            self._settle()
            self._high = text
            self._length += 1

    def _add(self, text: str) -> None:
        if text:
            self._settle()
            self._pieces.append(text)
            self._length += len(text)

    def _settle(self) -> None:
        if self._high:
            self._pieces.append(REPLACEMENT)
            self._high = ""

    def _more(self) -> Reading[None]:
        if self._scanner.over:
            raise TextEnded
        self._tell()
        yield

    def _tell(self) -> None:
        if self._grow is not None and self._told < len(self._pieces):
            self._grow("".join(self._pieces[self._told :]))
            self._told = len(self._pieces)
