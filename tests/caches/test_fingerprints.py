"""The version of a tool that declares none: what its code does, and the state it holds."""

from __future__ import annotations

import functools
import os
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from agentflow.caches.keys import fingerprint


class Opaque:
    pass


def made(source: str, name: str = "fn") -> Callable[..., Any]:
    """A function from source; its file and lines are never those of another."""
    space: dict[str, Any] = {"__name__": "module", "functools": functools}
    exec(compile(textwrap.dedent(source), f"<{id(space)}>", "exec"), space)  # noqa: S102  # written below
    fn: Callable[..., Any] = space[name]
    return fn


FIRST = """
async def fn(a, b=1):
    return a + b
"""


@pytest.mark.parametrize(
    "other",
    [
        FIRST.replace("a + b", "a - b"),
        FIRST.replace("b=1", "b=2"),
        FIRST.replace("b=1", "*, b=1"),
        FIRST.replace("return a + b", "return a + b + 1"),
        FIRST.replace("return a + b", "return a.real + b"),
        FIRST.replace("return a + b", "return len(a) + b"),
        FIRST.replace("return a + b", "return (lambda c: c + b)(a)"),
        FIRST.replace("return a + b", "return (lambda c: c - b)(a)"),
        FIRST.replace("async def", "def"),
        FIRST.replace("return a + b", "try:\n        return a + b\n    except ValueError: pass"),
        FIRST.replace("return a + b", "return a in {'x', 'y'}"),
        FIRST.replace("return a + b", "return a in {'x', 'z'}"),
    ],
)
def test_another_source_is_another_version(other: str) -> None:
    assert fingerprint(made(other)) != fingerprint(made(FIRST))
    assert fingerprint(made(other)) == fingerprint(made("\n\n" + other))


CLOSURE = """
def outer(held, step=lambda n: n + 1):
    def fn(a):
        return step(a) + held
    return fn
"""


def test_what_a_function_closes_over_is_part_of_its_version() -> None:
    outer = made(CLOSURE, "outer")
    versions = [
        fingerprint(outer(1)),
        fingerprint(outer(1.0)),
        fingerprint(outer({"a": [1]})),
        fingerprint(outer(1, lambda n: n + 2)),
        fingerprint(functools.partial(outer(1), 1)),
        fingerprint(functools.partial(outer(1), 2)),
        fingerprint(functools.partial(outer(1), a=1)),
    ]
    assert len(set(versions)) == len(versions)
    assert fingerprint(outer({"a": [1]})) == fingerprint(outer({"a": [1]}))


WRAPPED = """
def loud(inner):
    @functools.wraps(inner)
    def call(a):
        return inner(a) + 1
    return call

def plain(a):
    return a * 2

fn = loud(plain)
"""


def test_a_decorator_is_part_of_the_version_of_what_it_decorates() -> None:
    versions = {
        fingerprint(made(WRAPPED)),
        fingerprint(made(WRAPPED.replace("+ 1", "+ 2"))),
        fingerprint(made(WRAPPED.replace("* 2", "* 3"))),
    }
    assert len(versions) == 3


class Stateful:
    def method(self) -> None: ...

    async def __call__(self) -> None: ...


def unbound() -> Callable[[], Any]:
    if os.sep == "":
        later = 1

    def fn() -> Any:
        return later

    return fn


@pytest.mark.parametrize(
    "fn", [Stateful().method, Stateful(), len, made(CLOSURE, "outer")(Opaque()), unbound()]
)
def test_a_function_with_state_that_cannot_be_told_has_a_version_of_its_own(fn: Any) -> None:
    assert fingerprint(fn) != fingerprint(fn)


def test_a_function_that_closes_over_itself_has_a_version_of_its_own() -> None:
    def fn(n: int) -> int:
        return fn(n - 1)

    assert fingerprint(fn) != fingerprint(fn)
