"""Reads what stands around the calls: heads, prose, comments, guards, join policies."""

from __future__ import annotations

import re

from agentflow.planner.plan import JOIN_ALL, UNCOUNTED, Join, Ref
from agentflow.planner.read_atoms import read_reference
from agentflow.planner.read_heads import (
    HEAD_LIMIT,
    STOPS,
    Head,
    Names,
    only_decoration,
    recognise,
    recognise_inline,
    spaced,
)
from agentflow.planner.references import MAX_DIGITS, leading
from agentflow.planner.scanner import BLANKS, DIGITS, TO_NEWLINE, Reading, Scanner

_HEAD = re.compile(rf"[^{STOPS}]*")
_REST = re.compile(r"[^\n(<#]*")
_MARKER = re.compile(r"[<A-Z_ >]*")
_MARKER_LIMIT = 24
_END_MARKER = re.compile(r"<END[ _>O]")
_EXCERPT = 40  # characters of what is no guard that a message quotes
_NAME = re.compile(r"\w*")
_GAP = re.compile(r"[ \t\r*`;]*")
_AFTER_GUARD = re.compile(r"[ \t\r*`;,.)]*")
_LETTERS = re.compile(r"[a-z]*")
_ARGUMENT_STARTS = frozenset("\"'“‘$[{0123456789)")
_OPERATORS = frozenset("=>!+/%&?[{'\"")


def read_head(scanner: Scanner, tools: Names) -> Reading[Head | None]:
    """Reads the head that the text continues with.

    The scanner is then at the bracket of a call, or after the word of anything else; if
    there is no head it is where it was.
    """
    scanner.hold()
    text = yield from scanner.run(_HEAD, HEAD_LIMIT)
    stop = yield from scanner.peek()
    if stop == "(" and only_decoration(text):  # "(1) search(...)"
        scanner.pos += 1
        text += "(" + (yield from scanner.run(_HEAD, HEAD_LIMIT))
        stop = yield from scanner.peek()
    if stop == "<" and only_decoration(text) and (yield from _end_marker(scanner)):
        head: Head | None = Head("end", 0)
    else:
        head = recognise(text, stop, tools)
    if head and head.kind == "call" and spaced(text) and tools is not None:
        head = head if head.tool in tools or (yield from _has_arguments(scanner)) else None
    scanner.rewind(head.end if head else 0)
    return head


def read_rest(scanner: Scanner, tools: Names, after_call: bool) -> Reading[Head | None]:
    """Reads to the end of the line, newline included, or to the next head in it."""
    seen = ""  # the last of what was read: a head must lie in it
    while True:
        seen = (seen + (yield from scanner.run(_REST)))[-HEAD_LIMIT:]
        stop = yield from scanner.peek()
        if stop in "\n(":  # or the end of the text
            if seen and (head := recognise_inline(seen, stop, tools, after_call)):
                return head
            scanner.pos += len(stop)
            if stop != "(":
                return None
        elif stop == "<":
            if (yield from _ends(scanner)):
                return Head("end", 0)
            scanner.pos += 1
        elif not seen or seen[-1].isspace():
            yield from skip_line(scanner)
            return None
        else:
            scanner.pos += 1
        seen += stop


def skip_line(scanner: Scanner) -> Reading[None]:
    """Reads to the end of the line, newline included."""
    yield from scanner.run(TO_NEWLINE)
    if (yield from scanner.peek()):
        scanner.pos += 1


def read_thought(scanner: Scanner) -> Reading[str]:
    """Reads the rest of a thought's line."""
    text = yield from scanner.run(TO_NEWLINE)
    if (yield from scanner.peek()):
        scanner.pos += 1
    return text.strip(" \t\r*`")


def read_policy(scanner: Scanner) -> Reading[Join]:
    """Reads ``join settled``, ``join first`` or ``join quorum(2)``, if it comes next."""
    scanner.hold()
    yield from scanner.run(_GAP, HEAD_LIMIT)
    if (yield from scanner.run(_LETTERS, HEAD_LIMIT)) == "join":
        yield from scanner.run(BLANKS, HEAD_LIMIT)
        kind = yield from scanner.run(_LETTERS, HEAD_LIMIT)
        if kind in UNCOUNTED:
            scanner.release()
            return Join(kind)
        if kind == "quorum" and (count := (yield from _count(scanner))):
            scanner.release()
            return Join(kind, count)
    scanner.rewind()
    return JOIN_ALL


def read_guard(scanner: Scanner) -> Reading[Ref | str | None]:
    """Reads ``if $2.found``, if it comes next; what cannot be one comes back as text."""
    scanner.hold()
    yield from scanner.run(_GAP, HEAD_LIMIT)
    word = yield from scanner.run(_LETTERS, HEAD_LIMIT)
    blanks = yield from scanner.run(BLANKS, HEAD_LIMIT)
    if word != "if" or not blanks or (yield from scanner.peek()) != "$":
        scanner.rewind()
        return None
    scanner.release()
    text = yield from read_reference(scanner)
    found = leading(text)
    if found is None or found[1].strip("."):
        return text
    yield from scanner.run(_AFTER_GUARD)
    stop = yield from scanner.peek()
    if stop.isalpha() or stop in _OPERATORS or (stop == "<" and not (yield from _ends(scanner))):
        return f"{text} {(yield from scanner.run(TO_NEWLINE, _EXCERPT))}"
    return found[0]


def _ends(scanner: Scanner) -> Reading[bool]:
    """Whether an end marker comes next; it stays unread."""
    scanner.hold()
    found = yield from _end_marker(scanner)
    scanner.rewind()
    return found


def _end_marker(scanner: Scanner) -> Reading[bool]:
    """Whether what comes next is ``<END_OF_PLAN>``, which models also misspell."""
    text = yield from scanner.run(_MARKER, _MARKER_LIMIT)
    return bool(_END_MARKER.match(text))


def _has_arguments(scanner: Scanner) -> Reading[bool]:
    """Whether what stands in the bracket is an argument rather than prose."""
    scanner.pos += 1
    yield from scanner.run(BLANKS, HEAD_LIMIT)
    if (yield from scanner.peek()) in _ARGUMENT_STARTS:
        return True
    yield from scanner.run(_NAME, HEAD_LIMIT)
    yield from scanner.run(BLANKS, HEAD_LIMIT)
    return (yield from scanner.peek()) == "="


def _count(scanner: Scanner) -> Reading[int]:
    """The number in brackets; 0 if there is none."""
    if (yield from scanner.peek()) != "(":
        return 0
    scanner.pos += 1
    digits = yield from scanner.run(DIGITS, MAX_DIGITS)
    if (yield from scanner.peek()) != ")":
        return 0
    scanner.pos += 1
    return int(digits or 0)
