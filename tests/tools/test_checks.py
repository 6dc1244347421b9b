"""Checks of single arguments: what they may say, and where they are asked."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from agentflow import Engine, Late, Stream, tool, workflow
from agentflow.errors import ArgumentError, DefinitionError, RunFailed
from agentflow.tools.tool import Tool


class Wrong(ValueError):
    """What a check may raise."""


def raises(value: Any) -> bool:
    raise Wrong("it is out of stock")


def checked(check: Any, kind: Any = str) -> Tool[..., Any]:
    """A tool with a check of its only argument."""

    async def look(key: Any) -> Any:
        return key

    look.__annotations__["key"] = kind
    return tool(pure=True, check={"key": check})(look)


async def ask(made: Tool[..., Any], value: Any) -> Any:
    """Call it in an engine; a failure is raised as it is."""

    @workflow
    async def flow() -> Any:
        return await made(value)

    async with Engine() as engine:
        try:
            return await engine.run(flow)
        except RunFailed as failed:
            raise failed.__cause__ or failed from None


@pytest.mark.parametrize("verdict", [True, None, 1])
async def test_true_or_nothing_accepts(verdict: Any) -> None:
    assert await ask(checked(lambda key: verdict), "x") == "x"


@pytest.mark.parametrize(
    ("check", "why"),
    [
        (lambda key: False, "it did not pass the check (given: 'x')"),
        (lambda key: "", "it did not pass the check (given: 'x')"),
        (lambda key: 0, "it did not pass the check (given: 'x')"),
        (lambda key: f"{key} is unknown", "x is unknown (given: 'x')"),
        (raises, "it is out of stock (given: 'x')"),
    ],
)
async def test_anything_else_rejects_and_says_why(check: Any, why: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        await ask(checked(check), "x")

    assert str(caught.value) == f"look: argument 'key': {why}"
    assert (caught.value.tool, caught.value.argument) == ("look", "key")


async def test_a_check_sees_the_value_as_the_tool_does() -> None:
    seen: list[Any] = []

    class Point(pydantic.BaseModel):
        x: int

    await ask(checked(seen.append, Point), {"x": "7"})

    assert seen and all(value == Point(x=7) for value in seen)


async def test_a_value_of_the_wrong_type_is_not_checked() -> None:
    with pytest.raises(ArgumentError, match="input should be a valid integer"):
        await ask(checked(raises, int), "many")


async def test_a_value_that_a_check_cannot_take_is_rejected() -> None:
    with pytest.raises(ArgumentError, match="argument 'key': ZeroDivisionError: division by zero"):
        await ask(checked(lambda key: 1 / 0), "x")


async def test_late_arguments_and_streams_are_checked_as_values() -> None:
    seen: list[Any] = []

    @tool(pure=True, check={"text": seen.append, "hint": seen.append})
    async def look(text: Stream[str], hint: Late[int]) -> str:
        return f"{await text.whole()} {await hint}"

    async with Engine(tools=[look]) as engine:
        assert await engine.run(engine.plan('$1 = look("x", 7)\nreturn $1')) == "x 7"
    assert set(seen) == {"x", 7}


def test_an_argument_without_a_type_can_be_checked() -> None:
    @tool(pure=True, check={"key": lambda key: key != 7 or "not seven"})
    async def look(key, other=1):  # type: ignore[no-untyped-def]  # as a user may write it
        return key

    assert look.signature.argument("key", 8) == 8
    with pytest.raises(ArgumentError, match="not seven"):
        look.signature.argument("key", 7)


def test_a_check_says_nothing_in_the_schema() -> None:
    assert checked(lambda key: True).spec.schema() == checked(None or str).spec.schema()


@pytest.mark.parametrize("value", ["x", ["x"], None])
def test_a_problem_within_a_value_says_where(value: Any) -> None:
    made = checked(lambda key: True, dict[str, list[int]])

    with pytest.raises(ArgumentError) as caught:
        made.signature.argument("key", {"a": [1, value]})

    assert caught.value.argument == "key.a.1"


# What is refused


async def patient(value: Any) -> bool:
    return True


@pytest.mark.parametrize(
    ("check", "told"),
    [
        ({"kee": bool}, "check= names no parameter 'kee' of it"),
        ({"key": patient}, "a check is a plain function"),
        ({"key": 7}, "check= takes a function for each parameter"),
        (bool, "check= takes a function for each parameter"),
        (["key"], "check= takes a function for each parameter"),
    ],
)
def test_what_is_no_check_is_refused(check: Any, told: str) -> None:
    with pytest.raises(DefinitionError, match=told):

        @tool(check=check)
        async def look(key: str) -> None: ...
