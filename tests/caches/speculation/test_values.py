"""What a call gave the last time, and how sure it is that it gives it again."""

from __future__ import annotations

from typing import Any

import pytest

from agentflow.caches.speculation.values import LARGEST, GuardMemory, ValueMemory


def test_nothing_is_known_of_a_call_that_was_never_made() -> None:
    assert ValueMemory().guess("look", {"key": "a"}) is None


def test_the_last_value_is_the_guess_and_surer_the_more_often_it_was_the_same() -> None:
    memory = ValueMemory()
    sure = []
    for _ in range(4):
        memory.note("look", {"key": "a"}, {"n": 1})
        value, probability = memory.guess("look", {"key": "a"}) or (None, 0.0)
        sure.append(probability)
        assert value == {"n": 1}

    assert sure[0] == 0.5
    assert sure == sorted(set(sure))


def test_a_value_that_changes_is_less_sure() -> None:
    memory = ValueMemory()
    for number in range(8):
        memory.note("look", {"key": "a"}, number)

    value, probability = memory.guess("look", {"key": "a"}) or (None, 1.0)
    assert value == 7
    assert probability < 0.1


def test_a_call_with_new_arguments_is_guessed_by_what_its_tool_mostly_gives() -> None:
    memory = ValueMemory()
    for key in "abcdef":
        memory.note("flag", {"key": key}, True)
        memory.note("name", {"key": key}, key)

    value, probability = memory.guess("flag", {"key": "new"}) or (None, 0.0)
    assert value is True
    assert probability == pytest.approx(5.5 / 6)
    assert (memory.guess("name", {"key": "new"}) or ("", 1.0))[1] < 0.1


@pytest.mark.parametrize("value", [object(), {1, 2}, "x" * (LARGEST + 1)])
def test_values_that_are_no_data_or_too_large_are_not_guessed(value: Any) -> None:
    memory = ValueMemory()
    memory.note("look", {"key": "a"}, value)

    assert memory.guess("look", {"key": "a"}) is None


def test_a_guess_belongs_to_who_asked_for_it() -> None:
    memory = ValueMemory()
    memory.note("look", {}, [1])
    first = memory.guess("look", {})
    assert first is not None
    first[0].append(2)

    assert (memory.guess("look", {}) or (None,))[0] == [1]


def test_the_calls_made_longest_ago_are_forgotten() -> None:
    memory = ValueMemory(limit=3)
    for key in "abcd":
        memory.note(f"look_{key}", {}, key)

    assert memory.guess("look_a", {}) is None
    assert memory.guess("look_d", {}) is not None


def test_guards_hold_as_often_as_they_did() -> None:
    guards = GuardMemory()
    assert guards.probability("act") == 0.5
    for _ in range(18):
        guards.note("act", held=False)

    assert guards.probability("act") == pytest.approx(0.05)
    assert guards.probability("other") == 0.5
