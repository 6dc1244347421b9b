"""`calculate` computes what people write, and nothing that could hurt."""

from __future__ import annotations

import math
import operator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.tools.builtin import calculate
from agentflow.tools.builtin.calculate import MAX_BITS, compute
from agentflow.tools.builtin.expression import CalculationError


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("7 / 2", 3.5),
        ("7 // 2", 3),
        ("-7 % 3", 2),
        ("--3", 3),
        ("2 ** 3 ** 2", 512),
        ("-2 ** 2", -4),
        ("2 ** -1", 0.5),
        ("1.5e3", 1500.0),
        (".5 + 1.", 1.5),
        ("007", 7),
        ("1_000", 1000),
        ("10 - 2 - 3", 5),
        ("0 ** 0", 1),
        ("(-1) ** 1000000", 1),
        ("1\n+\n1", 2),
    ],
)
def test_arithmetic_is_pythons(expression: str, value: float) -> None:
    result = compute(expression)

    assert (result, type(result)) == (value, type(value))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2^10", 1024),
        ("2 + 3^2", 11),
        ("1,000 + 2", 1002),
        ("1,234,567.5 * 2", 2469135.0),
        ("(12,000)", 12000),
        ("15%", 0.15),
        ("200 * 15%", 30.0),
        ("1 / 50%", 2.0),
        ("15% of 80", 12.0),
        ("(50%) ^ 2", 0.25),
        ("10 % 3", 1),
        ("10 %3", 1),
        ("3 × 4 ÷ 2 − 1", 5.0),
        ("3 ≥ 2", True),
        ("max(1,200)", 200),
        ("sum([1,000])", 1),
    ],
)
def test_what_is_unambiguous_is_understood(expression: str, value: float) -> None:
    assert compute(expression) == value


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("sqrt(16)", 4.0),
        ("abs(-3)", 3),
        ("round(2.345, 2)", round(2.345, 2)),
        ("round(1234, -2)", 1200),
        ("round(2.5)", 2),
        ("min(3, 1, 2) + max([1, 5])", 6),
        ("sum([1, 2, 3])", 6),
        ("mean([1, 2, 6])", 3.0),
        ("mean(1, 2)", 1.5),
        ("median([5, 1, 3])", 3),
        ("median([1, 2, 3, 4])", 2.5),
        ("log(8, 2)", 3.0),
        ("ln(e)", 1.0),
        ("log10(1000)", math.log10(1000)),
        ("exp(0)", 1.0),
        ("floor(2.7) + ceil(2.1)", 5),
        ("factorial(5)", 120),
        ("pow(2, 5)", 32),
        ("SIN(PI / 2)", 1.0),
        ("cos(0) + tan(0) + atan2(0, 1)", 1.0),
        ("degrees(pi)", 180.0),
        ("tau / pi", 2.0),
    ],
)
def test_functions_and_constants(expression: str, value: float) -> None:
    assert compute(expression) == pytest.approx(value)


@pytest.mark.parametrize(
    ("expression", "value"),
    [("1 < 2", True), ("1 < 2 < 2", False), ("2 >= 2 != 3", True), ("1 == 1.0", True)],
)
def test_comparisons_give_true_or_false(expression: str, value: bool) -> None:
    assert compute(expression) is value


NUMBERS = st.integers(0, 1000).map(lambda n: (str(n), n)) | st.floats(
    0, 1e6, allow_nan=False, allow_infinity=False
).map(lambda x: (repr(x), x))
OPERATORS = st.sampled_from(
    [("+", operator.add), ("-", operator.sub), ("*", operator.mul), ("/", operator.truediv)]
)


def combined(inner: Any) -> Any:
    """Two expressions and their values, joined; the value is None where there is none."""

    def joined(parts: tuple[Any, Any, Any]) -> tuple[str, Any]:
        (left, one), (sign, function), (right, other) = parts
        try:
            value = None if one is None or other is None else function(one, other)
        except ZeroDivisionError:
            value = None
        finite = value is not None and math.isfinite(value)
        return f"({left} {sign} {right})", value if finite else None

    return st.tuples(inner, OPERATORS, inner).map(joined)


@given(st.recursive(NUMBERS, combined, max_leaves=12))
def test_any_expression_has_the_value_it_was_built_with(built: tuple[str, Any]) -> None:
    text, value = built
    if value is None:
        with pytest.raises(CalculationError, match=r"division by zero|too large"):
            compute(text)
    else:
        assert compute(text) == value


@given(st.text(alphabet="0123456789.,+-*/%^()[]<>=e_ abcmaxsumlogpi'\"é:;@\\\n\0", max_size=40))
def test_any_text_is_a_number_or_an_error_with_a_place(text: str) -> None:
    try:
        assert isinstance(compute(text), int | float)
    except CalculationError as error:
        assert 0 <= error.at <= len(text)


