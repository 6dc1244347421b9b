"""What to look at next: searches, listings and readings, first for a question, then for its gaps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from agentflow.testing.standin.evidence import Evidence
from agentflow.testing.standin.question import Question, Term
from agentflow.testing.standin.ranking import coverage, missing, rank
from agentflow.testing.standin.toolbox import Role
from agentflow.testing.standin.words import stem, variants

ENOUGH = 0.6
"""The share of a question's terms that an answer should cover before no more is looked for."""

_AT_LEAST = 12  # moves of an opening, if there is anything to look for
_NARROW = 6  # matches of a search whose every hit is worth reading
_PER_ROUND = 8  # searches of a later round
_LETTERS = ("[a-b]", "[c-d]", "[e-h]", "[i-l]", "[m-o]", "[p-q]", "[r-s]", "[t-z]", "[!a-z]")
_FILE = re.compile(r"\.\w{1,5}$")


@dataclass(frozen=True, slots=True)
class Move:
    """One call to make.

    Attributes:
        role: What kind of tool.
        arguments: By our names for them.
        of: The move whose result says what to read, by identity, or None.
        every: Read at every hit of that move instead of at its first.
    """

    role: Role
    arguments: Mapping[str, Any]
    of: Move | None = None
    every: bool = False


def opening(question: Question) -> list[Move]:
    """The first round for a question, in the order to ask."""
    if question.expression:
        return [Move(Role.CALCULATE, {"expression": question.expression})]
    if question.counted:
        return [Move(Role.LIST, {"pattern": question.counted})]
    searches = list(_searches(question))
    listings = [_listing(term) for term in question.terms[:4]]
    narrow = [move for move in searches if move.arguments["max_matches"] == _NARROW]
    broad = [move for move in searches if move not in narrow]
    reads = [_reading(move) for move in [*listings, *broad[:2], *narrow[:3]]]
    moves = [*listings, *searches, *reads]
    if len(moves) < _AT_LEAST:
        asked = [move.arguments.get("pattern") for move in moves]
        moves += _variants(question.terms, asked)
    return moves if len(moves) >= _AT_LEAST else [*moves, *_overview()]


def readings(question: Question, evidence: Evidence) -> list[Move]:
    """What to read of the places that fit best so far."""
    return [
        Move(Role.READ, {"path": p.file, "start": max(1, p.line - 4), "lines": 24})
        for p in rank(question, evidence, limit=4)
    ]


def further(question: Question, evidence: Evidence) -> list[Move]:
    """What is left to try: a cut listing in parts, other spellings of what was not found."""
    if evidence.listings.get(question.counted, (0, False))[1]:
        parts = parts_of(question.counted)
        return [Move(Role.LIST, {"pattern": part}) for part in parts if part not in evidence.tried]
    lost = missing(question, evidence)
    if not lost or coverage(question, rank(question, evidence)) >= ENOUGH:
        return []
    return list(islice(_variants(lost, evidence.tried), _PER_ROUND))


def parts_of(pattern: str) -> list[str]:
    """Patterns that split the files of ``**/*...`` by the first letter of their names."""
    rest = pattern.removeprefix("**/*")
    return [] if rest == pattern else [f"**/{letters}*{rest}" for letters in _LETTERS]


def _searches(question: Question) -> Iterator[Move]:
    """Terms, then phrases, then the definitions of what may be a name."""
    for term in question.terms[:5]:
        yield _search(term.text, 20)
    for phrase in question.phrases[:2]:
        yield _search(phrase, _NARROW)
    for term in question.terms[:2]:
        name = term.text.split(".")[-1] if term.exact else term.text
        yield _search(f"def {name}", _NARROW)
        yield _search(f"class {name}", _NARROW)


def _overview() -> list[Move]:
    """What a folder says of itself."""
    readme = Move(Role.LIST, {"pattern": "README*"})
    return [readme, _reading(readme), Move(Role.LIST, {"pattern": "**/*.md"})]


def _search(pattern: str, most: int) -> Move:
    return Move(Role.SEARCH, {"pattern": pattern, "max_matches": most})


def _listing(term: Term) -> Move:
    """Files that have the term in their name."""
    if term.exact and _FILE.search(term.text):
        return Move(Role.LIST, {"pattern": f"**/{PurePosixPath(term.text).name}"})
    word = re.sub(r"\W", "*", term.text if term.exact else stem(term.text))
    return Move(Role.LIST, {"pattern": f"**/*{word.lower()}*"})


def _reading(move: Move) -> Move:
    """Read where that move hits: around every hit of a narrow search, else from the first."""
    narrow = move.role is Role.SEARCH and move.arguments["max_matches"] == _NARROW
    return Move(Role.READ, {"lines": 8 if narrow else 24}, of=move, every=narrow)


def _variants(terms: Iterable[Term], tried: Iterable[str | None]) -> Iterator[Move]:
    """Searches for other spellings that were not tried."""
    seen = {text.lower() for text in tried if text}
    for term in terms:
        for variant in variants(term.text):
            if variant.lower() not in seen:
                seen.add(variant.lower())
                yield _search(variant, 20)
