"""Simple rewritings that turn one text into another: case, what is put around it, a part of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

_SEPARATORS = re.compile(r"[\W_]+")
_CASES: dict[str, Callable[[str], str]] = {
    "": str,
    "lower": str.lower,
    "upper": str.upper,
    "title": str.title,
}

SHORTEST = 3
"""Characters two texts must share to be taken for one made from the other."""

LONGEST = 40
"""Characters of a text that is taken for one made from another."""


class Form(NamedTuple):
    """A rewriting of a text.

    Attributes:
        kind: ``same``, ``part`` (one of the words of the text) or ``around`` (put between others).
        case: ``lower``, ``upper``, ``title`` or empty, applied last.
        part: Which word, counted from 0.
        prefix: What is put before it.
        suffix: What is put after it.
    """

    kind: str = "same"
    case: str = ""
    part: int = 0
    prefix: str = ""
    suffix: str = ""

    def apply(self, text: str) -> str | None:
        """The text rewritten, or None where there is no such part."""
        if self.kind == "part":
            words = _SEPARATORS.split(text)
            if self.part >= len(words):
                return None
            text = words[self.part]
        return self.prefix + _CASES[self.case](text) + self.suffix

    @classmethod
    def load(cls, dumped: Sequence[Any]) -> Form:
        """The form that was dumped as a list.

        Raises:
            TypeError, ValueError: It was not.
        """
        kind, case, part, prefix, suffix = dumped
        if kind not in ("same", "part", "around") or case not in _CASES or int(part) < 0:
            raise ValueError(f"{dumped} is not a form")
        return cls(kind, case, int(part), str(prefix), str(suffix))


SAME = Form()


def forms(source: str, target: str) -> Iterator[Form]:
    """The rewritings of `source` that give `target`, the simplest first."""
    if min(len(source), len(target)) < SHORTEST or len(target) > LONGEST:
        return
    for case, change in _CASES.items():
        if case and change(source) == target:
            yield Form(case=case)
        elif source in target and source != target and not case:
            prefix, _, suffix = target.partition(source)
            yield Form("around", prefix=prefix, suffix=suffix)
    if target.lower() in source.lower():
        yield from _parts(source, target)


def _parts(source: str, target: str) -> Iterator[Form]:
    words = _SEPARATORS.split(source)
    if len(words) < 2:
        return
    for index, word in enumerate(words):
        for case, change in _CASES.items():
            if change(word) == target:
                yield Form("part", case, index)
                break
