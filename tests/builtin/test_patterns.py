"""`Search` says what Python's `re` says, without its worst case."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.tools.builtin import patterns
from agentflow.tools.builtin.patterns import PatternTooCostly, Search
from agentflow.tools.builtin.regex import PatternError

ATOMS = st.sampled_from(
    ["a", "b", "A", "_", " ", ".", "[ab]", "[^a]", "[a-c_]", r"\d", r"\w", r"\s", r"\W", r"[\d-]"]
)
EDGES = st.sampled_from(["^", "$", r"\b", r"\B"])
COUNTS = st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,2}", "{0,}", "{,2}"])


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, COUNTS).map(lambda pair: f"({pair[0]}){pair[1]}"),
    )


PATTERNS = st.recursive(st.one_of(ATOMS, EDGES), grown, max_leaves=8)
LINES = st.text(alphabet="abcABC_1 -é", max_size=12)


@settings(max_examples=500)
@given(PATTERNS, st.lists(LINES, min_size=1, max_size=5), st.booleans())
def test_it_agrees_with_re(pattern: str, lines: list[str], ignore_case: bool) -> None:
    search = Search(pattern, ignore_case=ignore_case)
    expected = re.compile(pattern, re.IGNORECASE if ignore_case else 0)

    for line in lines:
        if not line and r"\B" in pattern:
            continue  # before Python 3.14 it does not match there
        assert search.matches(line) == bool(expected.search(line))
        assert search.may_match(line) or not expected.search(line)


@pytest.mark.parametrize(
    ("pattern", "line", "found"),
    [
        (r"a\.b", "a.b", True),
        (r"a\.b", "axb", False),
        (r"\x41\u00e9\t", "Aé\t", True),
        ("[]a]", "]", True),
        ("[^]a]", "]", False),
        ("[a-]", "-", True),
        (r"[\]\\]", "\\", True),
        ("a{", "a{", True),
        ("a{x}", "a{x}", True),
        ("a{,}", "a{,}", True),
        (r"\Aab\Z", "ab", True),
        ("(?P<name>ab)", "ab", True),
        ("", "anything", True),
        ("a|", "z", True),
        ("()*x", "x", True),
        (r"\bfoo\b", "a foo.", True),
        (r"\bfoo\b", "food", False),
    ],
)
def test_syntax(pattern: str, line: str, found: bool) -> None:
    assert Search(pattern).matches(line) is found


def test_case_is_ignored_in_sets_and_negations() -> None:
    assert Search("[a-c]É", ignore_case=True).matches("Bé")
    assert not Search("^[^a]$", ignore_case=True).matches("A")


@pytest.mark.parametrize(
    ("pattern", "at", "message"),
    [
        ("(a", 0, "never closed"),
        ("a)", 1, "closes nothing"),
        ("[a", 0, "never closed"),
        ("*a", 0, "nothing to repeat"),
        ("a**", 2, "two counts"),
        ("a++", 2, "two counts"),
        ("a{3,1}", 1, "smaller count"),
        ("a{99999}", 1, "too large"),
        ("(?=a)", 0, "look-around"),
        ("(?i)a", 0, "look-around"),
        (r"(a)\1", 3, "back-references"),
        (r"\q", 0, "no meaning"),
        ("a\\", 1, "ends after a backslash"),
        (r"\x4", 0, "hexadecimal"),
        ("[z-a]", 3, "lower character"),
        (r"[a-\d]", 3, "lower character"),
        ("(" * 60 + ")" * 60, 50, "inside each other"),
        ("a" * 1001, 1000, "longer than"),
    ],
)
def test_errors_say_where(pattern: str, at: int, message: str) -> None:
    with pytest.raises(PatternError, match=message) as wrong:
        Search(pattern)

    assert wrong.value.at == at


@given(st.text(alphabet="ab()[]{}|*+?.^$\\-,12dwbx", max_size=30))
def test_any_text_is_a_pattern_or_an_error(text: str) -> None:
    try:
        Search(text).matches("ab12")
    except (PatternError, PatternTooCostly):
        return


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "(a*)*c", "(a|a)*c", "(a|aa)+$", "(.*)(.*)(.*)(.*)c", "a?" * 50 + "a" * 50],
)
def test_time_is_linear_whatever_the_pattern(pattern: str) -> None:
    assert Search(pattern).matches("a" * 30_000 + "b") == (
        "c" not in pattern and "$" not in pattern
    )


def test_counts_inside_counts_are_refused_before_they_are_written_out() -> None:
    with pytest.raises(PatternTooCostly, match="too large"):
        Search("((((a{99}){99}){99}){99}){99}")


def test_the_memory_is_emptied_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "MAX_MEMORY", 50)
    search = Search("x.*y")

    assert not search.matches("".join(map(chr, range(200, 2000))))
    assert search.matches("x" + "".join(map(chr, range(200, 2000))) + "y")


def test_a_pattern_with_too_many_situations_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "MAX_WORK", 200_000)
    search = Search(f"(a|b)*a{'(a|b)' * 120}c")  # 2**120 sets of states

    with pytest.raises(PatternTooCostly, match="simpler"):
        for seed in range(1, 10_000):
            search.matches(bin(3**seed)[2:].replace("0", "a").replace("1", "b"))
