"""Recognises how a line of a plan begins: a call, ``join``, ``return``, a thought.

Heads are short, so they are looked at whole: the reader collects the text up to a character
that decides, `STOPS`, and asks here what it is.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Literal, NamedTuple, TypeAlias

from agentflow.planner.references import MAX_DIGITS

HEAD_LIMIT = 200
"""Characters of a line that are looked at; if a head is longer it is prose."""

STOPS = "\n(<\"'“”‘"
"""The characters that decide what a head is."""

Names: TypeAlias = "Container[str] | None"
"""The names of the tools, if they are known."""


class Head(NamedTuple):
    """The beginning of something that belongs to the plan.

    Attributes:
        kind: What begins.
        end: How many of the characters looked at belong to it.
        id: The id written before it, if any.
        tool: Name of the tool, for a call.
    """

    kind: Literal["call", "join", "return", "thought", "end"]
    end: int
    id: int | None = None
    tool: str = ""


_DIGITS = rf"([0-9]{{1,{MAX_DIGITS}}})(?![0-9])"
_SPACE = r"[*`\s]*+"
_DECORATION = r"[^\w$(\[]*+"  # bullets, quotes, bold, arrows, emoji
_LABEL = r"(?i:(?:step|task|action|call|plan)\b[\s:#]*+)?"
_AFTER_NUMBER = r"(?:[\].):、．：）]{1,3}|:?=|[-–—](?=\s))"
_NUMBER = rf"(?:[(\[]?{_DIGITS}{_SPACE}{_AFTER_NUMBER}|\$\{{?{_DIGITS}\}}?{_SPACE}:?[:=])"
_ASSIGNED = rf"(?:\$\{{?{_DIGITS}\}}?\s*+=)?"
_ID = rf"{_NUMBER}{_SPACE}{_ASSIGNED}{_SPACE}"
_NAME = r"([A-Za-z_][\w.-]*+)"

_COMMENT = re.compile(r"\s*#(?![#0-9])")
_CALL = re.compile(rf"{_DECORATION}{_LABEL}{_SPACE}{_ID}{_NAME}{_SPACE}")
_JOIN = re.compile(rf"{_DECORATION}{_LABEL}(?:{_SPACE}{_ID})?(?i:join)[*`\s;.]*+(#.*)?")
_THOUGHT = re.compile(rf"{_DECORATION}(?i:thoughts?)\b{_SPACE}[0-9]*{_SPACE}:{_SPACE}")
_RETURN = re.compile(rf"{_DECORATION}(?:{_ID})?return[ \t]++")
_VALUE = re.compile(
    r"[$\[{]|(?:[+-]?\.?[0-9][\w.+-]*+|True|False|None|true|false|null)[*`\s;]*+(?:#.*)?$"
)
_INLINE = re.compile(rf"(?<![\w$.])(?:{_ID})?{_NAME}[*`]*+\Z")
_ALONE = re.compile(rf"{_DECORATION}[\w.-]++")
_INLINE_JOIN = re.compile(rf"(?<![\w$.]){_ID}join[*`\s;.]*+\Z")


def recognise(head: str, stop: str, tools: Names) -> Head | None:
    """What a line begins with, or None if it is prose.

    Args:
        head: The line up to `stop`, or its first `HEAD_LIMIT` characters.
        stop: The character after `head`; empty at the end of the text.
        tools: Names of the tools, if known.
    """
    if _COMMENT.match(head):
        return None
    if stop == "(" and (match := _CALL.fullmatch(head)):
        return _named(match, match.end(), tools)
    if match := _THOUGHT.match(head):
        return Head("thought", match.end())
    if (match := _RETURN.match(head)) and _is_value(head[match.end() :], stop):
        return Head("return", match.end(), _id(match))
    if (match := _JOIN.fullmatch(head)) and (match[4] or stop not in "\"'“”‘" or not stop):
        return Head("join", match.end(), _id(match))
    return None


def recognise_inline(text: str, stop: str, tools: Names, after_call: bool) -> Head | None:
    """A call or join that begins in the middle of a line and ends with `text`.

    After a call anything of the form ``2. name(`` begins the next one; in prose only a
    known tool does. A call of a known tool that stands alone is found even without an id.
    """
    if stop != "(":
        match = _INLINE_JOIN.search(text) if after_call else None
        return Head("join", 0, _id(match)) if match else None
    if not (match := _INLINE.search(text)):
        return None
    found = _named(match, 0, tools)
    if found.kind == "join":
        return found if after_call else None
    if tools is not None and found.tool in tools:
        return found if found.id is not None or _ALONE.fullmatch(text) else None
    return found if found.id is not None and after_call else None


def spaced(head: str) -> bool:
    """Whether there is a space before the bracket, as in prose."""
    return head[-1:].isspace()


def only_decoration(head: str) -> bool:
    """Whether nothing has been said yet."""
    return not head.strip(" \t\r>*`-")


def _named(match: re.Match[str], end: int, tools: Names) -> Head:
    name = match[4]
    if name == "join" or (name.lower() == "join" and (tools is None or name not in tools)):
        return Head("join", end, _id(match))
    return Head("call", end, _id(match), name)


def _is_value(rest: str, stop: str) -> bool:
    return bool(_VALUE.match(rest)) if rest else stop != "" and stop in "(\"'“‘"


def _id(match: re.Match[str]) -> int | None:
    """The id: the one assigned to, if there is another number before it."""
    number, dollar, assigned = match.group(1, 2, 3)
    found = assigned or dollar or number
    return int(found) if found else None
