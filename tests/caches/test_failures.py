"""Failures are remembered as they were, without what they kept alive."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any, Self

import pytest

from agentflow.caches.failures import FAILURES, Failures, Remembered, twin_of

pytestmark = pytest.mark.virtual


class Plain(Exception):
    """Takes what it keeps."""


class Named(Exception):
    """Has to be told more than it keeps."""

    def __init__(self, text: str, *, code: int) -> None:
        super().__init__(text)
        self.code = code


class Stubborn(Exception):
    """Cannot be made again."""

    def __new__(cls, *args: Any, made: bool = False) -> Self:
        if not made:
            raise TypeError("not like this")
        return super().__new__(cls, *args)

    def __init__(self, *, made: bool) -> None:
        super().__init__()


class Big:
    """What a frame holds."""


def raised(error: Exception, cause: Exception | None = None) -> tuple[Exception, weakref.ref[Big]]:
    big = Big()
    try:
        try:
            raise cause or ValueError("before")
        except (Plain, ValueError) as first:
            raise error from (first if cause is not None else None)
    except type(error) as caught:
        return caught, weakref.ref(big)


def remembered(failures: Failures, ttl: float = 10) -> Exception | None:
    try:
        failures.check("key", (1,), ttl)
    except Remembered as known:
        return known.failure
    return None


@pytest.mark.parametrize(
    "error", [Plain("a", 2), Named("a", code=7), OSError(2, "gone", "file"), KeyError("k")]
)
def test_a_twin_says_the_same_and_keeps_no_frames(error: Exception) -> None:
    caught, _ = raised(error, cause=Plain("why"))
    caught.add_note("a note")
    twin = twin_of(caught)
    assert twin is not None
    assert (type(twin), str(twin), twin.args) == (type(error), str(error), error.args)
    assert vars(twin) == vars(error)
    assert repr(twin.__cause__) == "Plain('why')"
    assert caught.__traceback__ is not None, "whoever raised it still sees where"
    assert twin.__traceback__ is None


async def test_what_a_failure_kept_alive_is_let_go() -> None:
    failures = Failures()
    error, big = raised(Plain("x"), cause=Plain("why"))
    failures.note("key", (1,), error, 10)
    del error
    gc.collect()
    assert big() is None
    assert repr(remembered(failures)) == "Plain('x')"


async def test_every_caller_has_a_failure_of_his_own() -> None:
    failures = Failures()
    failures.note("key", (1,), raised(Plain("x"))[0], 10)
    first, second = remembered(failures), remembered(failures)
    assert first is not None
    assert second is not None
    assert first is not second
    first.add_note("only here")
    assert not hasattr(second, "__notes__")
    assert not hasattr(remembered(failures), "__notes__")


async def test_what_cannot_be_copied_is_not_remembered() -> None:
    failures = Failures()
    failures.note("key", (1,), Stubborn(made=True), 10)
    assert remembered(failures) is None
    assert len(failures) == 0


async def test_expired_failures_are_dropped() -> None:
    failures = Failures()
    for n in range(5):
        failures.note(str(n), (1,), Plain("x"), 0.01 * n)
    failures.note("key", (1,), Plain("x"), 0.01)
    await asyncio.sleep(0.05)
    assert remembered(failures) is None
    failures.note("other", (1,), Plain("y"), 10)
    assert len(failures) == 1


async def test_failures_that_are_remembered_are_limited_in_number() -> None:
    failures = Failures()
    failures.note("key", (1,), Plain("x"), 10)
    for n in range(FAILURES - 1):
        failures.note(str(n), (1,), Plain("x"), 10)
    assert remembered(failures) is not None
    failures.note("one more", (1,), Plain("x"), 10)
    assert remembered(failures) is None
    assert len(failures) == FAILURES


async def test_a_failure_of_before_a_write_is_forgotten() -> None:
    failures = Failures()
    failures.note("key", (0,), Plain("x"), 10)
    assert remembered(failures) is None
    assert len(failures) == 0
