"""A window on a text that arrives in pieces.

The reader is written as plain sequential code. Each of its functions that may need a
character that has not arrived is a generator: it yields until there is more text. So a
text is read the same way however it is cut, and no character is looked at again when the
next piece comes.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import TypeAlias, TypeVar

BLANKS = re.compile(r"[^\S\n]*")
DIGITS = re.compile(r"[0-9]*")
TO_NEWLINE = re.compile(r"[^\n]*")

T = TypeVar("T")
Reading: TypeAlias = "Generator[None, None, T]"
"""Reads a T; yields whenever it needs more text."""


class TextEnded(Exception):
    """The text ended where it must not."""


class Scanner:
    """The part of the text that is still to be read.

    Attributes:
        text: The window; everything before `pos` has been read.
        pos: Position of the next character in the window.
        over: Whether the text has ended.
    """

    __slots__ = ("_counted", "_held", "_mark", "_room", "_row", "_saved", "over", "pos", "text")

    def __init__(self) -> None:
        self.text = ""
        self.pos = 0
        self.over = False
        self._held: int | None = None  # start of what may be read again
        self._mark: int | None = None  # start of what `marked` gives
        self._saved: list[str] = []  # marked text that has left the window
        self._room = 0  # how much more of it may be saved
        self._row = 1  # number of the line at `_counted`
        self._counted = 0

    def feed(self, text: str) -> None:
        """Moves the window on; what was read and is not held leaves it."""
        start = len(self.text) if self._held is None else self._held
        if self._mark is not None:
            self._save(self.text[self._mark : start])
            self._mark = max(self._mark - start, 0)
        if self._counted < start:
            self._row += self.text.count("\n", self._counted, start)
        self._counted = max(self._counted - start, 0)
        self.text = text if self._held is None else self.text[start:] + text
        self.pos -= start
        if self._held is not None:
            self._held = 0

    def peek(self) -> Reading[str]:
        """The next character, which stays unread; empty at the end of the text."""
        while self.pos >= len(self.text):
            if self.over:
                return ""
            yield
        return self.text[self.pos]

    def run(self, pattern: re.Pattern[str], limit: int | None = None) -> Reading[str]:
        """Reads the longest run of characters of a class (`pattern` is ``[class]*``)."""
        found = ""
        pieces: list[str] = []
        left = limit
        while True:
            stop = len(self.text) if left is None else self.pos + left
            if match := pattern.match(self.text, self.pos, stop):
                found = match[0]
                self.pos += len(found)
            if left is not None:
                left -= len(found)
            if self.pos < len(self.text) or self.over or left == 0:
                break
            pieces.append(found)
            found = ""
            yield
        return "".join(pieces) + found if pieces else found

    def hold(self) -> None:
        """Keeps what is read from here on, so that `rewind` can go back.

        Only for bounded looks ahead: what is held is copied whenever text arrives.
        """
        self._held = self.pos

    def rewind(self, skip: int = 0) -> None:
        """Goes back to `skip` characters after where `hold` was called, and lets go."""
        assert self._held is not None
        self.pos = self._held + skip
        self._held = None

    def release(self) -> None:
        """Ends a `hold` without going back."""
        self._held = None

    def mark(self, start: int = 0) -> None:
        """Begins to keep the text for `marked`, from `start` characters back."""
        self._mark = self.pos - start
        self._saved = []
        self._room = -1

    def trim(self, room: int) -> None:
        """From now on keeps only the first `room` characters of the marked text."""
        self._room = max(room - sum(map(len, self._saved)), 0)

    def marked(self) -> str:
        """The text from `mark` to here (from its beginning only, after `trim`)."""
        assert self._mark is not None
        return "".join(self._saved) + self.text[self._mark : self.pos]

    def unmark(self) -> None:
        """Stops keeping the text."""
        self._mark = None
        self._saved = []

    def row(self) -> int:
        """Number of the text's line at the next character, from 1."""
        self._row += self.text.count("\n", self._counted, self.pos)
        self._counted = self.pos
        return self._row

    def _save(self, text: str) -> None:
        if self._room < 0:
            self._saved.append(text)
        elif self._room > 0:
            self._saved.append(text[: self._room])
            self._room -= len(self._saved[-1])
