"""Keys are equal exactly when the same code is called with the same values for the same user."""

from __future__ import annotations

import dataclasses
import enum
import math
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentflow import tool
from agentflow.caches.keys import Keys
from agentflow.errors import ArgumentError
from agentflow.tools.tool import Tool

NAN = float("nan")


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0


@dataclasses.dataclass
class Place:
    x: Any
    y: Any = 0


class Box(BaseModel):
    inside: Any
    size: int = 1


@tool(pure=True, version="1")
async def probe(value: Any, other: Any = 0) -> None: ...


def key_of(made: Tool[..., Any], *args: Any, **kwargs: Any) -> str:
    return Keys(made).key(*made.signature.validate(args, kwargs))


DIFFERENT: list[Any] = [
    None, False, True, 0, 1, -1, 0.0, -0.0, 1.0, NAN, math.inf, -math.inf, "", "0", "1", "None",
    "True", b"", b"1", 10**400, -(10**400), 10**400 + 1, [], (), {}, set(), frozenset(), [None],
    [[]], [()], ([],), [1, 2], [2, 1], (1, 2), [12], ["1", "2"], ["1,2"], [[1], 2], [1, [2]],
    {"a": 1}, {"a": 1.0}, {"a": True}, {"b": 1}, {"a": {"b": 1}}, {"a": 1, "b": 1}, {1: 1}, {"1": 1},
    {1.0: 1}, {True: 1}, [["a", 1]], {1}, {True}, {"1"}, frozenset({1}), "\ud800", "\udfff", "é",
    "e\u0301", "\0", Colour.RED, Colour.BLUE, "RED", Level.LOW, Point(1), Point(1.0), Place(1),
    Point(1, 1), {"x": 1, "y": 0}, Box(inside=1), Box(inside=True), Box(inside=Box(inside=1)),
    Box(inside=Point(1)), date(2024, 1, 1), datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1))), datetime(2024, 1, 1, fold=1),
    "2024-01-01", timedelta(1), Decimal(1), Decimal("1.0"), UUID(int=1), PurePosixPath("a"), "a",
]  # fmt: skip


def test_values_that_differ_in_value_or_type_have_different_keys() -> None:
    keys = {key_of(probe, value): value for value in DIFFERENT}
    assert len(keys) == len(DIFFERENT)


@pytest.mark.parametrize("value", DIFFERENT, ids=lambda value: repr(value)[:20])
def test_an_equal_value_has_the_same_key(value: Any) -> None:
    twin = dataclasses.replace(value) if isinstance(value, Point) else value
    if isinstance(value, list | dict | set):
        twin = type(value)(value)
    assert key_of(probe, twin) == key_of(probe, value)


def test_the_order_of_a_dict_does_not_matter_at_any_depth() -> None:
    one = {"a": 1, "b": [{"c": 1, "d": {1: 1, "e": 2}}]}
    other = {"b": [{"d": {"e": 2, 1: 1}, "c": 1}], "a": 1}
    assert key_of(probe, one) == key_of(probe, other)


@tool(pure=True)
async def many(a: int, b: int = 2, *rest: Any, c: int = 3, **more: Any) -> None: ...


def test_how_an_argument_is_given_does_not_matter() -> None:
    keys = {
        key_of(many, 1),
        key_of(many, a=1),
        key_of(many, 1, 2),
        key_of(many, 1, b=2),
        key_of(many, c=3, b=2, a=1),
        key_of(many, "1"),  # validated: an int
    }
    assert len(keys) == 1


def test_arguments_do_not_run_into_each_other() -> None:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((1, 2, "x", 1), {}),
        ((1, 2), {"x": 1}),
        ((1, 2, "x"), {}),
        ((1, 2, "x", 1, "y", 2), {}),
        ((1, 2, "x", 1), {"y": 2}),
        ((1, 2), {"x": 1, "y": 2}),
        ((1, 2, ["x", 1]), {}),
        ((1, 2, "s1:x", 1), {}),
    ]
    assert len({key_of(many, *args, **kwargs) for args, kwargs in calls}) == len(calls)


def test_a_keyword_may_be_called_like_a_positional_parameter() -> None:
    @tool(pure=True)
    async def get(name: str, /, **name_and_more: Any) -> None: ...

    keys = {key_of(get, "a", name="b"), key_of(get, "b", name="b"), key_of(get, "b", name="a")}
    assert len(keys) == 3
    assert Keys(get).named(("a",), {"name": "b", "x": 1}) == {"name": "a", "x": 1}


