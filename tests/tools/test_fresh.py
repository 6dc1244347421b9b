"""`fresh`: a value that its receiver may change without anybody else seeing it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel

from agentflow.errors import CallSkipped
from agentflow.tools.values import Outcome, fresh


@dataclass
class Basket:
    items: list[str]
    notes: dict[str, list[int]] = field(default_factory=dict, init=False)


@dataclass(frozen=True, slots=True)
class Sealed:
    content: list[Basket]


class Model(BaseModel):
    items: list[str]


@pytest.mark.parametrize(
    ("make", "inner"),
    [
        (lambda items: [items], lambda value: value[0]),
        (lambda items: {"items": [items]}, lambda value: value["items"][0]),
        (lambda items: (items, 1), lambda value: value[0]),
        (Basket, lambda value: value.items),
        (lambda items: Sealed([Basket(items)]), lambda value: value.content[0].items),
        (lambda items: Model(items=items), lambda value: value.items),
        (lambda items: Outcome("done", items), lambda value: value.value),
    ],
    ids=["list", "dict", "tuple", "dataclass", "frozen dataclass", "pydantic model", "outcome"],
)
def test_what_can_change_is_copied_all_the_way_down(make: Any, inner: Any) -> None:
    value = make(["a"])

    inner(fresh(value)).append("b")

    assert inner(value) == ["a"]
    assert fresh(value) == value


def test_attributes_without_a_place_in_the_constructor_are_copied() -> None:
    basket = Basket(["a"])
    basket.notes["a"] = [1]

    fresh(basket).notes["a"].append(2)

    assert basket.notes == {"a": [1]}


def test_a_dataclass_is_not_built_anew() -> None:
    @dataclass
    class Counted:
        number: int

        def __post_init__(self) -> None:
            self.number += 1

    assert fresh(Counted(1)).number == 2


def test_an_outcome_keeps_its_error() -> None:
    error = CallSkipped("a guard was false", tool="look")  # copy.deepcopy cannot build it anew

    assert fresh([Outcome("skipped", error=error)])[0].error is error


def test_objects_of_other_classes_are_passed_as_they_are() -> None:
    value = object()

    assert fresh([value])[0] is value
