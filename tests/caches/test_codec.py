"""A value is kept only if JSON gives it back as it was, by the type its tool declares."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from typing_extensions import TypedDict

from agentflow import tool
from agentflow.caches.codec import Codec

NAN = float("nan")


class Size(enum.StrEnum):
    SMALL = "small"


class Pair(NamedTuple):
    left: int
    right: str


class Row(TypedDict):
    id: int


@dataclass
class Inner:
    numbers: set[int]
    at: datetime


@dataclass(slots=True)
class Outer:
    inner: Inner
    size: Size = Size.SMALL
    more: list[Inner] = field(default_factory=list)


class Model(BaseModel):
    inner: Inner
    by_day: dict[date, Decimal] = {}


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    anything: Any = None
    share: float = 0.0


class Secretive(BaseModel):
    shown: int = 1
    hidden: int = Field(default=1, exclude=True)
    _private: int = PrivateAttr(default=0)


@dataclass
class Loose:
    share: float
    anything: Any = None
    seen: list[int] = field(default_factory=list, init=False, compare=False)


class Cold(Open):
    degrees: int = 0


def codec(declared: Any) -> Codec:
    async def call() -> Any: ...

    call.__annotations__["return"] = declared
    return Codec(tool(call).signature)


INNER = Inner({1, 2}, datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=timezone(timedelta(hours=5.5))))


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (Any, {"a": [1, 1.0, True, None, "\0é", -0.0, 10**40, {}]}),
        (int | float, 1),
        (int | float, 1.0),
        (bytes, b"abc"),
        (set[int], {1, 2}),
        (frozenset[str], frozenset("ab")),
        (tuple[int, ...], (1, 2)),
        (tuple[int, str], (1, "2")),
        (dict[int, str], {1: "a"}),
        (date, date(2024, 1, 1)),
        (time, time(1, 2, 3, 4)),
        (datetime, datetime(2024, 1, 1)),
        (datetime, datetime(2024, 1, 1, tzinfo=UTC)),
        (timedelta, timedelta(days=-1, microseconds=1)),
        (Decimal, Decimal("1.00")),
        (UUID, UUID(int=5)),
        (Path, Path("a/b")),
        (Size, Size.SMALL),
        (Pair, Pair(1, "2")),
        (Row, {"id": 1}),
        (None, None),
        (Outer, Outer(INNER, more=[INNER])),
        (list[Outer | Model], [Outer(INNER), Model(inner=INNER, by_day={date(2024, 1, 1): Decimal(1)})]),
        (Open, Open.model_validate({"anything": [1, "2"], "extra": {"a": 1}})),
    ],
)  # fmt: skip
def test_a_value_comes_back_by_its_declared_type(declared: Any, value: Any) -> None:
    kept = codec(declared)
    data = kept.encode(value)
    assert data is not None
    back = kept.decode(data)
    assert back == value
    assert type(back) is type(value)


def test_whoever_decodes_has_a_value_of_their_own() -> None:
    kept = codec(Outer)
    data = kept.encode(Outer(INNER))
    assert data is not None
    one, other = kept.decode(data), kept.decode(data)
    one.inner.numbers.add(3)
    assert other.inner.numbers == INNER.numbers == {1, 2}


def test_items_of_a_generator_come_back_as_their_type() -> None:
    async def items() -> AsyncIterator[Pair]:
        yield Pair(1, "2")

    kept = Codec(tool(items).signature)
    data = kept.encode([Pair(1, "2")])
    assert data is not None
    assert type(kept.decode(data)[0]) is Pair


class Summer(tzinfo):
    """An offset that depends on the time of the year."""

    def utcoffset(self, at: datetime | None) -> timedelta | None:
        return None if at is None else timedelta(hours=2 if 3 < at.month < 10 else 1)

    def dst(self, at: datetime | None) -> timedelta | None:
        return None if at is None else timedelta()

    def tzname(self, at: datetime | None) -> str:
        return "summer"


def secretive(hidden: int, private: int) -> Secretive:
    made = Secretive(hidden=hidden)
    made._private = private
    return made


def with_seen() -> Loose:
    made = Loose(1.0)
    made.seen.append(3)
    return made


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (Any, (1, 2)),
        (Any, {1: "a"}),
        (Any, {1, 2}),
        (Any, b"abc"),
        (Any, date(2024, 1, 1)),
        (Any, Size.SMALL),
        (Any, [{"a": Size.SMALL}]),
        (Any, object()),
        (Any, Open()),
        (Any, NAN),
        (float, NAN),
        (float, float("inf")),
        (float, 1),
        (str, "\ud800"),
        (bytes, b"\xff"),
        (set[Any], {Size.SMALL}),
        (datetime, datetime(2024, 1, 1, tzinfo=Summer())),
        (datetime, datetime(2024, 1, 1, fold=1)),
        (list[Open], [Cold(degrees=3)]),
        (Open, Open(anything=(1,))),
        (Open, Open(anything=Size.SMALL)),
        (Open, Open.model_validate({"extra": Size.SMALL})),
        (Open, Open.model_construct(share=1)),
        (Secretive, secretive(2, 0)),
        (Secretive, secretive(1, 2)),
        (Loose, Loose(1)),
        (Loose, Loose(1.0, Size.SMALL)),
        (Loose, with_seen()),
    ],
)
def test_a_value_that_json_does_not_give_back_as_it_was_is_not_encoded(
    declared: Any, value: Any
) -> None:
    assert codec(declared).encode(value) is None


class Hostile:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = object.__hash__


def test_a_value_that_cannot_be_compared_is_not_encoded() -> None:
    assert codec(Any).encode([Hostile()]) is None


@pytest.mark.parametrize("data", [b"", b"{", b'"text"', b'{"id": "x"}', b"\xff", b"[1]"])
def test_data_of_another_type_is_refused(data: bytes) -> None:
    kept = codec(Row)
    with pytest.raises(ValueError, match="valid"):
        kept.decode(data)


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=4)
        | st.lists(inner, max_size=2).map(tuple)
    ),
    max_leaves=10,
)


@given(JSONISH)
def test_what_is_encoded_is_given_back_to_the_letter(value: Any) -> None:
    kept = codec(Any)
    if (data := kept.encode(value)) is not None:
        assert repr(kept.decode(data)) == repr(value)
