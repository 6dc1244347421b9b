"""The statements of a Python program while it is being written.

A scanner that knows strings, comments, brackets and continued lines proposes where a statement
at top level ends, and Python's parser confirms it. Both look at every character once.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import Literal

_SPECIAL = re.compile(r"'''|\"\"\"|['\"#()\[\]{}]|\\\r?\n")
_INSIDE = {
    "'": re.compile(r"[^'\\\n]*+(?:\\(?:\r\n|.)[^'\\\n]*+)*", re.DOTALL),
    '"': re.compile(r'[^"\\\n]*+(?:\\(?:\r\n|.)[^"\\\n]*+)*', re.DOTALL),
    "'''": re.compile(r"[^'\\]*+(?:(?:\\.|'(?!''))[^'\\]*+)*", re.DOTALL),
    '"""': re.compile(r'[^"\\]*+(?:(?:\\.|"(?!""))[^"\\]*+)*', re.DOTALL),
}
"""The rest of a string on one line, by its quotes."""

_ESCAPE = re.compile(r"\\(?:['\"\\]|N\{[^}'\"\n]*\}|(?!\r?\n))")
_NEWLINE = re.compile(r"\r\n?|\n")
_BLANK = " \t\f\r\n#\\"
_CONTINUES = frozenset(("else", "elif", "except", "finally"))
_COMPOUND = frozenset(
    ("async", "class", "def", "for", "if", "match", "try", "while", "with")  # match: it may be one
)
_LONGEST = max(map(len, _CONTINUES | _COMPOUND))

_Kind = Literal["", "simple", "compound", "decorator"]


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement at top level, with the comments and blank lines around it.

    Attributes:
        text: As it was written, to the end of its last line.
        line: Number of its first line in the program; the first is 1.
        body: What it parses to, escapes in strings aside; several statements if there are
            semicolons, none if it does not parse.
    """

    text: str
    line: int
    body: list[ast.stmt] = field(compare=False)


class Statements:
    """Splits a program into its statements as it comes.

    The texts of all statements joined are the program; how it is cut on its way makes no
    difference. What follows a place where Python's parser refuses stays in one piece.
    """

    def __init__(self) -> None:
        self._found: list[Statement] = []
        self._piece: list[str] = []  # lines of the statement that is not complete
        self._line: list[str] = []  # parts of the line that is not complete
        self._head = ""  # its beginning, as long as it has not been looked at
        self._looked = False
        self._number = 1
        self._kind: _Kind = ""
        self._quotes = ""  # those of the string that is open
        self._depth = 0  # of brackets
        self._continued = False
        self._broken = False

    def feed(self, text: str) -> list[Statement]:
        """More of the program; the statements that are complete with it."""
        *lines, rest = text.split("\n")
        for line in lines:
            self._add(line + "\n")
        self._add(rest)
        return self._taken()

    def finish(self) -> list[Statement]:
        """The program has ended; the statements that are left."""
        self._end_line()
        if self._piece:
            text = "".join(self._piece)
            body = None if self._broken else _parse(text)
            self._found.append(Statement(text, self._number, body or []))
            self._piece = []
        return self._taken()

    def _taken(self) -> list[Statement]:
        found, self._found = self._found, []
        return found

    def _add(self, text: str) -> None:
        """A line, or a part of one."""
        if self._broken:
            self._piece.append(text)
            return
        self._line.append(text)
        if not self._looked:
            self._head += text[: _LONGEST + 1]
            if self._head and not (self._head.isidentifier() and len(self._head) <= _LONGEST):
                self._look()
        if text.endswith("\n"):
            self._end_line()

    def _end_line(self) -> None:
        line = "".join(self._line)
        self._line = []
        if not self._looked:
            self._look()
        self._looked, self._head = False, ""
        if line:
            self._piece.append(line)
            self._scan(line)
        if self._kind == "simple" and not (self._broken or self._is_inside()):
            self._cut()

    def _is_inside(self) -> bool:
        return bool(self._quotes or self._depth or self._continued)

    def _look(self) -> None:
        """At how a line begins: what is not indented ends a compound statement."""
        self._looked = True
        if not self._head or self._head[0] in _BLANK or self._is_inside():
            return
        word = re.split(r"\W", self._head, maxsplit=1)[0] or self._head[0]
        if word in _CONTINUES:
            return
        if self._kind == "compound":
            self._cut()
        if word == "@":
            self._kind = "decorator"
        else:
            self._kind = "compound" if word in _COMPOUND else "simple"

    def _cut(self) -> None:
        """End a statement, if Python's parser agrees; if not, nothing ends any more."""
        text = "".join(self._piece)
        body = _parse(text)
        if body is None:
            self._broken = True
            self._piece += self._line
            self._line = []
            return
        self._found.append(Statement(text, self._number, body))
        self._number += len(_NEWLINE.findall(text))
        self._piece, self._kind = [], ""

    def _scan(self, line: str) -> None:
        """Follow strings, brackets and continuations through a complete line."""
        self._continued = False
        place = self._string_end(line, 0) if self._quotes else 0
        while (special := _SPECIAL.search(line, place)) is not None:
            place = special.end()
            match special[0]:
                case "#":
                    return
                case "(" | "[" | "{":
                    self._depth += 1
                case ")" | "]" | "}":
                    self._depth -= 1
                case "'" | '"' | "'''" | '"""' as quotes:
                    self._quotes = quotes
                    place = self._string_end(line, place)
                case _:
                    self._continued = True

    def _string_end(self, line: str, place: int) -> int:
        """Where the open string ends on a line; the end of the line if it goes on."""
        inside = _INSIDE[self._quotes].match(line, place)
        end = place if inside is None else inside.end()
        if line.startswith(self._quotes, end):
            end += len(self._quotes)
            self._quotes = ""
        elif len(self._quotes) == 1 and end < len(line):
            self._quotes = ""  # it should have ended; the parser says whether that is wrong
        return end


def _parse(text: str) -> list[ast.stmt] | None:
    """The statements of a program, escapes in strings aside; None if it is no program.

    The parser would warn of unknown escapes, through the state of this process.
    """
    try:
        return ast.parse(_ESCAPE.sub("xx", text)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
