"""Words of questions and files: splitting, stems, and other spellings to try."""

from __future__ import annotations

import re
from functools import lru_cache

_FUNCTION_WORDS = """a about above after again against all also am an and any anything are as at be because been
    before being below between both but by called can could declared define defined defines
    definition did do does doing done down each explain few find for from further get give
    gives given go had happen happens has have having he her here hers him his how i if in
    into is it its itself just know let like list located look made make makes many may me
    mean means might more most much must my need no nor not of off on once only or other our
    out over own please say says see shall she should show so some something such summarise
    summarize sure take takes tell than that the their them then there these they thing
    things this those through to too under until up us use used uses using very want was way
    we were what when where whether which while who whom whose why will with within without
    work works would yes you your"""
STOPWORDS = frozenset(_FUNCTION_WORDS.split())
"""Words that say nothing of what a question is about."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_HUMP = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_SUFFIXES = (
    *("ations", "ation", "atives", "ative", "ators", "ator", "ating", "ated", "ates", "ate"),
    *("ingly", "ings", "ing", "edly", "ed", "ers", "er", "ors", "or", "ions", "ion", "ives"),
    *("ive", "ments", "ment", "ies", "es", "s", "ly", "e", "y"),
)
_SHORTEST = 4  # letters of a stem
_LONG = 6  # letters of a stem that may be cut further


def words(text: str) -> list[str]:
    """The lower-case words of a text; identifiers are split (``readFile``, ``read_file``)."""
    return [part.lower() for word in _WORD.findall(text) for part in parts(word)]


def parts(identifier: str) -> list[str]:
    """The words inside an identifier: ``VirtualLoop`` is ``Virtual`` and ``Loop``."""
    return _HUMP.findall(identifier) or [identifier]


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """The word without its endings: ``plans``, ``planned`` and ``planning`` are ``plan``."""
    word = word.lower()
    while (shorter := _without_suffix(word)) != word:
        word = shorter
    return word


def stems(text: str) -> list[str]:
    """The stem of every word of a text, in order."""
    return [stem(word) for word in words(text)]


def variants(term: str) -> list[str]:
    """Other spellings under which a term may be found, the likeliest first."""
    split = parts(term) if " " not in term else term.split()
    found = [part for part in split if len(part) > 2 and part.lower() not in STOPWORDS]
    found.append("_".join(split).lower())
    found.append("".join(split))
    found.append("-".join(split).lower())
    found.extend(stem(part) for part in split)
    found.extend(stem(part)[:-2] for part in split if len(stem(part)) > _LONG)
    unique: dict[str, str] = {}
    for variant in found:
        if len(variant) > 2:
            unique.setdefault(variant.lower(), variant)
    unique.pop(term.lower(), None)
    return list(unique.values())


def _without_suffix(word: str) -> str:
    for suffix in _SUFFIXES:
        rest = word.removesuffix(suffix)
        shortest = _SHORTEST - 1 if suffix == "s" else _SHORTEST
        if rest != word and len(rest) >= shortest and not (suffix == "s" and rest[-1] in "su"):
            return _undoubled(rest)
    return word


def _undoubled(word: str) -> str:
    """``plann`` is ``plan``."""
    if len(word) > _SHORTEST and word[-1] == word[-2] and word[-1] in "bdgmnprt":
        return word[:-1]
    return word
