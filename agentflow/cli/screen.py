"""Standard error as a screen: lasting lines, and below them lines that are redrawn.

On anything but a terminal only the lasting lines are written. Text of others (plans, tool
results, errors) never moves the cursor: control characters are taken out.
"""

from __future__ import annotations

import os
import re
import shutil
import textwrap
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from agentflow.cli.output import is_terminal, stdout_is_terminal
from agentflow.redaction import redact

_CODES = {"dim": "2", "bold": "1", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SAMPLE = "━─✓✗…⠋"


class Screen:
    """Writes to a terminal or a file.

    Args:
        stream: Where to; usually standard error.
        quiet: Write nothing at all, except what `insist` is told.
    """

    def __init__(self, stream: Any, *, quiet: bool = False) -> None:
        self._stream = stream
        self._quiet = quiet
        self._drawn: list[int] = []  # columns of the lines that are redrawn
        self._pending: list[str] = []  # lines that stay, written with the next drawing
        self._held = False
        terminal = is_terminal(stream)
        self.live = terminal and not quiet and os.environ.get("TERM", "") not in ("", "dumb")
        self.coloured = terminal and not os.environ.get("NO_COLOR")
        self.unicode = _can_write(stream, _SAMPLE)

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines of the terminal, now."""
        with suppress(OSError, ValueError, AttributeError):
            size = os.get_terminal_size(self._stream.fileno())
            if size.columns:
                return size
        return shutil.get_terminal_size()  # of a terminal that does not say, the usual one

    def styled(self, text: str, style: str) -> str:
        """The text in a colour, if colours are wanted."""
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if self.coloured and style else text

    def line(self, text: str, style: str = "", mark: str = "", *, whole: bool = False) -> None:
        """Write a line that stays; a coloured `mark` comes first.

        On a terminal it is cut to fit, or, to be shown whole, goes on below.
        """
        if self._quiet:
            return
        text, *further = self._fitted(clean(text), columns(mark) + bool(mark), whole)
        text = f"{self.styled(mark, style)} {text}" if mark else self.styled(text, style)
        self._last("\n".join([text, *further]))

    def _fitted(self, text: str, indent: int, whole: bool) -> list[str]:
        if not self.live:
            return [text]
        width = self.size.columns - 1
        if not whole:
            return [fit(text, width - indent, self.unicode)]
        first, *further = textwrap.wrap(text, max(20, width - indent)) or [""]
        return [first, *(" " * indent + line for line in further)]

    def paragraph(self, text: str) -> None:
        """Write text that stays, as long as it is; on a terminal it is wrapped."""
        if not self._quiet:
            self.insist(text)

    def row(self, head: str, text: str) -> None:
        """Write text that stays, behind what stands in columns before it."""
        if self._quiet:
            return
        first, *further = [clean(text if self.unicode else text.replace("›", ">"))]
        if is_terminal(self._stream):
            width = max(20, self.size.columns - 1 - columns(head))
            first, *further = textwrap.wrap(first, width, break_long_words=False) or [""]
        below = "".join(f"\n{' ' * columns(head)}{line}" for line in further)
        self._last(f"{self.styled(head, 'bold')}{first}{below}".rstrip())
        self.clear()

    def insist(self, text: str) -> None:
        """Write a paragraph, also when quiet."""
        self._last(self.wrapped(clean(text)))
        self.clear()

    def wrapped(self, text: str) -> str:
        """Text in lines that fit on the terminal."""
        if not is_terminal(self._stream):
            return text
        width = max(20, self.size.columns - 1)
        lines = [textwrap.wrap(line, width, break_long_words=False) for line in text.split("\n")]
        return "\n".join("\n".join(line) for line in lines)

    def draw(self, lines: Sequence[str]) -> None:
        """Write the lines that stay since the last drawing, and replace those that are redrawn."""
        if not self.live or self._held:
            return
        width = self.size.columns
        fitted = [fit(clean(line), width - 1, self.unicode) for line in lines]
        self._write(self._settled() + "".join(f"{line}\n" for line in fitted))
        self._drawn = [columns(line) for line in fitted]

    def clear(self) -> None:
        """Write the lines that stay, and take those that are redrawn away."""
        if not self._held:
            self._write(self._settled())

    def hold(self) -> None:
        """Write nothing until `release`: standard output is in the middle of a line."""
        self.clear()
        self._held = True

    def release(self) -> None:
        """Write what was held."""
        self._held = False
        self.clear()

    def write(self, text: str) -> int:
        """As a file, for loggers: whole lines only, at once; the loop that draws may be blocked."""
        for line in text.splitlines():
            if line:
                self._last(_UNSAFE_BUT_COLOURS.sub("", line))
        self.clear()
        return len(text)

    def flush(self) -> None:
        """Nothing waits here."""

    def _last(self, text: str) -> None:
        self._pending.append(f"{text}\n")
        if not self.live:
            self.clear()

    def _settled(self) -> str:
        pending, self._pending = self._pending, []  # a thread may log meanwhile
        return self._erased() + "".join(pending)

    def _erased(self) -> str:
        """What takes the redrawn lines away; the terminal may have become narrower meanwhile."""
        if not self._drawn:
            return ""
        width = max(1, self.size.columns)
        rows = sum(max(1, -(-drawn // width)) for drawn in self._drawn)
        self._drawn = []
        return f"\x1b[{rows}A\r\x1b[J"

    def _write(self, text: str) -> None:
        if text:
            self._stream.write(text)
            self._stream.flush()


_UNSAFE_BUT_COLOURS = re.compile(r"\x1b(?!\[[\d;]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """Text without known secrets, nor characters that move the cursor or reorder their neighbours.

    A secret has to be found before a line is cut.
    """
    return _UNSAFE.sub("", redact(text))


def show(text: str) -> None:
    """Print text on standard output; what others wrote cannot move the cursor of a terminal."""
    print(clean(text) if stdout_is_terminal() else text)


def terminal_width() -> int:
    """Columns of the terminal that standard output is."""
    return shutil.get_terminal_size().columns


def columns(text: str) -> int:
    """How wide a text is on a terminal."""
    if text.isascii():
        return len(text)
    return sum(map(_width, text))


def fit(text: str, width: int, unicode: bool = True) -> str:
    """A text on one line, cut to a width."""
    text = " ".join(text.split("\n")).replace("\t", " ")
    if columns(text) <= width:
        return text
    dots = "…" if unicode else "..."
    room, kept = width - len(dots), []
    for char in text:
        room -= _width(char)
        if room < 0:
            break
        kept.append(char)
    return "".join(kept) + dots if width > len(dots) else dots[: max(0, width)]


def _width(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _can_write(stream: Any, text: str) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
