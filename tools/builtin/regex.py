"""Reads the text of a regular expression into a tree.

The syntax is the part of Python's that needs no backtracking.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from agentflow.errors import AgentflowError

MAX_LENGTH = 1_000
MAX_NESTING = 50

_COUNT = re.compile(r"\{(\d*)(,?)(\d*)\}")
_KINDS: dict[str, Callable[[str], bool]] = {
    "d": str.isdecimal,
    "w": lambda char: char == "_" or char.isalnum(),
    "s": str.isspace,
}
_CONTROL = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_HEX_DIGITS = {"x": 2, "u": 4}
_REPEATS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}


class PatternError(AgentflowError, ValueError):
    """The text is not a pattern.

    Attributes:
        at: Index of the character at fault.
    """

    def __init__(self, message: str, at: int) -> None:
        self.at = at
        super().__init__(f"pattern, character {at + 1}: {message}")


@dataclass(frozen=True, slots=True)
class CharSet:
    """One character out of ranges and kinds (``\\d \\w \\s``, or their opposites)."""

    ranges: tuple[tuple[str, str], ...] = ()
    kinds: tuple[tuple[str, bool], ...] = ()  # letter, and whether it is the opposite
    negated: bool = False

    def holds(self, char: str, ignore_case: bool) -> bool:
        """Whether the character is one of them."""
        forms = {char, char.lower(), char.upper()} if ignore_case else {char}
        found = any(
            low <= form <= high for form in forms if len(form) == 1 for low, high in self.ranges
        ) or any(_KINDS[letter](char) != opposite for letter, opposite in self.kinds)
        return found != self.negated

    def single(self) -> str | None:
        """The character, if it is exactly one."""
        if self.negated or self.kinds or len(self.ranges) != 1:
            return None
        low, high = self.ranges[0]
        return low if low == high else None


@dataclass(frozen=True, slots=True)
class Assert:
    """``^``, ``$``, ``\\b`` (``b``) or ``\\B`` (``B``)."""

    kind: str

    def holds(self, before: str, after: str) -> bool:
        """Whether it is true between two characters, given as ``word``, ``other`` or the edge."""
        if self.kind == "^":
            return before == "start"
        if self.kind == "$":
            return after == "end"
        return ((before == "word") != (after == "word")) == (self.kind == "b")


@dataclass(frozen=True, slots=True)
class Sequence:
    """One part after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the options."""

    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A part `least` to `most` times; `most` None is without end."""

    part: Node
    least: int
    most: int | None


Node: TypeAlias = "CharSet | Assert | Sequence | Choice | Repeat"

_ANY = CharSet(negated=True)


def parse(pattern: str) -> Node:
    """Read a pattern.

    Raises:
        PatternError: It is none, or it needs backtracking.
    """
    if len(pattern) > MAX_LENGTH:
        raise PatternError(f"longer than {MAX_LENGTH} characters", MAX_LENGTH)
    reader = _Reader(pattern)
    node = reader.choice()
    if reader.at < len(pattern):
        raise PatternError("this ')' closes nothing; write '\\)' for the character", reader.at)
    return node


