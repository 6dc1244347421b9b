"""Reads one value of a call: a literal, a reference, or a list or dict of such."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from agentflow.planner.plan import Arg, Template
from agentflow.planner.read_atoms import (
    CONSTANTS,
    MAX_NUMBER,
    NUMBER,
    WORD,
    number,
    read_reference,
)
from agentflow.planner.read_heads import Head, Names
from agentflow.planner.read_lines import read_head
from agentflow.planner.read_strings import CLOSERS, PREFIXES, StringReader
from agentflow.planner.references import Earlier, Resolved, alone, resolve
from agentflow.planner.scanner import BLANKS, TO_NEWLINE, Reading, Scanner, TextEnded

MAX_DEPTH = 100
"""How deep lists and dicts may be nested."""

_BRACKETS = {"[": "]", "{": "}", "(": ")"}
_NUMERIC = frozenset("0123456789+-.")
_NO_HEAD = frozenset("\"'“‘[{()}],")  # a line inside a call mostly begins with one of these
_WANTED: Final[Any] = object()  # in place of a value that is still to be read
_NO_KEY: Final[Any] = object()


class Unreadable(Exception):
    """What was found is no value.

    Attributes:
        kind: The kind of `PlanError` it will be.
        problem: What was found.
        depth: How many brackets inside the call are open.
    """

    def __init__(self, kind: str, problem: str, depth: int = 0) -> None:
        super().__init__(problem)
        self.kind = kind
        self.problem = problem
        self.depth = depth


class _Nest:
    """A list, a dict or a pair of brackets that is being read."""

    __slots__ = ("closer", "commas", "items", "key", "opener", "pairs")

    def __init__(self, opener: str) -> None:
        self.opener = opener
        self.closer = _BRACKETS[opener]
        self.items: list[Arg] = []
        self.pairs: dict[str, Arg] = {}
        self.key: Any = _NO_KEY
        self.commas = 0

    @property
    def has_key(self) -> bool:
        return self.key is not _NO_KEY

    def put(self, value: Arg) -> None:
        if self.opener != "{":
            self.items.append(value)
        elif not self.has_key:
            self.key = _key(value)
        else:
            self.pairs[self.key] = value
            self.key = _NO_KEY

    def value(self) -> Arg:
        if self.opener == "{":
            return self.pairs
        if self.opener == "(" and len(self.items) == 1 and not self.commas:
            return self.items[0]
        return self.items


class ValueReader:
    """Reads the values of one call, or the one of a ``return``.

    Args:
        scanner: The text.
        tools: Names of the tools, if known.
        earlier: Which ids may be referred to from inside a string.
        one_line: Whether a newline ends the value.

    Attributes:
        next_head: What began where a bracket was missing.
        unclosed: Whether a bracket was missing.
        literal: Whether something that is written like a reference stayed text.
        texts: The strings with references in them, as spelt.
    """

    def __init__(
        self, scanner: Scanner, tools: Names, earlier: Earlier, one_line: bool = False
    ) -> None:
        self.next_head: Head | None = None
        self.unclosed = False
        self.literal = False
        self.texts: list[str] = []
        self._scanner = scanner
        self._tools = tools
        self._earlier = earlier
        self._one_line = one_line
        self._nests: list[_Nest] = []

    def significant(self) -> Reading[str]:
        """The next character that matters, still unread.

        It is empty at the end of the text, and at the next head: then `next_head` is set.
        """
        scanner = self._scanner
        while self.next_head is None:
            yield from scanner.run(BLANKS)
            char = yield from scanner.peek()
            if char == "#":
                yield from scanner.run(TO_NEWLINE)
            elif char != "\n" or (self._one_line and not self._nests):
                return char
            else:
                scanner.pos += 1
                yield from self.look_for_head()
        return ""

    def look_for_head(self) -> Reading[None]:
        """Sets `next_head` if the text continues with one."""
        yield from self._scanner.run(BLANKS)
        if (yield from self._scanner.peek()) not in _NO_HEAD:
            self.next_head = yield from read_head(self._scanner, self._tools)
            self.unclosed = self.next_head is not None

    def read(self, word: str = "", grow: Callable[[str], None] | None = None) -> Reading[Arg]:
        """Reads one value.

        Args:
            word: The word it begins with, if that has been read already.
            grow: Is told the text of a quoted value while it comes.

        Raises:
            Unreadable: It is no value.
            TextEnded: The text ended inside it.
        """
        value = yield from self._begin(word, grow)
        while self._nests:
            if value is _WANTED:
                value = yield from self._item()
            else:
                self._put(value)
                value = yield from self._after_item()
        return value

    def resolved(self, found: Resolved, text: str) -> Arg:
        """Notes what is odd about a string, and gives its value."""
        self.literal |= found.literal
        if type(found.value) is Template:
            self.texts.append(text)
        return found.value

    def unreadable(self, problem: str, kind: str = "bad_args") -> Unreadable:
        """The error for what stands here."""
        return Unreadable(kind, problem, len(self._nests))

    def _begin(self, word: str, grow: Callable[[str], None] | None) -> Reading[Arg]:
        """Reads a value, or only its opening bracket."""
        scanner = self._scanner
        char = "" if word else (yield from self.significant())
        if char in CLOSERS:
            return (yield from self._string(False, grow))
        if char == "$":
            return (yield from self._reference())
        if char in _BRACKETS:
            if len(self._nests) == MAX_DEPTH:
                raise self.unreadable(f"brackets are nested more than {MAX_DEPTH} deep")
            scanner.pos += 1
            self._nests.append(_Nest(char))
            return _WANTED
        if char in _NUMERIC:
            return (yield from self._number())
        if word or char.isalpha() or char == "_":
            word = word or (yield from scanner.run(WORD))
            return (yield from self._word(word, grow))
        if char:
            raise self.unreadable(f"{char!r} stands where a value is expected")
        if self.next_head:
            raise self.unreadable("a value is missing", "unterminated_call")
        raise TextEnded

    def _item(self) -> Reading[Arg]:
        """Reads the next value of the innermost bracket, or its end."""
        char = yield from self.significant()
        if char == "" or char in ")]}":
            return self._close(char)
        return (yield from self._begin("", None))

    def _after_item(self) -> Reading[Arg]:
        """Reads what follows a value or a key."""
        nest = self._nests[-1]
        char = yield from self.significant()
        if char == "" or char in ")]}":
            return self._close(char)
        if char == (":" if nest.has_key else ","):
            self._scanner.pos += 1
            nest.commas += char == ","
            return _WANTED
        wanted = "a colon" if nest.has_key else f"{nest.closer!r} or a comma"
        raise self.unreadable(f"{char!r} stands where {wanted} is expected")

    def _close(self, char: str) -> Arg:
        """Ends the innermost bracket; if its own is missing, an outer one ends it."""
        nest = self._nests[-1]
        if nest.has_key:
            kind = "unterminated_call" if self.next_head else "bad_args"
            raise self.unreadable(f"the key {nest.key!r} has no value", kind)
        if char == nest.closer:
            self._scanner.pos += 1
        elif char == "" and self.next_head is None:
            raise TextEnded
        elif char in ("", ")") or any(outer.closer == char for outer in self._nests[:-1]):
            self.unclosed = True
        else:
            raise self.unreadable(f"{char!r} closes nothing")
        self._nests.pop()
        return nest.value()

    def _put(self, value: Arg) -> None:
        nest = self._nests[-1]
        nest.put(value)
        if nest.key is None:
            raise self.unreadable("a key of a dict must be a text in quotes")
        if nest.has_key and nest.key in nest.pairs:
            raise self.unreadable(f"the key {nest.key!r} is given twice")

    def _string(self, raw: bool, grow: Callable[[str], None] | None) -> Reading[Arg]:
        """Reads a quoted string, or several that stand side by side."""
        nest = self._nests[-1] if self._nests else None
        is_key = nest is not None and nest.opener == "{" and not nest.has_key
        text, escaped = yield from StringReader(self._scanner, raw, grow, self._earlier).read()
        while (yield from self.significant()) in CLOSERS:
            more = yield from StringReader(self._scanner, False, None, self._earlier).read()
            escaped |= {len(text) + position for position in more.escaped}
            text += more.text
        return text if is_key else self.resolved(resolve(text, escaped, self._earlier), text)

    def _reference(self) -> Reading[Arg]:
        text = yield from read_reference(self._scanner)
        if (ref := alone(text)) is None:
            raise self.unreadable(f"{text} is not a reference")
        return ref

    def _number(self) -> Reading[Arg]:
        text = yield from self._scanner.run(NUMBER, MAX_NUMBER + 1)
        if (value := number(text)) is None:
            raise self.unreadable(f"{text[:40]} is not a number")
        return value

    def _word(self, word: str, grow: Callable[[str], None] | None) -> Reading[Arg]:
        following = yield from self._scanner.peek()
        if following in ("'", '"') and word.lower() in PREFIXES:
            return (yield from self._string("r" in word.lower(), grow))
        if word in CONSTANTS:
            return CONSTANTS[word]
        if following == "(":
            raise self.unreadable(f"{word}(...) is a call inside a call", "nested_call")
        raise self.unreadable(f"{word} is not a value")


def _key(value: Arg) -> str | None:
    """A dict's key as JSON writes it; None if it cannot be one."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if isinstance(value, int | float) else None
