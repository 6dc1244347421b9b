"""Text cut into tokens, each with the shape of its characters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

TEXT_LIMIT = 8_000
"""Characters of one text that are looked at: the last ones, which answer what was asked."""

_TOKEN = re.compile(r"[#@$]?\w[\w@+#/:'’.-]*")
_TRAILING = ".:'’-/"
_RUN = re.compile(r"[^\W_]+|[\W_]+")


@dataclass(frozen=True, slots=True)
class Token:
    """A word, number or name as it stands in a text.

    Attributes:
        text: The token without closing punctuation.
        shape: What its characters are like, such as ``#A9{7}``.
        index: Its place among the tokens of the text.
        before: The word before it in lower case, empty at the start.
    """

    text: str
    shape: str
    index: int
    before: str


def tokens(text: str) -> tuple[Token, ...]:
    """The tokens of a text, in order."""
    return tuple(_tokens(text[-TEXT_LIMIT:]))


@lru_cache(maxsize=4_096)
def shape(token: str) -> str:
    """The form of a token: runs of letters and digits, separators kept.

    >>> shape("mia_li_3668"), shape("#W6390527"), shape("UM3OG5"), shape("Noah")
    ('a_a_9{4}', '#X{8}', 'X{6}', 'Aa')
    """
    return "".join(_run_shape(run) for run in _RUN.findall(token[:80]))


def _tokens(text: str) -> Iterator[Token]:
    before = ""
    for index, match in enumerate(_TOKEN.finditer(text)):
        token = match[0].rstrip(_TRAILING)
        yield Token(token, shape(token), index, before)
        before = token.lower()


def _run_shape(run: str) -> str:
    if not run[0].isalnum():
        return run
    if run.isdigit():
        return f"9{{{len(run)}}}"
    if run.isalpha():
        if run.islower():
            return "a"
        return f"A{{{len(run)}}}" if run.isupper() and len(run) > 1 else "Aa"
    return f"X{{{len(run)}}}" if run.upper() == run else "x"
