"""Reads the arguments of one call, from its opening bracket to the matching one."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from agentflow.errors import PlanError
from agentflow.planner.plan import Arg, Each, Ref
from agentflow.planner.read_atoms import WORD
from agentflow.planner.read_events import (
    ArgumentClosed,
    ArgumentGrew,
    ArgumentOpened,
    Key,
    ReadEvent,
)
from agentflow.planner.read_heads import Head, Names
from agentflow.planner.read_strings import CLOSERS, StringReader
from agentflow.planner.read_values import Unreadable, ValueReader
from agentflow.planner.references import Earlier, resolve_bare, without_references
from agentflow.planner.scanner import BLANKS, Reading, Scanner, TextEnded

_EXCERPT = 80  # characters of a call that a message quotes
_BARE = re.compile(r"[^()\n\"']*")
_SKIPPED = re.compile(r"[^()\[\]{}\n\"'“”‘]*")
_SOLID = re.compile(r"[\"\[]|(?<!\$)\{|(?<!\w)'")  # never stands in a bare argument
_NAMED = re.compile(r"(?:^|,)\s*+[^\W\d][\w.-]*+\s*+=(?!=)")
_CALLED = re.compile(r"([A-Za-z_][\w.-]*+)\(")
_FIGURE = re.compile(r"[0-9]")
_LETTERS = re.compile(r"[^\W\d_]{2}|(?<![\w.])[^\W\d_]")  # not those of 1e5 or 0x1F
_REMEDIES = {
    "bad_args": "Arguments are text in quotes, numbers, references such as $1, lists and dicts;"
    " put quotes around anything else.",
    "nested_call": "Write the inner call on a line of its own and refer to it as $id.",
    "unterminated_call": "Close its quotes and brackets.",
}


class CallReader:
    """Reads one call.

    Args:
        scanner: Stands at the opening bracket.
        head: The head that was read.
        tools: Names of the tools, if known.
        earlier: Which ids may be referred to from inside a string.
        report: Is given the events.

    Attributes:
        args: Positional arguments, when `read` is done.
        kwargs: Keyword arguments, when `read` is done.
        values: Knows what is odd about them.
    """

    def __init__(
        self,
        scanner: Scanner,
        head: Head,
        tools: Names,
        earlier: Earlier,
        report: Callable[[ReadEvent], None],
    ) -> None:
        assert head.id is not None
        self.args: list[Arg] = []
        self.kwargs: dict[str, Arg] = {}
        self.values = ValueReader(scanner, tools, earlier)
        self._scanner = scanner
        self._id = head.id
        self._tool = head.tool
        self._tools = tools
        self._earlier = earlier
        self._report = report
        self._withheld: list[ReadEvent] | None = []  # while it may be one bare argument

    def read(self) -> Reading[None]:
        """Reads to the end of the call.

        Raises:
            PlanError: ``bad_args``, ``nested_call`` or ``unterminated_call``.
        """
        self._scanner.mark()
        self._scanner.pos += 1
        try:
            try:
                yield from self._arguments()
            except Unreadable as found:
                yield from self._recover(found)
        except TextEnded:
            raise self._error("unterminated_call", "the text ends inside the call") from None
        self._settle()
        self._scanner.unmark()

    def _arguments(self) -> Reading[None]:
        values = self.values
        if (yield from self._scanner.peek()) == "#":  # search(#1 hit): not a comment
            raise values.unreadable("'#' stands where a value is expected")
        while (yield from values.significant()) != ")" and not values.next_head:
            key, value = yield from self._argument()
            char = yield from values.significant()
            if char == "$" or char.isdigit():
                yield from values.look_for_head()
            if char not in ("", ",", ")") and not values.next_head:
                raise values.unreadable(f"{char!r} stands where ')' or a comma is expected")
            self._keep(key, value)
            if char == ",":
                self._scanner.pos += 1
        if not values.next_head:
            self._scanner.pos += 1

    def _argument(self) -> Reading[tuple[Key, Arg]]:
        """Reads one argument, with its name if it has one."""
        scanner, values = self._scanner, self.values
        word, gap = yield from self._word()
        name = ""
        if word and (yield from self._is_name()):
            name = word
            self._settle()
            yield from values.significant()
            word, gap = yield from self._word()
        self._check_order(name)
        first = yield from scanner.peek()
        maps = word == "each" and gap != "" and first in ("$", "[", "(")
        if maps or (not word and (first in CLOSERS or first in ("[", "{"))):
            self._settle()
        key: Key = name or len(self.args)
        if first or word:
            self._tell(ArgumentOpened(self._id, key))
        value = yield from values.read("" if maps else word, partial(self._grow, key))
        if maps and not isinstance(value, Ref | list):
            raise values.unreadable("what follows 'each' is neither a reference nor a list")
        return key, Each(value) if maps else value

    def _word(self) -> Reading[tuple[str, str]]:
        """The word that comes next and the blanks after it; both empty if none does."""
        char = yield from self._scanner.peek()
        if not char.isalpha() and char != "_":
            return "", ""
        word = yield from self._scanner.run(WORD)
        return word, (yield from self._scanner.run(BLANKS))

    def _is_name(self) -> Reading[bool]:
        """Whether the word just read is the name of an argument; reads the equals sign."""
        scanner = self._scanner
        if (yield from scanner.peek()) != "=":
            return False
        scanner.pos += 1
        if (yield from scanner.peek()) == "=":
            raise self.values.unreadable("'==' stands where a value is expected")
        return True

    def _check_order(self, name: str) -> None:
        if name in self.kwargs:
            raise self.values.unreadable(f"{name} is given twice")
        if not name and self.kwargs:
            raise self.values.unreadable("an argument without a name follows one with a name")

    def _keep(self, key: Key, value: Arg) -> None:
        if isinstance(key, str):
            self.kwargs[key] = value
        else:
            self.args.append(value)
        self._tell(ArgumentClosed(self._id, key, value))

    def _grow(self, key: Key, text: str) -> None:
        self._settle()
        self._report(ArgumentGrew(self._id, key, text))

    def _tell(self, event: ReadEvent) -> None:
        if self._withheld is None:
            self._report(event)
        else:
            self._withheld.append(event)

    def _settle(self) -> None:
        """Reports what was withheld: the arguments are what they seemed to be."""
        if self._withheld is not None:
            for event in self._withheld:
                self._report(event)
            self._withheld = None
            self._scanner.trim(_EXCERPT)

    def _recover(self, found: Unreadable) -> Reading[None]:
        """Reads all of it as one bare argument, or raises at the end of the call."""
        if found.kind == "unterminated_call":
            raise self._error(found.kind, found.problem)
        depth = found.depth + 1
        if self._withheld is not None and not _SOLID.search(self._scanner.marked()):
            depth = yield from self._read_bare(depth)
        if depth:
            yield from self._skip(depth)
            raise self._error(found.kind, found.problem)
        self._take_bare(found)

    def _read_bare(self, depth: int) -> Reading[int]:
        """Reads to the end of a call without quotes; gives the depth at which it met one."""
        scanner = self._scanner
        previous = scanner.marked()[-1]
        while depth:
            text = yield from scanner.run(_BARE)
            previous = text[-1:] or previous
            char = yield from scanner.peek()
            if char == "":
                raise TextEnded
            if char == '"' or (char == "'" and not previous.isalnum()):
                return depth
            scanner.pos += 1
            depth += (char == "(") - (char == ")")
            previous = char
            if char == "\n":
                yield from self.values.look_for_head()
                depth = 0 if self.values.next_head else depth
        return 0

    def _take_bare(self, found: Unreadable) -> None:
        """Makes the text between the brackets the only argument."""
        head = self.values.next_head
        raw = self._scanner.marked()
        text = raw[1 : len(raw) - (head.end if head else 1)].strip()
        if _SOLID.search(text) or _NAMED.search(text) or any(map(_is_numeric, text.split(","))):
            raise self._error(found.kind, found.problem)
        for match in _CALLED.finditer(text):
            if self._tools is not None and match[1] in self._tools:
                raise self._error("nested_call", f"{match[1]}(...) is a call inside a call")
        value = self.values.resolved(resolve_bare(text, self._earlier), text)
        self._withheld = [ArgumentOpened(self._id, 0), ArgumentClosed(self._id, 0, value)]
        self.args = [value]

    def _skip(self, depth: int) -> Reading[None]:
        """Reads to the end of a call that cannot be read, for a message that fits it."""
        scanner = self._scanner
        previous = "x"  # a mark right here is an apostrophe
        while depth:
            text = yield from scanner.run(_SKIPPED)
            previous = text[-1:] or previous
            char = yield from scanner.peek()
            if char == "":
                raise TextEnded
            if char in CLOSERS and not (char == "'" and previous.isalnum()):
                yield from StringReader(scanner, False, None, self._earlier).read()
                continue
            scanner.pos += 1
            depth += (char in "([{") - (char in ")]}")
            previous = char
            if char == "\n":
                yield from self.values.look_for_head()
                depth = 0 if self.values.next_head else depth

    def _error(self, kind: str, problem: str) -> PlanError:
        excerpt = self._tool + self._scanner.marked()[:_EXCERPT]
        return PlanError(kind, f"{problem}, in {excerpt!r}. {_REMEDIES[kind]}", self._id)


def _is_numeric(text: str) -> bool:
    """Whether there are figures in it and no words: a number or a sum, not a title."""
    text = without_references(text)
    return _FIGURE.search(text) is not None and _LETTERS.search(text) is None
