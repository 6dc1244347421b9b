"""Answers made of what was found: values, counts and quoted passages with their places."""

from __future__ import annotations

import re

from agentflow.testing.standin.evidence import Evidence
from agentflow.testing.standin.moves import parts_of
from agentflow.testing.standin.question import Question
from agentflow.testing.standin.ranking import Passage, is_code, missing, rank
from agentflow.testing.standin.words import stems

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"(])")
_MARKUP = re.compile(r"^\s*(?:#{1,6}\s+|[-*+]\s+|>\s*|\d+[.)]\s+|\"{3}|'{3}|//+\s*|#\s*)")
_TABLE = re.compile(r"\S {3,}\S|^\s*\||^\s*[-=]{3,}")
_NEW = ("#", "-", "*", ">", "`" * 3)
_LONGEST = 320
_PARAGRAPH = 6


def answer(question: Question, evidence: Evidence) -> str:
    """The answer to a question from what is known, or plainly that nothing was found."""
    if question.expression:
        return _sum(question, evidence)
    if question.counted:
        return _count(question, evidence)
    if question.terms:
        return _passages(question, evidence)
    return f"Nothing was found that answers: {question.text}"


def _sum(question: Question, evidence: Evidence) -> str:
    if not evidence.values:
        return f"{question.expression} could not be worked out."
    return "\n".join(f"{expression} = {value}" for expression, value in evidence.values)


def _count(question: Question, evidence: Evidence) -> str:
    if question.counted not in evidence.listings:
        return f"The files that match {question.counted} could not be listed."
    count, more = evidence.listings[question.counted]
    parts = [evidence.listings.get(part, (0, True)) for part in parts_of(question.counted)]
    if more and parts:
        count, more = max(count, sum(n for n, _ in parts)), any(cut for _, cut in parts)
    first = ", ".join(list(evidence.files)[:3])
    files = "file matches" if count == 1 else "files match"
    number = f"At least {count}" if more else str(count)
    return f"{number} {files} {question.counted}{f' (such as {first})' if first else ''}."


def _passages(question: Question, evidence: Evidence) -> str:
    best = rank(question, evidence)
    lost = ", ".join(f"'{term.text}'" for term in missing(question, evidence))
    if not best:
        return f"Nothing was found on {lost}: {_effort(evidence)}."
    first, *rest = best
    told = [f"{excerpt(first, question, evidence)} ({first.file}:{first.line})"]
    if rest:
        told.append("See also:")
        told += [f"- {excerpt(p, question, evidence)} ({p.file}:{p.line})" for p in rest]
    if lost:
        told.append(f"Nothing was found on {lost}.")
    return "\n".join(told)


def _effort(evidence: Evidence) -> str:
    """What was tried."""
    return f"{len(evidence.tried)} searches and {len(evidence.read)} files read"


def excerpt(passage: Passage, question: Question, evidence: Evidence) -> str:
    """The passage as it reads best: a definition with its docstring, else the fitting sentence."""
    line = passage.text.strip()
    if is_code(passage.text):
        below = [evidence.lines.get((passage.file, passage.line + n), "").strip() for n in (1, 2)]
        doc = next((text.strip("\"' ") for text in below if text.startswith('"""')), "")
        return _short(f"`{line.rstrip(':')}`" + (f": {doc}" if doc else ""))
    sentences = _SENTENCE_END.split(_paragraph(passage, evidence))
    wanted = {root for term in question.terms for root in term.stems}
    return _short(max(sentences, key=lambda s: len(wanted & set(stems(s)))))


def _paragraph(passage: Passage, evidence: Evidence) -> str:
    """The prose around the line, as far as it is known, without its markup."""

    def text(number: int) -> str:
        return evidence.lines.get((passage.file, number), "")

    first = last = passage.line
    while passage.line - first < _PARAGRAPH and _goes_on(text(first - 1), text(first)):
        first -= 1
    while last - passage.line < _PARAGRAPH and _goes_on(text(last), text(last + 1)):
        last += 1
    return " ".join(_MARKUP.sub("", text(n)).strip("\"' ") for n in range(first, last + 1))


def _goes_on(upper: str, lower: str) -> bool:
    """Whether two neighbouring lines belong to one paragraph."""
    if any(not line.strip() or is_code(line) or _TABLE.search(line) for line in (upper, lower)):
        return False
    over, under = upper.strip(), lower.strip()
    closed = over.endswith('"""') and over != '"""'
    return not (closed or over.startswith("#") or under.startswith((*_NEW, '"""')))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1].rsplit(" ", 1)[0] + "…"