@pytest.mark.parametrize(
    "expression",
    [
        "9 ** 9 ** 9",
        "9 ** 999999999999",
        "(-9) ** 99999999",
        "pow(10, 10 ** 9)",
        "2 ** (2 ** 63)",
        "2.0 ** 99999",
        "factorial(1000) * factorial(1000) * factorial(1000)",
        "factorial(10 ** 9)",
        "9" * 400 + " * 9" * 300 + " ** 99" * 20,
        "1e400",
        "1e308 * 10",
        "exp(1000)",
        "round(10 ** 3000, -999999999)",
        "round(1.5, 999999999)",
        "sqrt(10 ** 1000)",
    ],
)
def test_what_would_be_too_large_is_refused_before_it_is_computed(expression: str) -> None:
    with pytest.raises(CalculationError):
        compute(expression)


def test_whole_numbers_are_exact_up_to_a_limit() -> None:
    assert compute("2 ** 9999") == 2**9999
    with pytest.raises(CalculationError, match="too large"):
        compute(f"2 ** {MAX_BITS}")


@pytest.mark.parametrize(
    ("expression", "at", "message"),
    [
        ("", 0, "empty"),
        ("  ", 0, "empty"),
        ("1 +", 2, "missing after this"),
        ("1 + * 2", 4, "not an expression"),
        ("(1", 0, "not an expression"),
        ("1)", 1, "not an expression"),
        ("1 / 0", 0, "division by zero"),
        ("3 + 1 / (2 - 2)", 4, "division by zero"),
        ("0 ** -1", 0, "division by zero"),
        ("5 + sqrt(-1)", 4, "no value there"),
        ("(-8) ** 0.5", 0, "not a real number"),
        ("2 * sqr(4)", 4, "Did you mean 'sqrt'"),
        ("2 * pie", 4, "Did you mean 'pi'"),
        ("2x", 1, r"write 2\*x"),
        ("2 (3)", 2, r"write 2\*\(3\)"),
        ("(2)3", 3, "operator is missing"),
        ("2 pi", 2, "operator is missing"),
        ("0x10", 1, "operator is missing"),
        ("1,00", 1, "groups of three"),
        ("1,0000", 1, "groups of three"),
        ("(1, 2)", 2, "groups of three"),
        ("20% + 5", 2, "percentage or a remainder"),
        ("20% -5", 2, "percentage or a remainder"),
        ("(50)%", 4, "missing after this"),
        ("[1, 2]", 0, "only an argument"),
        ("1 + [1]", 4, "only an argument"),
        ("abs([1])", 0, "where a list was given"),
        ("min(1, [2])", 0, "where a list was given"),
        ("sum([])", 0, "list is empty"),
        ("sqrt()", 0, "takes 1 arguments"),
        ("log(1, 2, 3)", 0, "takes 1 to 2 arguments"),
        ("1 << 3", 3, "not an expression"),
        ("~1", 0, "has no meaning"),
        ("1 if 1 else 2", 2, "operator is missing"),
        ("lambda: 1", 6, "has no meaning"),
        ("True", 0, "only numbers"),
        ("None", 0, "only numbers"),
        ("'a' * 9", 0, "has no meaning"),
        ("__import__('os')", 11, "has no meaning"),
        ("(1).real", 3, "has no meaning"),
        ("x := 1", 2, "has no meaning"),
        ("f(a=1)", 3, "has no meaning"),
        ("max(*[1])", 4, "only numbers"),
        ("sum(x for x in [1])", 6, "operator is missing"),
        ("max(max)", 4, "there is no 'max'"),
        ("pi(2)", 0, "there is no function"),
        ("(1)(2)", 3, "operator is missing"),
        ("٣", 0, "has no meaning"),
        ("1 in [1]", 2, "operator is missing"),
        ("1\0", 1, "has no meaning"),
    ],
)
def test_errors_say_where_and_what(expression: str, at: int, message: str) -> None:
    with pytest.raises(CalculationError, match=message) as wrong:
        compute(expression)

    assert (wrong.value.at, wrong.value.expression) == (at, expression)
    assert isinstance(wrong.value, ValueError)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("(" * 51 + "1" + ")" * 51, "brackets inside"),
        ("-" * 200 + "1", "operations inside"),
        ("2" + "**1" * 200, "operations inside"),
        ("1" * 401, "digits"),
        ("1+" * 1000 + "1", "longer than"),
    ],
)
def test_length_and_depth_are_bounded(expression: str, message: str) -> None:
    with pytest.raises(CalculationError, match=message):
        compute(expression)


def test_a_long_sum_is_no_deep_one() -> None:
    assert compute("+".join(["1"] * 999)) == 999
    assert compute("*".join(["1"] * 999)) == 1


async def test_it_is_a_pure_tool_with_a_plain_result() -> None:
    assert (calculate.name, str(calculate.effect)) == ("calculate", "pure")
    assert await calculate("40 + 2") == 42
    check = calculate.signature.check_result
    assert check is not None
    assert [type(check(value)) for value in (True, 1, 1.5)] == [bool, int, float]
