from __future__ import annotations

import dataclasses
import enum
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from agentflow.planner.canonical import NotCanonical, bound, canonical
from agentflow.planner.plan import ALL, Each, Node, Ref, Template
from agentflow.tools.spec import Parameter, ToolSpec


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.StrEnum):
    RED = "RED"


@dataclasses.dataclass
class Point:
    x: int
    y: Any = 0


class Model(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


DIFFERENT = [
    1,
    1.0,
    True,
    "1",
    b"1",
    0,
    0.0,
    -0.0,
    False,
    None,
    "",
    [],
    (),
    {},
    set(),
    frozenset(),
    [1],
    [[1]],
    [True],
    (1,),
    {"a": 1},
    {"a": True},
    {1: "a"},
    {"1": "a"},
    {1},
    Decimal(1),
    Decimal("1.0"),
    datetime(2020, 1, 1),
    datetime(2020, 1, 1, tzinfo=UTC),
    Path("a"),
    Colour.RED,
    Colour.BLUE,
    Level.RED,
    "RED",
    Point(1),
    Point(1, [1]),
    Model(name="a"),
    Model(name="b"),
    Model.model_validate({"name": "a", "more": 1}),
    Model.model_validate({"name": "a", "more": 2}),
    Ref(1),
    Ref(1, ("a",)),
    Ref(1, (ALL,)),
    Ref(1, ("*",)),
    Ref(1, (0,)),
    Ref(1, ("0",)),
    Template(("a", Ref(1))),
    Template((Ref(1), "a")),
    Each(Ref(1)),
    Each([1]),
]


def test_different_values_have_different_keys() -> None:
    keys = [canonical(value) for value in DIFFERENT]
    assert len(set(keys)) == len(DIFFERENT)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1, 2, 3}, {3, 2, 1}),
        (float("nan"), float("nan")),
        (Point(1, {"a": []}), Point(1, {"a": []})),
        (
            Model.model_validate({"name": "a", "x": 1, "y": 2}),
            Model.model_validate({"name": "a", "y": 2, "x": 1}),
        ),
        ([Ref(1, ("a", 0))], [Ref(1, ("a", 0))]),
    ],
)
def test_equal_values_have_equal_keys(one: Any, other: Any) -> None:
    assert canonical(one) == canonical(other)
    assert hash(canonical(one)) == hash(canonical(other))


def test_a_value_without_a_key_is_named_by_its_path() -> None:
    with pytest.raises(NotCanonical, match=r"^\.filters\[1\] is a object"):
        canonical({"filters": [1, object()]})


@pytest.mark.parametrize("value", [object(), len, Point, iter([])])
def test_what_has_no_faithful_text_has_no_key(value: Any) -> None:
    with pytest.raises(NotCanonical, match="no canonical form"):
        canonical(value)


def test_arguments_are_bound_to_parameter_names() -> None:
    spec = ToolSpec("f", (Parameter("a"), Parameter("b")))
    assert bound(Node("f", (1,), (("b", 2),)), spec) == {"a": 1, "b": 2}
    assert bound(Node("f", (1, 2, 3)), spec) == {"a": 1, "b": 2, 2: 3}
    assert bound(Node("f", (1,)), None) == {0: 1}
