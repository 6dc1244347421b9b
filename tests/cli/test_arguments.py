"""Words of the command line become arguments by the signature."""

from __future__ import annotations

import datetime
from typing import Any, Literal

import pytest

from agentflow import tool
from agentflow.cli.arguments import read_arguments
from agentflow.errors import ArgumentError


@tool(pure=True)
def call(
    text: str,
    number: int = 1,
    ratio: float = 0.5,
    flag: bool = False,
    items: list[str] | None = None,
    either: int | str = 0,
    anything: Any = None,
    *,
    day: datetime.date | None = None,
    mode: Literal["fast", "slow"] = "fast",
) -> None:
    """Take one of each."""


@tool(pure=True)
def loose(*rest: int, **named: float) -> None:
    """Take anything."""


@pytest.mark.parametrize(
    ("words", "args", "kwargs"),
    [
        (["5"], ("5",), {}),
        (["null", "5"], ("null", 5), {}),
        (["a b", "number=7", "ratio=2"], ("a b",), {"number": 7, "ratio": 2.0}),
        (["x", "flag=true"], ("x",), {"flag": True}),
        (["x", "flag=no"], ("x",), {"flag": False}),
        (["x", 'items=["a", "b"]'], ("x",), {"items": ["a", "b"]}),
        (["x", "items=null"], ("x",), {"items": None}),
        (["x", "either=5"], ("x",), {"either": "5"}),
        (["x", 'anything={"a": 1}'], ("x",), {"anything": {"a": 1}}),
        (["x", "anything=plain"], ("x",), {"anything": "plain"}),
        (["x", "day=2026-11-20"], ("x",), {"day": datetime.date(2026, 11, 20)}),
        (["x", "mode=slow"], ("x",), {"mode": "slow"}),
        (["text=a=b"], (), {"text": "a=b"}),
        (["https://x.example/?a=b"], ("https://x.example/?a=b",), {}),
    ],
)
def test_words_are_read_by_the_type_of_their_parameter(
    words: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    assert read_arguments(words, call) == (args, kwargs)


def test_further_words_and_names_go_where_the_signature_is_open() -> None:
    assert read_arguments(["1", "2", "x=3"], loose) == ((1, 2), {"x": 3.0})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x", "numbr=5"], "Did you mean 'number'?"),
        (["x", "number=five"], "number"),
        (["x", "mode=medium"], "mode"),
        ([], "required"),
        (["x", "1", "0.5", "true", "[]", "1", "1", "2026-11-20"], "no such parameter"),
    ],
)
def test_what_does_not_fit_is_said(words: list[str], said: str) -> None:
    with pytest.raises(ArgumentError, match="call") as raised:
        read_arguments(words, call)

    assert said in str(raised.value)
