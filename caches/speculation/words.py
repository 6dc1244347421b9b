"""Text cut into tokens, each with the shape of its characters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

TEXT_LIMIT = 8_000
"""Characters of one text that are looked at: the last ones, which say what is asked."""

DAY = "day"
"""The shape of a day that was said in words: ``May 20th`` is ``05-20``."""

_TOKEN = re.compile(r"[#@$]?\w[\w@+#/:'’.-]*")
_TRAILING = ".:'’-/"
_RUN = re.compile(r"[^\W_]+|[\W_]+")
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_ORDINAL = {name: n for n, month in enumerate(_MONTHS, 1) for name in (month, month[:3])}
_NUMBER = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?", re.IGNORECASE)


class Token(NamedTuple):
    """A word, number or name as it stands in a text.

    Attributes:
        text: The token without closing punctuation.
        shape: What its characters are like, such as ``#X{8}``.
        place: Its position among the tokens of the text.
    """

    text: str
    shape: str
    place: int


def tokens(text: str) -> tuple[Token, ...]:
    """The tokens of a text, in order."""
    found = [match[0].rstrip(_TRAILING) for match in _TOKEN.finditer(text[-TEXT_LIMIT:])]
    return tuple(Token(token, shape(token), index) for index, token in enumerate(found))


def words(said: tuple[Token, ...]) -> frozenset[str]:
    """The words among some tokens, in lower case; ids, numbers and short words are left out."""
    plain = (token.text for token in said if "9" not in token.shape and "X" not in token.shape)
    return frozenset(text.lower() for text in plain if len(text) > 2)


def days(said: tuple[Token, ...]) -> Iterator[Token]:
    """The days named by a month and a number, in either order, as tokens of their own."""
    for one, other in pairwise(said):
        for month, number in ((one.text, other.text), (other.text, one.text)):
            ordinal, day = _ORDINAL.get(month.lower()), _NUMBER.fullmatch(number)
            if ordinal and day and 1 <= int(day[1]) <= 31:
                yield Token(f"{ordinal:02}-{int(day[1]):02}", DAY, one.place)
                break


@lru_cache(maxsize=4_096)
def shape(token: str) -> str:
    """The form of a token: runs of letters and digits, separators kept.

    >>> shape("mia_li_3668"), shape("#W6390527"), shape("UM3OG5"), shape("Noah")
    ('a_a_9{4}', '#X{8}', 'X{6}', 'Aa')
    """
    return "".join(_run_shape(run) for run in _RUN.findall(token[:80]))


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
