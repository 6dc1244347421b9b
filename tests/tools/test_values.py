from __future__ import annotations

import datetime
import threading
from dataclasses import dataclass, field
from typing import Any

import pydantic
import pytest

from agentflow.tools.values import Outcome, as_text, fresh, plain


class Model(pydantic.BaseModel):
    items: list[int] = []


class Frozen(pydantic.BaseModel, frozen=True):
    n: int = 0


@dataclass
class Data:
    items: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sealed:
    items: list[int]


class Other:
    pass


def test_nobody_sees_anothers_changes_in_containers_models_and_dataclasses() -> None:
    value: dict[str, Any] = {
        "list": [1, [2]], "tuple": ([3],), "set": {4}, "bytes": bytearray(b"5"),
        "model": Model(items=[6]), "data": Data([7]), "sealed": Sealed([8]),
    }  # fmt: skip
    twin = fresh(value)
    assert twin == value
    twin["list"][1].append(0)
    twin["tuple"][0].append(0)
    twin["set"].add(0)
    twin["bytes"].append(0)
    twin["model"].items.append(0)
    twin["data"].items.append(0)
    twin["sealed"].items.append(0)
    assert value == {
        "list": [1, [2]], "tuple": ([3],), "set": {4}, "bytes": bytearray(b"5"),
        "model": Model(items=[6]), "data": Data([7]), "sealed": Sealed([8]),
    }  # fmt: skip


@pytest.mark.parametrize(
    "value", ["text", 5, None, b"x", range(3), frozenset({1}), Frozen(), Other(), ValueError("x")]
)
def test_what_cannot_change_or_cannot_be_copied_is_passed_as_it_is(value: Any) -> None:
    assert fresh(value) is value
    assert fresh([value])[0] is value


def test_a_dataclass_may_hold_what_cannot_be_copied() -> None:
    lock = threading.Lock()
    outcome = fresh(Outcome("failed", [1], error=ValueError(lock)))
    assert outcome.status == "failed" and outcome.value == [1]


def test_an_outcome_is_ok_only_with_a_value() -> None:
    assert Outcome("done", 1).ok
    assert not any(Outcome(status).ok for status in ("failed", "skipped", "cancelled"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"), (5, "5"), (None, "null"), (True, "true"), ({"a": [1, "é"]}, '{"a": [1, "é"]}'),
        (Model(items=[1]), '{"items": [1]}'), (Data([1]), '{"items": [1]}'), ({1, }, "[1]"),
        (datetime.date(2026, 1, 2), '"2026-01-02"'),
    ],
)  # fmt: skip
def test_values_stand_in_text_as_json(value: Any, text: str) -> None:
    assert as_text(value) == text


def test_what_has_no_json_form_is_left_as_it_is() -> None:
    thing = Other()
    assert plain({"a": (thing, ValueError("bad")), 5: {"b": Model()}}) == {
        "a": [thing, "ValueError: bad"],
        "5": {"b": {"items": []}},
    }


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Holder(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    thing: Any


def test_what_cannot_be_dumped_is_left_as_it_is() -> None:
    loop: list[Any] = []
    loop += [loop, loop]
    for value in (Holder(thing=Other()), Unspeakable(), loop):
        assert plain(value) is value
    held = Holder(thing=Other())
    assert plain({"a": held, "b": (1,)}) == {"a": held, "b": [1]}
