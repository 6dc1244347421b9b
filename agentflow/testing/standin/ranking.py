"""Which passages fit a question best: rare terms, close together, in telling places."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

from agentflow.testing.standin.evidence import Evidence
from agentflow.testing.standin.question import Question, Term
from agentflow.testing.standin.words import stem, stems

_REACH = 4  # lines around a match that may support it
_NEARBY = 0.5  # what a term is worth there
_PER_FILE = 2

_DEFINITION = re.compile(r"^\s*(?:async\s+)?(?:def|class|function|fn|func|struct|type)\s+(\w+)")
_HEADING = re.compile(r"^(?:#{1,6}\s|=+\s)")
_IMPORT = re.compile(r"^\s*(?:from\s+\S+\s+)?import\s|^\s*#include\b")
_LISTED = re.compile(r"^\s*[\"'][\w.-]+[\"'],?$")
_CODE = re.compile(
    r"^\s*(?:@\w|(?:async|await|return|raise|assert|yield|def)\s|from\s+\S+\s+import\b|import\s+\S+$)"
    r"|^\s*[\w.\[\], ]+\s[-+*/|]?=\s|[:={(\[]\s*$|^\s*[)\]}]+[,:]?\s*$|\w\([^)]*$|\w=[\w\"'(]"
)
_DATA = {".json", ".jsonl", ".csv", ".lock", ".svg", ".log", ".sse"}


@dataclass(frozen=True, slots=True)
class Passage:
    """A place in a file.

    Attributes:
        file: Path of the file.
        line: Number of the line that matches best.
        text: That line.
        score: Larger fits better; comparable within one ranking.
        matched: Texts of the terms found there.
    """

    file: str
    line: int
    text: str
    score: float
    matched: frozenset[str]


def rank(question: Question, evidence: Evidence, limit: int = 5) -> list[Passage]:
    """The passages that fit best, no two at one place and at most two of a file."""
    lines = evidence.lines
    hits = {key: found for key, text in lines.items() if (found := _matches(question, text))}
    rarity = _rarity(question.terms, hits)
    scored = [
        _passage(question, key, lines[key], _near(key, hits), hits[key], rarity) for key in hits
    ]
    scored.sort(key=lambda p: (-p.score, p.file, p.line))
    return _spread(scored, limit)


def is_code(text: str) -> bool:
    """Whether a line looks like program text."""
    return _CODE.search(text) is not None


def coverage(question: Question, passages: Sequence[Passage]) -> float:
    """The share of the question's terms, by weight, that the passages hold; 1.0 without terms."""
    total = sum(term.weight for term in question.terms)
    found = {text for passage in passages for text in passage.matched}
    return sum(t.weight for t in question.terms if t.text in found) / total if total else 1.0


def missing(question: Question, evidence: Evidence) -> list[Term]:
    """The terms that no known line holds."""
    found = {t for text in evidence.lines.values() for t in _matches(question, text)}
    return [term for term in question.terms if term.text not in found]


def _matches(question: Question, text: str) -> frozenset[str]:
    present = _stem_set(text)
    return frozenset(t.text for t in question.terms if _holds(t, text, present))


def _holds(term: Term, text: str, present: frozenset[str]) -> bool:
    if term.exact:
        return term.text.lower() in text.lower()
    return all(root in present for root in term.stems)


@lru_cache(maxsize=100_000)
def _stem_set(text: str) -> frozenset[str]:
    return frozenset(stems(text))


def _rarity(
    terms: Sequence[Term], hits: Mapping[tuple[str, int], frozenset[str]]
) -> dict[str, float]:
    """Inverse document frequency of each term among the lines that hold any, times its weight."""
    counts = {term.text: sum(term.text in found for found in hits.values()) for term in terms}
    return {
        term.text: term.weight * math.log(2 + len(hits) / max(1, counts[term.text]))
        for term in terms
    }


def _near(key: tuple[str, int], hits: Mapping[tuple[str, int], frozenset[str]]) -> frozenset[str]:
    """The terms in the lines around."""
    file, line = key
    around = range(line - _REACH, line + _REACH + 1)
    return frozenset().union(*(hits.get((file, n), frozenset()) for n in around if n != line))


def _passage(
    question: Question,
    key: tuple[str, int],
    text: str,
    near: frozenset[str],
    found: frozenset[str],
    rarity: Mapping[str, float],
) -> Passage:
    score = sum(rarity[term] for term in found)
    score += _NEARBY * sum(rarity[term] for term in near - found)
    score *= 0.5 + len(found | near) / len(question.terms)
    score *= _place(key[0]) * _form(question, text) * (1 + _phrases(question, text))
    score *= 1 + _defines(question, text) + 0.2 * _named_after(question, key[0])
    return Passage(*key, text, score, found | near)


def _place(path: str) -> float:
    """How telling a file is by what kind of file it is."""
    pure = PurePosixPath(path)
    if pure.suffix in _DATA:
        return 0.4
    if pure.name.startswith("test_") or "tests" in pure.parts:
        return 0.6
    return 0.8 if pure.stem.upper() in ("CHANGELOG", "LICENSE") else 1.0


def _form(question: Question, text: str) -> float:
    """How telling a line is by its form; code tells most to those who ask for a name."""
    if _IMPORT.match(text) or _LISTED.match(text):
        return 0.4
    if _HEADING.match(text):
        return 1.2
    if is_code(text) and not any(term.exact for term in question.terms):
        return 0.6
    return 0.7 if len(text) > 250 else 1.0


def _phrases(question: Question, text: str) -> float:
    """Bonus for words that stand together as they do in the question."""
    joined = " ".join(stems(text))
    return 0.5 * sum(" ".join(stems(phrase)) in joined for phrase in question.phrases)


def _defines(question: Question, text: str) -> float:
    """Bonus for the definition of a name in the question, or of a word in it."""
    if (match := _DEFINITION.match(text)) is None:
        return 0.0
    name = match[1].lower()
    exact = {term.text.lower().split(".")[-1] for term in question.terms if term.exact}
    if name in exact:
        return 1.0
    return 0.5 if stem(name) in {s for term in question.terms for s in term.stems} else 0.0


def _named_after(question: Question, path: str) -> int:
    """How many terms are in the file's name."""
    name = _stem_set(PurePosixPath(path).stem)
    return sum(all(root in name for root in term.stems) for term in question.terms)


def _spread(passages: Sequence[Passage], limit: int) -> list[Passage]:
    chosen: list[Passage] = []
    for passage in passages:
        same = [p for p in chosen if p.file == passage.file]
        if len(same) < _PER_FILE and all(abs(p.line - passage.line) > _REACH for p in same):
            chosen.append(passage)
        if len(chosen) == limit:
            break
    return chosen
