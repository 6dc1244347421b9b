"""`calculate`: arithmetic on text, read with Python's `ast` and computed by hand.

Nothing is evaluated or compiled. What a short text could blow up (powers, factorials, nested
brackets) is bounded before it is computed.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from agentflow.tools.builtin.expression import CalculationError, Expression, rewrite
from agentflow.tools.tool import tool
from agentflow.wording import nearest

Number: TypeAlias = "int | float"

MAX_BITS = 10_000
"""Size of a whole number, about 3,000 digits."""

MAX_DEPTH = 100
"""Operations inside each other."""

MAX_PLACES = 300
"""Places that `round` takes, on either side of the point."""

MAX_FACTORIAL = 1_000

_CONSTANTS = {"pi": math.pi, "e": math.e, "tau": math.tau}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Number, Number], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0:
        _fits(math.log2(abs(base) or 1) * exponent)
    if base < 0 and exponent != int(exponent):
        raise ValueError("a root of a negative number is not a real number")
    return base**exponent


def _times(one: Number, other: Number) -> Number:
    if isinstance(one, int) and isinstance(other, int):
        _fits(one.bit_length() + other.bit_length())
    return one * other


def _round(number: Number, places: Number = 0) -> Number:
    if not isinstance(places, int) or abs(places) > MAX_PLACES:
        raise ValueError(f"the places of round are a whole number up to {MAX_PLACES}")
    return round(number, places) if places else round(number)


def _factorial(number: Number) -> int:
    if not isinstance(number, int) or not 0 <= number <= MAX_FACTORIAL:
        raise ValueError(f"factorial takes a whole number from 0 to {MAX_FACTORIAL}")
    return math.factorial(number)


def _mean(numbers: Sequence[Number]) -> Number:
    return math.fsum(numbers) / len(numbers)


def _median(numbers: Sequence[Number]) -> Number:
    ordered, half = sorted(numbers), len(numbers) // 2
    return ordered[half] if len(numbers) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _of_list(function: Callable[[Sequence[Number]], Number]) -> Callable[..., Number]:
    """Take the numbers one by one, or as one list."""

    def applied(*given: Any) -> Number:
        numbers = given[0] if len(given) == 1 and isinstance(given[0], list) else given
        if not numbers:
            raise ValueError("the list is empty")
        return function(_plain(numbers))

    return applied


def _of_numbers(function: Callable[..., Number]) -> Callable[..., Number]:
    return lambda *given: function(*_plain(given))


def _plain(given: Sequence[Any]) -> Sequence[Number]:
    if any(isinstance(number, list) for number in given):
        raise ValueError("a number stands where a list was given")
    return given


_OPERATORS: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: _times,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_SIGNS: dict[type[ast.unaryop], Callable[[Number], Number]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_OF_ONE = (
    *("sqrt", "exp", "log10", "log2", "floor", "ceil", "degrees", "radians"),
    *("sin", "cos", "tan", "asin", "acos", "atan"),
)
_FUNCTIONS: dict[str, tuple[Callable[..., Number], int, int]] = {
    # name: what it does, and the least and most arguments
    **{name: (_of_numbers(getattr(math, name)), 1, 1) for name in _OF_ONE},
    "ln": (_of_numbers(math.log), 1, 1),
    "log": (_of_numbers(math.log), 1, 2),
    "atan2": (_of_numbers(math.atan2), 2, 2),
    "abs": (_of_numbers(abs), 1, 1),
    "round": (_of_numbers(_round), 1, 2),
    "factorial": (_of_numbers(_factorial), 1, 1),
    "pow": (_of_numbers(_power), 2, 2),
    "min": (_of_list(min), 1, 1000),
    "max": (_of_list(max), 1, 1000),
    "sum": (_of_list(sum), 1, 1000),
    "mean": (_of_list(_mean), 1, 1000),
    "median": (_of_list(_median), 1, 1000),
}


@tool(pure=True, timeout="5s", version="1")
async def calculate(expression: str) -> bool | int | float:
    """Compute an arithmetic expression such as `1,250 * 15% + sqrt(2) ^ 3`.

    Operators are + - * / // % ** (or ^) and comparisons; functions are abs, round, min, max,
    sum, mean, median, sqrt, exp, ln, log, log10, log2, floor, ceil, factorial, sin, cos, tan and
    their inverses; constants are pi, e and tau.
    """
    return compute(expression)


def compute(expression: str) -> Number:
    """The value of an expression; a comparison gives True or False.

    Raises:
        CalculationError: It is no expression, or its value is too large or not a number.
    """
    text = rewrite(expression)
    return _Reader(text).number(text.parse(), 0)


class _Reader:
    """Computes a tree, and says where when it cannot."""

    def __init__(self, text: Expression) -> None:
        self._text = text

    def _value(self, node: ast.expr, depth: int) -> Any:
        """A number, or a list of numbers."""
        if depth > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} operations inside each other", node)
        with self._located(node):
            return self._checked(self._compute(node, depth + 1))

    def _compute(self, node: ast.expr, depth: int) -> Any:
        match node:
            case ast.Constant(value=number) if type(number) in (int, float):
                return number
            case ast.Name(id=name):
                return self._constant(name, node)
            case ast.BinOp():
                return self._chain(node, depth)
            case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _SIGNS:
                return _SIGNS[type(sign)](self.number(operand, depth))
            case ast.Compare():
                return self._comparison(node, depth)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return self._call(name, args, node, depth)
            case ast.List(elts=items):
                return [self.number(item, depth) for item in items]
        raise self._error("only numbers, operators, functions and lists can be computed", node)

    def _chain(self, node: ast.expr, depth: int) -> Number:
        """Operations one after the other, as in a long sum: a loop, not a recursion."""
        operations: list[ast.BinOp] = []
        while isinstance(node, ast.BinOp):
            operations.append(node)
            node = node.left
        value = self.number(node, depth)
        for operation in reversed(operations):
            value = self._operation(operation, value, self.number(operation.right, depth))
        return value

    def _operation(self, node: ast.BinOp, one: Number, other: Number) -> Number:
        if type(node.op) not in _OPERATORS:
            raise self._error("operators are + - * / // % and **", node.right)
        with self._located(node):
            value: Number = self._checked(_OPERATORS[type(node.op)](one, other))
        return value

    def number(self, node: ast.expr, depth: int) -> Number:
        """The value of a node that must be a number."""
        value: Number | list[Number] = self._value(node, depth)
        if isinstance(value, list):
            raise self._error("a list is only an argument, as in sum([1, 2])", node)
        return value

    def _constant(self, name: str, node: ast.expr) -> float:
        if name.lower() in _CONSTANTS:
            return _CONSTANTS[name.lower()]
        known = [*_CONSTANTS, *_FUNCTIONS]
        raise self._error(f"there is no {name!r}. {nearest(name.lower(), known)}", node)

    def _comparison(self, node: ast.Compare, depth: int) -> bool:
        numbers = [self.number(each, depth) for each in (node.left, *node.comparators)]
        compare = [_COMPARISONS.get(type(op)) for op in node.ops]
        if None in compare:
            raise self._error("comparisons are < <= > >= == !=", node)
        triples = zip(compare, numbers, numbers[1:], strict=False)
        return all(test(one, other) for test, one, other in triples if test)

    def _call(self, name: str, args: list[ast.expr], node: ast.expr, depth: int) -> Number:
        if name.lower() not in _FUNCTIONS:
            hint = nearest(name.lower(), list(_FUNCTIONS))
            raise self._error(f"there is no function {name!r}. {hint}", node)
        function, least, most = _FUNCTIONS[name.lower()]
        if not least <= len(args) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise self._error(f"{name} takes {wanted} arguments, not {len(args)}", node)
        return function(*(self._value(arg, depth) for arg in args))

    @contextmanager
    def _located(self, node: ast.expr) -> Iterator[None]:
        """Give errors of Python's arithmetic a place."""
        try:
            yield
        except CalculationError:
            raise
        except ZeroDivisionError:
            raise self._error("division by zero", node) from None
        except OverflowError:
            raise self._error("the value is too large", node) from None
        except ValueError as error:
            domain = str(error) == "math domain error"
            message = "the function has no value there" if domain else str(error)
            raise self._error(message, node) from None

    def _checked(self, value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            raise OverflowError
        if isinstance(value, int):
            _fits(value.bit_length())
        return value

    def _error(self, message: str, node: ast.expr) -> CalculationError:
        return self._text.error(message, node)


def _fits(bits: float) -> None:
    if bits > MAX_BITS:
        raise OverflowError
