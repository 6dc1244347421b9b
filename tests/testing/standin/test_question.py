"""Questions are read by rules: terms, phrases, sums, counts."""

from __future__ import annotations

import pytest

from agentflow.testing.standin.question import read_question
from agentflow.testing.standin.words import stem, variants, words


def terms(text: str) -> list[str]:
    return [term.text for term in read_question(text).terms]


def test_function_words_are_no_terms() -> None:
    assert terms("How does the virtual clock work?") == ["virtual", "clock"]
    assert read_question("How does the virtual clock work?").phrases == ("virtual clock",)


def test_names_come_first_and_are_exact() -> None:
    question = read_question("Where is `VirtualLoop.time` limited by max_matches or load()?")
    assert [t.text for t in question.terms if t.exact] == [
        "VirtualLoop.time",
        "max_matches",
        "load",
    ]
    assert question.terms[-1].text == "limited"


def test_file_names_are_exact() -> None:
    assert terms("What does agentflow/clock.py do?") == ["agentflow/clock.py"]


def test_a_term_is_asked_for_once_in_whatever_form() -> None:
    assert terms("Are plans planned by a planner?") == ["plans"]


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("What is 17*23?", "17*23"),
        ("what is 12 x (3 + 4)?", "12 * (3 + 4)"),
        ("Calculate 3 plus 4 times 2", "3 + 4 * 2"),
        ("How much is 1,000 divided by 8?", "1000 / 8"),
        ("2^10", "2**10"),
        ("What is Python 3.11?", ""),
        ("What changed from 1.2 to 1.3?", ""),
        ("What is the plan?", ""),
    ],
)
def test_a_sum_is_read_only_where_nothing_else_is_asked(text: str, expression: str) -> None:
    assert read_question(text).expression == expression


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("How many Python files are there?", "**/*.py"),
        ("How many files are there?", "**/*"),
        ("What is the number of .toml files?", "**/*.toml"),
        ("How many test files does it have?", "**/test_*"),
        ("How many retries are made?", ""),
    ],
)
def test_files_to_count_are_read_as_a_pattern(text: str, pattern: str) -> None:
    assert read_question(text).counted == pattern


def test_an_empty_question_asks_for_nothing() -> None:
    assert read_question("").terms == ()


@pytest.mark.parametrize(
    "family",
    [
        "plan plans planned planning planner",
        "cache caches caching cached",
        "execute execution executor executes",
        "speculate speculation speculative",
        "policy policies",
        "class classes",
    ],
)
def test_words_of_one_family_share_a_stem(family: str) -> None:
    assert len({stem(word) for word in family.split()}) == 1


def test_unlike_words_do_not_share_a_stem() -> None:
    assert len({stem(w) for w in ("plan", "plain", "process", "bus", "use", "user")}) >= 5


def test_identifiers_are_split_into_words() -> None:
    assert words("VirtualLoop read_file HTTPServer2") == [
        *("virtual", "loop", "read", "file", "http", "server", "2"),
    ]


def test_variants_are_other_spellings_each_once() -> None:
    assert variants("VirtualLoop")[:3] == ["Virtual", "Loop", "virtual_loop"]
    assert variants("speculation") == ["specul"]
    assert "virtual clock" not in variants("virtual clock")
