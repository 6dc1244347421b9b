"""What a question asks for: terms and their weights, a sum to work out, files to count."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from agentflow.testing.standin.words import STOPWORDS, stem, stems

_QUOTED = re.compile(r"`([^`\n]+)`|\"([^\"\n]+)\"|“([^”\n]+)”")
_IDENTIFIER = re.compile(
    r"\b(?:\w+(?:[./]\w+)+|\w*[a-z0-9]_\w+|[A-Z][a-z0-9]+(?:[A-Z]\w*)+|\w+(?=\(\)))"
)
_TOKEN = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[^\w\s]")
_OPERATOR = re.compile(
    r"[-+*/%^×÷]|\bplus\b|\bminus\b|\btimes\b|\bdivided by\b|(?<=\d)\s*x\s*(?=\d)"
)
_SIGNS = {"plus": "+", "minus": "-", "times": "*", "divided by": "/", "×": "*", "÷": "/"}
_SUM = re.compile(r"[-+(\s]*\d[\d\s.()+*/%-]*")
_SUM_WORDS = {"calculate", "compute", "evaluate", "result", "value", "sum", "equals", "much"}
_COUNTED = re.compile(r"\b(?:how many|number of|count)\s+(?:the\s+)?([^?!,;]*)", re.IGNORECASE)
_KINDS = {
    "python": "*.py",
    "markdown": "*.md",
    "toml": "*.toml",
    "json": "*.json",
    "text": "*.txt",
    "yaml": "*.y*ml",
    "test": "test_*",
}


@dataclass(frozen=True, slots=True)
class Term:
    """Something to look for.

    Attributes:
        text: As written in the question.
        weight: How much it matters.
        exact: Whether it names something (an identifier, a quotation, a file).
    """

    text: str
    weight: float
    exact: bool = False

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems of its words."""
        return tuple(stems(self.text))


@dataclass(frozen=True, slots=True)
class Question:
    """A question, read by rules.

    Attributes:
        text: The question.
        terms: What to look for, the most telling first.
        phrases: Neighbouring words that may stand together in a file.
        expression: A sum to work out instead, or empty.
        counted: A pattern of files to count instead, or empty.
    """

    text: str
    terms: tuple[Term, ...]
    phrases: tuple[str, ...]
    expression: str = ""
    counted: str = ""


def read_question(text: str) -> Question:
    """Read a question."""
    text = " ".join(text.split())
    if counted := _counted(text):
        return Question(text, (), (), counted=counted)
    exact = _exact_terms(text)
    if not exact and (expression := _expression(text)):
        return Question(text, (), (), expression=expression)
    ranked = sorted([*exact, *_plain_terms(text, exact)], key=lambda term: -term.weight)
    return Question(text, tuple(ranked), _phrases(text))


def _exact_terms(text: str) -> list[Term]:
    """Quotations and identifiers."""
    quoted = ["".join(groups).strip("() ") for groups in _QUOTED.findall(text)]
    found = dict.fromkeys([*quoted, *_IDENTIFIER.findall(_QUOTED.sub(" ", text))])
    return [Term(name, 3.0, exact=True) for name in found if not _is_number(name) and name]


def _plain_terms(text: str, exact: list[Term]) -> list[Term]:
    """Content words, each stem once; longer words and names tell more."""
    covered = {word for term in exact for word in term.stems}
    terms: dict[str, Term] = {}
    for position, word in enumerate(_TOKEN.findall(_without(text, exact))):
        root = stem(word)
        if word.lower() in STOPWORDS or len(word) < 2 or _is_number(word) or root in covered:
            continue
        name = position > 0 and word[0].isupper()
        weight = min(1.6, 0.6 + len(word) / 10) + 0.5 * name
        terms.setdefault(root, Term(word, weight))
    return list(terms.values())


def _phrases(text: str) -> tuple[str, ...]:
    """Pairs of neighbouring content words."""
    tokens = _TOKEN.findall(_QUOTED.sub(" | ", text))
    content = [f"{a} {b}" for a, b in pairwise(tokens) if _is_content(a) and _is_content(b)]
    return tuple(dict.fromkeys(content))


def _expression(text: str) -> str:
    """The sum in a question that is nothing but a sum."""
    signs = _OPERATOR.sub(lambda m: _SIGNS.get(m[0], m[0].strip()), text.lower().replace(",", ""))
    signs = signs.replace("^", "**").replace("x", "*") if re.search(r"\d", signs) else ""
    others = [w for w in re.findall(r"[a-z]+", text.lower()) if w not in ("x", "by", "divided")]
    if any(w not in STOPWORDS | _SUM_WORDS | set(_SIGNS) for w in others):
        return ""
    sums = [found.strip() for found in _SUM.findall(signs)]
    longest = max(sums, key=len, default="")
    return longest if re.search(r"\d.*[-+*/%].*\d", longest) else ""


def _counted(text: str) -> str:
    """The pattern of the files a question wants counted."""
    match = _COUNTED.search(text)
    if match is None or not re.search(r"\bfiles?\b", match[1], re.IGNORECASE):
        return ""
    described = match[1].lower()
    if suffix := re.search(r"\*?(\.\w+)\b", described):
        return f"**/*{suffix[1]}"
    for kind, pattern in _KINDS.items():
        if re.search(rf"\b{kind}\b", described):
            return f"**/{pattern}"
    return "**/*"


def _without(text: str, terms: list[Term]) -> str:
    for term in terms:
        text = text.replace(term.text, " ")
    return text


def _is_content(token: str) -> bool:
    return token[0].isalpha() and token.lower() not in STOPWORDS and len(token) > 1


def _is_number(text: str) -> bool:
    return not any(char.isalpha() for char in text)