class _Reader:
    """Recursive descent; `at` is the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0

    def choice(self) -> Node:
        options = [self.sequence()]
        while self._accept("|"):
            options.append(self.sequence())
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def sequence(self) -> Node:
        parts: list[Node] = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            parts.append(self.repeated())
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def repeated(self) -> Node:
        part = self.atom()
        start = self.at
        count = self._count()
        if count is None:
            return part
        least, most = count
        if most is not None and most < least:
            raise PatternError("the smaller count comes first", start)
        self._accept("?")  # lazy or not: the same lines match
        if self.at < len(self.text) and (self.text[self.at] in "*+?"):
            raise PatternError("two counts in a row; put the first into (...)", self.at)
        return Repeat(part, least, most)

    def atom(self) -> Node:
        start = self.at
        char = self._next()
        if char == "(":
            return self._group(start)
        if char == "[":
            return self._set(start)
        if char == "\\":
            return self._escape(start)
        if char in "^$":
            return Assert(char)
        if char in "*+?":
            raise PatternError(f"nothing to repeat; write '\\{char}' for the character", start)
        return _ANY if char == "." else CharSet(((char, char),))

    def _group(self, start: int) -> Node:
        if self._accept("?") and not self._accept(":") and not self._name():
            raise PatternError(
                "look-around, flags and conditions are not supported; groups are (...) or (?:...)",
                start,
            )
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise PatternError(f"more than {MAX_NESTING} groups inside each other", start)
        node = self.choice()
        if not self._accept(")"):
            raise PatternError("this '(' is never closed", start)
        self.depth -= 1
        return node

    def _name(self) -> bool:
        named = re.compile(r"P<\w+>").match(self.text, self.at)
        if named:
            self.at = named.end()
        return named is not None

    def _count(self) -> tuple[int, int | None] | None:
        if self.at == len(self.text):
            return None
        if self.text[self.at] in _REPEATS:
            return _REPEATS[self._next()]
        count = _COUNT.match(self.text, self.at)
        if count is None or not (count[1] or count[3]):
            return None
        if len(count[1]) > 4 or len(count[3]) > 4:
            raise PatternError("the count is too large", self.at)
        self.at = count.end()
        least = int(count[1] or 0)
        if not count[2]:
            return least, least
        return least, int(count[3]) if count[3] else None

    def _escape(self, start: int) -> Node:
        char = self._next()
        if char in "bB":
            return Assert(char)
        if char in "AZ":
            return Assert("^" if char == "A" else "$")
        kind_or_char = self._escaped(char, start)
        if isinstance(kind_or_char, str):
            return CharSet(((kind_or_char, kind_or_char),))
        return CharSet(kinds=(kind_or_char,))

    def _escaped(self, char: str, start: int) -> str | tuple[str, bool]:
        """What stands after a backslash: a character, or a kind and whether it is the opposite."""
        if char.lower() in _KINDS:
            return char.lower(), char.isupper()
        if char in _CONTROL:
            return _CONTROL[char]
        if char in _HEX_DIGITS:
            return self._hexadecimal(_HEX_DIGITS[char], start)
        if char.isdecimal():
            raise PatternError("back-references are not supported", start)
        if char in string.ascii_letters:
            raise PatternError(f"'\\{char}' has no meaning", start)
        return char

    def _hexadecimal(self, count: int, start: int) -> str:
        digits = self.text[self.at : self.at + count]
        if len(digits) < count or not set(digits) <= set(string.hexdigits):
            raise PatternError(f"{count} hexadecimal digits must follow", start)
        self.at += count
        return chr(int(digits, 16))

    def _set(self, start: int) -> Node:
        negated = self._accept("^")
        ranges: list[tuple[str, str]] = []
        kinds: list[tuple[str, bool]] = []
        first = True
        while first or not self._accept("]"):
            first = False
            low = self._set_member(start)
            if not isinstance(low, str):
                kinds.append(low)
            elif self._range_follows():
                ranges.append((low, self._range_end(low)))
            else:
                ranges.append((low, low))
        return CharSet(tuple(ranges), tuple(kinds), negated)

    def _set_member(self, start: int) -> str | tuple[str, bool]:
        if self.at == len(self.text):
            raise PatternError("this '[' is never closed; write '\\[' for the character", start)
        at = self.at
        char = self._next()
        return self._escaped(self._next(), at) if char == "\\" else char

    def _range_follows(self) -> bool:
        ahead = self.text[self.at : self.at + 2]
        return len(ahead) == 2 and ahead[0] == "-" and ahead[1] != "]"

    def _range_end(self, low: str) -> str:
        self.at += 1
        at = self.at
        high = self._set_member(at)
        if not isinstance(high, str) or high < low:
            raise PatternError("a range goes from the lower character to the higher", at)
        return high

    def _next(self) -> str:
        if self.at == len(self.text):
            raise PatternError("the pattern ends after a backslash", self.at - 1)
        self.at += 1
        return self.text[self.at - 1]

    def _accept(self, char: str) -> bool:
        found = self.text.startswith(char, self.at)
        self.at += found
        return found
