"""The text of an expression, made readable for Python's parser.

People and models write ``1,000``, ``15%``, ``2^10`` and ``3 × 4``. What is unambiguous is
rewritten, with each character's place in the original kept for messages; the rest is an error.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field

from agentflow.errors import AgentflowError

MAX_LENGTH = 2_000
"""Characters of an expression."""

MAX_DIGITS = 400
"""Digits of one number."""

MAX_BRACKETS = 50
"""Brackets inside each other."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>\*\*|//|<=|>=|==|!=|[-+*/%^(),\[\]<>×÷·−≤≥≠]))",
    re.ASCII,
)
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?", re.ASCII)
_OF = re.compile(r"of\b")
_SIGNS = {"^": "**", "×": "*", "·": "*", "÷": "/", "−": "-", "≤": "<=", "≥": ">=", "≠": "!="}
_PERCENT_ENDS = frozenset("*/),]<>=!×÷·^≤≥≠")


class CalculationError(AgentflowError, ValueError):
    """An expression cannot be computed.

    Attributes:
        expression: As it was written.
        at: Index of the character at fault.
    """

    def __init__(self, message: str, expression: str, at: int) -> None:
        self.expression = expression
        self.at = at
        near = expression[at : at + 20].strip()
        super().__init__(f"character {at + 1}{f', at {near!r}' if near else ''}: {message}")


@dataclass(slots=True)
class Expression:
    """Text for Python's parser, and where each character of it comes from."""

    original: str
    text: str = ""
    places: list[int] = field(default_factory=list)

    def add(self, text: str, place: int) -> None:
        """Append what stands at a place of the original."""
        self.text += text
        self.places += [place] * len(text)

    def parse(self) -> ast.expr:
        """The tree.

        Raises:
            CalculationError: It is no expression.
        """
        try:
            return ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            raise self._error("this is not an expression", (error.offset or 1) - 1) from None
        except (RecursionError, MemoryError, ValueError):
            raise self._error("the expression is too deep: take it apart", 0) from None

    def error(self, message: str, node: ast.expr) -> CalculationError:
        """An error at a node of the tree."""
        return self._error(message, node.col_offset)

    def _error(self, message: str, offset: int) -> CalculationError:
        at = self.places[min(offset, len(self.places) - 1)] if self.places else 0
        return CalculationError(message, self.original, at)


def rewrite(expression: str) -> Expression:
    """Check every token, and rewrite what Python writes differently.

    Raises:
        CalculationError: A character has no meaning, or something is ambiguous or too large.
    """
    if len(expression) > MAX_LENGTH:
        raise CalculationError(f"longer than {MAX_LENGTH} characters", expression, MAX_LENGTH)
    if not expression.strip():
        raise CalculationError("the expression is empty", expression, 0)
    return _Rewriter(expression).run()


class _Rewriter:
    def __init__(self, source: str) -> None:
        self.source = source
        self.out = Expression(source)
        self.open: list[bool] = []  # for each open bracket, whether commas separate in it
        self.before = ""  # kind of the token before

    def run(self) -> Expression:
        at = 0
        while self.source[at:].strip():
            match = _TOKEN.match(self.source, at)
            if match is None or match.lastgroup is None:
                at += len(self.source[at:]) - len(self.source[at:].lstrip())
                raise self._error(f"{self.source[at]!r} has no meaning here", at)
            start = match.start(match.lastgroup)
            at = self._number(start) if match["number"] else self._other(match, start)
        if self.before == "sign":
            raise self._error("something is missing after this", self.out.places[-1])
        return self.out

    def _number(self, start: int) -> int:
        """Copy a number; a percent sign that ends an operand makes it hundredths."""
        match = (not any(self.open) and _GROUPED.match(self.source, start)) or None
        if match is None:
            match = _TOKEN.match(self.source, start)
        assert match is not None
        end = match.end()
        text = match[0].replace(",", "").replace("_", "")
        if len(text) > MAX_DIGITS:
            raise self._error(f"a number of more than {MAX_DIGITS} digits", start)
        if self.before in ("number", "name"):
            raise self._error("an operator is missing before this number", start)
        if re.match(r"[A-Za-z_]", self.source[end : end + 1]):
            raise self._error("an operator is missing after the number: write 2*x", end)
        text = text.lstrip("0") or "0" if text.isdigit() else text
        percent = self._percent(end)
        self.out.add(f"({text}/100)" if percent else f"{text} ", start)
        self.before = "number"
        return percent or end

    def _percent(self, end: int) -> int:
        """Where a percent sign after a number ends; 0 if there is none, or it is a remainder."""
        rest = self.source[end:].lstrip()
        if not rest.startswith("%"):
            return 0
        place = len(self.source) - len(rest)
        follows = rest[1:].lstrip()
        if follows[:1] in ("+", "-", "−"):
            message = "is this a percentage or a remainder? Write x/100 or x % (y)"
            raise self._error(message, place)
        ends = not follows or follows[0] in _PERCENT_ENDS or _OF.match(follows)
        return place + 1 if ends else 0

    def _other(self, match: re.Match[str], start: int) -> int:
        token = match["name"] or match["sign"]
        if token in "([":
            self._opened(token, start)
        elif token in ")]" and self.open:
            self.open.pop()
        elif token == "," and not any(self.open):
            message = "a comma separates arguments, or groups of three digits as in 1,000"
            raise self._error(message, start)
        name = match["name"] is not None
        if token == "of" and self.source[:start].rstrip().endswith("%"):
            name, token = False, "*"
        if name and self.before in ("number", "name"):
            raise self._error("an operator is missing before this name", start)
        self.out.add(f"{_SIGNS.get(token, token)} ", start)
        self.before = "name" if name else "number" if token in ")]" else "sign"
        return match.end()

    def _opened(self, token: str, start: int) -> None:
        self.open.append(token == "[" or self.before == "name")
        if len(self.open) > MAX_BRACKETS:
            raise self._error(f"more than {MAX_BRACKETS} brackets inside each other", start)
        if self.before == "number":
            raise self._error("an operator is missing before this bracket: write 2*(3)", start)

    def _error(self, message: str, at: int) -> CalculationError:
        return CalculationError(message, self.source, at)
