"""Readers of what others wrote: they read it or say why not, in time that grows with the text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fuzz.files import file_targets
from tests.fuzz.fuzzing import Finding, fuzz, growth
from tests.fuzz.readers import text_targets
from tests.fuzz.target import Target

SIZE = 4_000
TIMES = 8

SLACK = 3.0
"""A text that is `TIMES` as long may take so many times more than `TIMES`: machines are busy.
Work that grows with the square takes `TIMES` times more."""

READERS = [*text_targets(), *file_targets()]
GROWING = [
    pytest.param(target, text, id=f"{target.name}-{number}")
    for target in READERS
    for number, text in enumerate(target.grows)
]


@pytest.mark.parametrize("target", READERS, ids=lambda target: target.name)
def test_what_cannot_be_read_is_refused_with_a_typed_error(target: Target) -> None:
    found = [
        finding
        for finding in fuzz(target, 1, lambda count: count < target.texts)
        if isinstance(finding, Finding)
    ]

    assert not found, "\n".join(map(str, found[:5]))


@pytest.mark.parametrize(("target", "text"), GROWING)
def test_a_longer_text_takes_longer_in_proportion(
    target: Target, text: Callable[[int], bytes]
) -> None:
    assert growth(target, text, SIZE, TIMES) <= TIMES * SLACK
