"""The decorator, and tools outside of workflows."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from agentflow import Context, Engine, Plan, Tool, tool, workflow
from agentflow.errors import ArgumentError, DefinitionError
from agentflow.planner.plan import Node


@tool(reads="web/{query}", timeout="8s", retries=2)
async def search(query: str, k: int = 5) -> list[str]:
    """Search the web."""
    return [query] * k


@tool
def blocking(n: int) -> str:
    return f"{n} in {threading.current_thread().name}"


@tool
async def count(n: int) -> AsyncIterator[int]:
    for k in range(n):
        yield k


async def test_outside_a_workflow_a_tool_is_the_function_it_decorates() -> None:
    assert await search("x", k=2) == ["x", "x"]
    assert search.name == "search" and search.__doc__ == "Search the web."
    assert inspect.iscoroutinefunction(search) and asyncio.iscoroutinefunction(search)
    assert "MainThread" not in await blocking(1)
    assert await count(3) == [0, 1, 2]
    assert [*await asyncio.gather(search("a", 1), search("b", 1))] == [["a"], ["b"]]


async def test_outside_a_workflow_a_map_runs_side_by_side() -> None:
    assert await search.map(["a", "b"], k=1) == [["a"], ["b"]]
    with pytest.raises(ArgumentError, match="needs a list first"):
        await search.map(5)  # type: ignore[call-overload]  # on purpose


async def test_outside_a_run_the_context_is_detached() -> None:
    @tool
    async def work(ctx: Context = Context()) -> tuple[str, float | None]:
        ctx.emit("nobody hears")
        return ctx.idempotency_key, ctx.remaining()

    assert await work() == ("", None)


def test_a_tool_says_what_planners_must_know() -> None:
    spec = search.spec
    assert (spec.name, str(spec.effect), spec.description) == (
        "search", "reads(web/{query})", "Search the web.",
    )  # fmt: skip
    assert spec.schema() == {
        "type": "object",
        "properties": {"query": {"type": "string"}, "k": {"type": "integer", "default": 5}},
        "required": ["query"],
        "additionalProperties": False,
    }
    assert spec.returns == {"type": "array", "items": {"type": "string"}}
    assert repr(search) == "<tool search: reads(web/{query})>"


def test_an_override_is_another_view_of_the_same_tool() -> None:
    quick = search.with_(timeout=1)
    assert quick.origin is search and quick.policy.timeout == 1.0
    assert quick.policy.retries == 2 and search.policy.timeout == 8.0
    assert quick.with_(retries=0).policy.timeout == 1.0
    assert type(quick) is type(search)


def test_an_override_of_a_workflow_stays_one() -> None:
    @workflow
    async def flow() -> None: ...

    assert flow.with_(timeout=3).origin is flow


@pytest.mark.parametrize(
    ("name", "fits"),
    [("search", True), ("my.search-2", True), ("_x", True), ("2x", False), ("a b", False),
     ("", False), ("join", False), ("return", False), ("gather", False), ("é", False)],
)  # fmt: skip
def test_names_are_what_the_notation_can_hold(name: str, fits: bool) -> None:
    async def fn() -> None: ...

    if fits:
        assert tool(name=name)(fn).name == name
    elif name:
        with pytest.raises(DefinitionError, match="cannot be called"):
            tool(name=name)(fn)


def test_a_function_without_a_name_needs_one() -> None:
    with pytest.raises(DefinitionError, match=r"@tool\(name=...\)"):
        tool(lambda: None)
    assert tool(name="named")(lambda: None).name == "named"


def test_what_is_no_function_cannot_be_decorated() -> None:
    for thing in (5, "text", None):
        with pytest.raises(DefinitionError):
            tool()(thing)  # type: ignore[call-overload]  # on purpose


def test_a_plain_generator_is_refused() -> None:
    def items() -> Iterator[int]:
        yield 1

    with pytest.raises(DefinitionError, match="plain generator"):
        tool(items)


def test_a_method_is_refused_where_it_is_used() -> None:
    class Shop:
        @tool
        async def buy(self) -> None: ...

        async def sell(self, n: int) -> int:
            return n

    with pytest.raises(DefinitionError, match="is a method"):
        Shop().buy()
    assert isinstance(Shop.buy, Tool)
    assert [p.name for p in tool(Shop().sell).spec.parameters] == ["n"]


@pytest.mark.parametrize(
    "options",
    [
        {"pure": True, "reads": "web"}, {"idempotent": True}, {"writes": "x", "retries": 1},
        {"timeout": -1}, {"unknown": 1},
    ],
)  # fmt: skip
def test_a_declaration_that_contradicts_itself_is_refused(options: Any) -> None:
    with pytest.raises(DefinitionError):
        tool(**options)(search.fn)


def test_a_resource_names_parameters_that_are_there() -> None:
    async def fn(order_id: str) -> None: ...

    with pytest.raises(DefinitionError, match=r"'orders/\{order\}' names no parameter 'order'"):
        tool(writes="orders/{order}")(fn)
    assert tool(writes="orders/{order_id}")(fn)
    assert tool(writes="orders/{x}")(lambda_taking_anything)


async def lambda_taking_anything(**kwargs: Any) -> None: ...


async def test_whatever_gives_a_coroutine_is_awaited(anyio_backend: object) -> None:
    async def inner(n: int) -> int:
        return n + 1

    def wrapped(n: int) -> Any:
        return inner(n)

    class Callable:
        async def __call__(self, n: int) -> int:
            return n + 1

    made = [tool(wrapped), tool(name="object")(Callable())]
    for one in made:
        assert await one(1) == 2
    async with Engine(tools=made) as engine:
        nodes = (Node("wrapped", (1,)), Node("object", (1,)))
        assert await engine.run(Plan(nodes)) == {0: 2, 1: 2}