def test_tools_versions_and_scopes_do_not_share() -> None:
    def of(name: str, version: str) -> Keys:
        return Keys(tool(pure=True, name=name, version=version)(probe.fn))

    keys = [
        of("a", "1").key((1,), {}),
        of("b", "1").key((1,), {}),
        of("a", "2").key((1,), {}),
        of("a", "1").key((1,), {}, scope="x"),
        of("a", "1").key((1,), {}, scope="y"),
        of("a1", "").key((1,), {}),
    ]
    assert len(set(keys)) == len(keys)
    assert of("a", "1").key((1,), {}, scope="x") == of("a", "1").key((1,), {}, scope="x")


class Opaque:
    pass


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (Opaque(), "value"),
        ([1, Opaque()], "value[1]"),
        ({"a": [{"b": Opaque()}]}, "value.a[0].b"),
        (Point(1, Box(inside=(Opaque(),))), "value.y.inside[0]"),
    ],
)
def test_what_has_no_canonical_form_is_named(value: Any, where: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        key_of(probe, value)
    assert caught.value.argument == where
    assert f"probe: argument '{where}' cannot be part of a cache key" in str(caught.value)


def test_an_argument_without_a_name_is_named_by_its_place() -> None:
    with pytest.raises(ArgumentError) as caught:
        key_of(many, 1, 2, "x", [Opaque()])
    assert caught.value.argument == "*args[1][0]"


def test_what_is_nested_too_deeply_is_refused_and_not_fatal() -> None:
    value: Any = 0
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ArgumentError, match="nested too deeply"):
        Keys(probe).key((value,), {})


def test_what_is_nested_deeply_has_a_key() -> None:
    one: Any = 0
    other: Any = 0.0
    for _ in range(200):
        one, other = {"a": [one]}, {"a": [other]}
    assert key_of(probe, one) != key_of(probe, other)


# Every value, not only those above

LOOKALIKES = [
    None,
    0,
    False,
    0.0,
    -0.0,
    "",
    "0",
    b"",
    1,
    True,
    1.0,
    "1",
    NAN,
    Decimal(1),
    Level.LOW,
]
VALUES = st.recursive(
    st.sampled_from(LOOKALIKES) | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from(["", "a", "b", 0, False, None]), inner, max_size=3)
        | st.builds(Point, inner, inner)
    ),
    max_leaves=8,
)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        typed = {(type(key), key): value for key, value in other.items()}
        return len(one) == len(other) and all(
            (type(key), key) in typed and same(value, typed[type(key), key])
            for key, value in one.items()
        )
    if isinstance(one, Point):
        return same((one.x, one.y), (other.x, other.y))
    return repr(one) == repr(other)


def swapped(value: Any, chance: Any) -> Any:
    """The value, or one that looks like it."""
    if isinstance(value, list | tuple):
        kind = chance.choice((type(value), type(value), list, tuple))
        return kind(swapped(item, chance) for item in value)
    if isinstance(value, dict):
        return {key: swapped(item, chance) for key, item in reversed(value.items())}
    if isinstance(value, Point):
        return Point(swapped(value.x, chance), value.y)
    return chance.choice((value, value, value, *LOOKALIKES))


@given(value=VALUES, chance=st.randoms(use_true_random=False))
def test_keys_are_equal_exactly_when_the_values_are(value: Any, chance: Any) -> None:
    other = swapped(value, chance)
    assert (key_of(probe, value) == key_of(probe, other)) is same(value, other)


CALLS = st.tuples(
    st.lists(st.sampled_from(["a", "x", 1, 1.0]), min_size=2, max_size=5),
    st.dictionaries(st.sampled_from(["x", "y", "a_"]), st.sampled_from(["x", 1, 1.0]), max_size=2),
)


@given(one=CALLS, other=CALLS)
def test_keys_are_equal_exactly_when_all_arguments_are(one: Any, other: Any) -> None:
    @tool(pure=True, version="1")
    async def take(first: Any, /, second: Any, *rest: Any, **more: Any) -> None: ...

    keys = [key_of(take, *args, **kwargs) for args, kwargs in (one, other)]
    assert (keys[0] == keys[1]) is same(list(one), list(other))


SCRIPT = """
from agentflow import tool
from agentflow.caches.keys import Keys

def outer(words):
    @tool(pure=True)
    async def look(word: str, *, deep: bool = False, odd: float = 1.5) -> str:
        def inner(*parts):
            return [part for part in parts if part in {"one", "two", "three", "four"}][..., 1:]
        return str(inner(word, *words)) if deep else word
    return look

made = outer(frozenset({"a", "b", "c", "d", "e"}))
print(Keys(made).key(("x",), {"words": {"p", "q", "r", "s"}, "deep": True}))
"""


def test_keys_are_the_same_in_every_process() -> None:
    def key(seed: str) -> str:
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert key("1") == key("2") != ""
