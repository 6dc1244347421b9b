"""Reads a call's arguments, one JSON object, while they are being written.

Whole texts are read as `json.loads` reads them, except that ``NaN`` and ``Infinity``, which
are not JSON, are refused. Every character is looked at once, however the text is cut; what
is kept is the values themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from agentflow.errors import MalformedArguments
from agentflow.tools.arguments import (
    ArgumentClosed,
    ArgumentEvent,
    ArgumentGrew,
    ArgumentOpened,
    CallBroken,
    CallClosed,
)
from agentflow.tools.json_tokens import (
    ESCAPE_BEGUN,
    FIGURES,
    LITERALS,
    TYPES,
    after_blanks,
    decoded,
    good_figures,
    number,
    run_end,
)

MOST_NESTED = 200
"""Objects and lists that may stand in one another, the arguments themselves counted."""

_EXCERPT = 40  # characters that a message quotes
_AFTER_NUMBER = frozenset(" \t\n\r,]}")


class _Unreadable(Exception):
    """The arguments cannot be read any further.

    Attributes:
        at: Where in the present piece of text that was found.
        position: Which character of the whole text is at fault, if not that one.
    """

    def __init__(self, problem: str, at: int, position: int | None = None) -> None:
        self.at = at
        self.position = position
        super().__init__(problem)


_Step: TypeAlias = "Callable[[ArgumentsReader, str, int], int]"
"""Reads what is expected next, from a place in a text, and gives the place after it."""


class ArgumentsReader:
    """Reads the arguments of one call from text that arrives in pieces.

    Args:
        id: What the events call the call.
        tool: Name of the tool, for messages.

    Attributes:
        arguments: The arguments that are closed, in the order they were first closed.
        end: How many characters are the object; None before its closing brace was read.
        id: What the events call the call.
    """

    __slots__ = (
        "_base", "_comma", "_events", "_figure", "_growing", "_held", "_in_key", "_keys", "_open",
        "_over", "_parts", "_start", "_step", "_tail", "_tool", "arguments", "end", "id",
    )  # fmt: skip

    def __init__(self, id: int, tool: str) -> None:
        self.id = id
        self.arguments: dict[str, Any] = {}
        self.end: int | None = None
        self._tool = tool
        self._step: _Step = ArgumentsReader._beginning
        self._events: list[ArgumentEvent] = []
        self._over = False
        self._base = 0  # where the present piece begins in the whole text
        self._tail = ""  # the last characters before it, for messages
        self._held = ""  # the beginning of an escape or a literal, to be read with what follows
        self._open: list[dict[str, Any] | list[Any]] = []
        self._keys: list[str] = []  # the last key of each open object
        self._start = 0  # where the present value begins
        self._comma = 0  # where the last comma stood
        self._parts: list[str] = []  # of the present string or number
        self._figure = "begin"
        self._in_key = False
        self._growing = False  # inside a string that is an argument

    @property
    def ended(self) -> bool:
        """Whether the closing brace was read; nothing after it is looked at."""
        return self.end is not None

    def feed(self, text: str) -> list[ArgumentEvent]:
        """Read more of the text, and give what was found in it.

        It never raises: text that is not one JSON object gives `CallBroken`, and after that,
        as after the closing brace, nothing more comes.
        """
        if self._over:
            return []
        if self._held:
            text, self._held = self._held + text, ""
        events: list[ArgumentEvent] = []
        self._events = events
        at, end = 0, len(text)
        try:
            while at < end and not self._over:
                at = self._step(self, text, at)
        except _Unreadable as found:
            at = found.at + 1
            position = self._base + found.at if found.position is None else found.position
            self._break(f"{found}, at character {position}", text[:at], position)
        at -= len(self._held)
        self._base += at
        self._tail = (self._tail + text[:at])[-_EXCERPT:]
        return events

    def finish(self) -> list[ArgumentEvent]:
        """The text has ended; a blank one stands for no arguments."""
        if self._over:
            return []
        self._events = []
        if self._step is ArgumentsReader._beginning:
            self._complete(self._base)
        else:
            count = self._base + len(self._held)
            self._break(f"they end too early, after {count} characters", self._held, self._fault())
        return self._events

    def _beginning(self, text: str, at: int) -> int:
        char = text[at]
        if char == "{":
            self._open.append(self.arguments)
            self._keys.append("")
            self._step = ArgumentsReader._first_key
            return at + 1
        if char in " \t\n\r":
            return after_blanks(text, at)
        if kind := TYPES.get(char):
            raise _Unreadable(f"they are a JSON {kind}, not an object", at)
        raise _Unreadable("they do not begin with a brace", at)

    def _first_key(self, text: str, at: int) -> int:
        return self._close(at) if text[at] == "}" else self._key(text, at)

    def _key(self, text: str, at: int) -> int:
        char = text[at]
        if char == '"':
            self._in_key = True
            return self._string_begins(at)
        if char in " \t\n\r":
            return after_blanks(text, at)
        if char == "}":
            raise self._trailing_comma(at)
        raise _Unreadable("a key in double quotes is expected", at)

    def _colon(self, text: str, at: int) -> int:
        char = text[at]
        if char == ":":
            self._step = ArgumentsReader._value
            return at + 1
        if char in " \t\n\r":
            return after_blanks(text, at)
        raise _Unreadable("a colon is expected", at)

    def _first_item(self, text: str, at: int) -> int:
        return self._close(at) if text[at] == "]" else self._value(text, at)

    def _value(self, text: str, at: int) -> int:
        char = text[at]
        if char in " \t\n\r":
            return after_blanks(text, at)
        begin = _VALUES.get(char)
        if begin is None:
            raise self._no_value(char, at)
        if len(self._open) == 1:
            self._events.append(ArgumentOpened(self.id, self._keys[0]))
        self._start = self._base + at
        return begin(self, text, at)

    def _comma_or_close(self, text: str, at: int) -> int:
        char = text[at]
        is_object = isinstance(self._open[-1], dict)
        if char == ",":
            self._comma = self._base + at
            self._step = ArgumentsReader._key if is_object else ArgumentsReader._value
            return at + 1
        if char == ("}" if is_object else "]"):
            return self._close(at)
        if char in " \t\n\r":
            return after_blanks(text, at)
        closer = "brace" if is_object else "bracket"
        raise _Unreadable(f"a comma or a closing {closer} is expected", at)

    def _string(self, text: str, at: int) -> int:
        end = run_end(text, at)
        if end > at:
            piece = decoded(text[at:end])
            self._parts.append(piece)
            if self._growing:
                self._events.append(ArgumentGrew(self.id, self._keys[0], piece))
        if end == len(text):
            return end
        if text[end] == '"':
            return self._string_ends(end)
        if text[end] != "\\":
            raise _Unreadable(f"{text[end]!r} has to be escaped in a string", end)
        if ESCAPE_BEGUN.match(text, end):
            return self._hold(text, end)
        raise self._no_escape(text[end + 1], end)

    def _string_opens(self, text: str, at: int) -> int:
        self._growing = len(self._open) == 1
        return self._string_begins(at)

    def _string_begins(self, at: int) -> int:
        self._start = self._base + at
        self._step = ArgumentsReader._string
        return at + 1

    def _string_ends(self, at: int) -> int:
        string = "".join(self._parts)
        self._parts = []
        if self._in_key:
            self._in_key = False
            self._keys[-1] = string
            self._step = ArgumentsReader._colon
        else:
            self._growing = False
            self._put(string)
        return at + 1

    def _number_begins(self, text: str, at: int) -> int:
        self._figure = "begin"
        self._step = ArgumentsReader._number
        return self._number(text, at)

    def _number(self, text: str, at: int) -> int:
        figure, end = self._figure, at
        while end < len(text) and (following := FIGURES[figure].get(text[end])):
            figure = following
            end += 1
        self._figure = figure
        self._parts.append(text[at:end])
        if end < len(text):
            self._number_ends(text[end], end)
        return end

    def _number_ends(self, following: str, at: int) -> None:
        written = "".join(self._parts)
        self._parts = []
        good = good_figures(written)
        if good < len(written):
            raise _Unreadable("a number is not complete", at, self._start + good)
        if following not in _AFTER_NUMBER:
            raise _Unreadable("a number ends here, and no comma follows", at)
        try:
            value = number(written)
        except ValueError:
            raise _Unreadable("a number has too many digits", at, self._start) from None
        self._put(value)

    def _literal(self, text: str, at: int) -> int:
        word, value = LITERALS[text[at]]
        if text.startswith(word, at):
            self._put(value)
            return at + len(word)
        if word.startswith(text[at:]):
            self._step = ArgumentsReader._literal
            return self._hold(text, at)
        raise _Unreadable(f"{word} is expected", at)

    def _object_opens(self, text: str, at: int) -> int:
        return self._nest({}, ArgumentsReader._first_key, at)

    def _list_opens(self, text: str, at: int) -> int:
        return self._nest([], ArgumentsReader._first_item, at)

    def _nest(self, container: dict[str, Any] | list[Any], step: _Step, at: int) -> int:
        if len(self._open) == MOST_NESTED:
            raise _Unreadable(f"they are nested more than {MOST_NESTED} deep", at)
        self._open.append(container)
        self._keys.append("")
        self._step = step
        return at + 1

    def _close(self, at: int) -> int:
        container = self._open.pop()
        self._keys.pop()
        if self._open:
            self._put(container)
        else:
            self._complete(self._base + at + 1)
        return at + 1

    def _put(self, value: Any) -> None:
        """A value is complete."""
        container = self._open[-1]
        if isinstance(container, list):
            container.append(value)
        else:
            container[self._keys[-1]] = value
        if len(self._open) == 1:
            self._events.append(ArgumentClosed(self.id, self._keys[0], value))
        self._step = ArgumentsReader._comma_or_close

    def _hold(self, text: str, at: int) -> int:
        self._held = text[at:]
        return len(text)

    def _complete(self, end: int) -> None:
        self.end = end
        self._over = True
        self._events.append(CallClosed(self.id))

    def _break(self, problem: str, text: str, position: int) -> None:
        self._over = True
        excerpt = (self._tail + text)[-_EXCERPT:]
        message = (
            f"{self._tool}: the arguments cannot be read: {problem}, in {excerpt!r}."
            " Write one JSON object."
        )
        error = MalformedArguments(message, tool=self._tool, position=position)
        self._events.append(CallBroken(self.id, error))

    def _no_value(self, char: str, at: int) -> _Unreadable:
        if char == "]" and isinstance(self._open[-1], list):
            return self._trailing_comma(at)
        return _Unreadable("a value is expected", at)

    def _trailing_comma(self, at: int) -> _Unreadable:
        return _Unreadable("a comma stands before the closing bracket", at, self._comma)

    def _no_escape(self, char: str, at: int) -> _Unreadable:
        problem = f"a backslash before {char!r} begins no escape of JSON"
        if char == "u":
            problem = "the escape \\u needs four hexadecimal digits"
        return _Unreadable(problem, at + 1, self._base + at)

    def _fault(self) -> int:
        """Where a text that ends too early is at fault: where its last token begins."""
        if self._step is ArgumentsReader._number:
            return self._start + good_figures("".join(self._parts))
        if self._step is ArgumentsReader._string:
            return self._start
        return self._base


_VALUES: dict[str, _Step] = {
    '"': ArgumentsReader._string_opens,
    "{": ArgumentsReader._object_opens,
    "[": ArgumentsReader._list_opens,
    **dict.fromkeys("tfn", ArgumentsReader._literal),
    **dict.fromkeys("-0123456789", ArgumentsReader._number_begins),
}
"""By the first character of a value: what reads it."""
