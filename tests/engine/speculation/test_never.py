"""What is never guessed at, and with whose tools."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentflow import Context, events, tool, workflow
from agentflow.planner.plan import Node, Plan


class Session:
    """The business of one run."""

    def __init__(self, name: str, lab: Any) -> None:
        self.name = name
        self.lab = lab

    async def search(self, query: str) -> str:
        return str(await self.lab.work(f"{self.name} {query}", 0.1))


noted_calls: list[str] = []


@tool(reads="web")
async def noted(query: str) -> str:
    noted_calls.append(query)
    await asyncio.sleep(0.1)
    return query


@pytest.fixture
def notes() -> list[str]:
    noted_calls.clear()
    return noted_calls


@workflow
async def idle(seconds: float) -> None:
    await asyncio.sleep(seconds)


@pytest.mark.parametrize(
    "kind",
    [
        {"writes": "web"},
        {"writes": "web", "idempotent": True},
        {},
        {"reads": "web", "ttl": 0},
    ],
)
async def test_only_calls_that_may_be_repeated_unseen_are_guessed_at(
    lab: Any, maybe: Any, kind: dict[str, Any]
) -> None:
    @tool(**kind)
    async def act(query: str) -> str:
        return str(await lab.work(query))

    engine = lab.start(maybe("act", query="x"), tools=[act])

    await engine.run(idle, 5.0)

    assert lab.calls == []


@pytest.mark.parametrize(
    "arguments", [{}, {"query": 3}, {"query": "x", "more": 1}, {"query": "x", "self": None}]
)
async def test_calls_that_could_not_be_made_are_not_guessed_at(
    lab: Any, maybe: Any, arguments: dict[str, Any]
) -> None:
    @tool(reads="web")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    engine = lab.start(maybe("search", **arguments), maybe("nothing", query="x"), tools=[search])

    await engine.run(idle, 5.0)

    assert lab.calls == []
    assert lab.told(events.CallPredicted) == []


async def test_a_result_that_cannot_be_kept_is_guessed_at_only_once(lab: Any, maybe: Any) -> None:
    @tool(pure=True)
    async def odd(query: str) -> object:
        await lab.work(query)
        return object()

    engine = lab.start(maybe("odd", query="x"), maybe("odd", query="y"), tools=[odd], breadth=1)

    await engine.run(idle, 9.0)
    await engine.run(idle, 9.0)

    assert lab.calls == ["x"]
    assert lab.wasted() == ["its result cannot be kept"]


async def test_a_run_guesses_with_its_own_tools_only(lab: Any, maybe: Any) -> None:
    @tool(reads="web")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    @tool(pure=True)
    async def wait(seconds: float) -> None:
        await asyncio.sleep(seconds)

    engine = lab.start(maybe("search", query="x"), tools=[search])

    await engine.run(Plan((Node("wait", (3.0,)), Node("wait", (4.0,)))), tools=[wait])

    assert lab.calls == []


async def test_a_workflow_guesses_with_the_tools_that_it_called_before(
    lab: Any, maybe: Any, notes: list[str]
) -> None:
    engine = lab.start(maybe("noted", query="x"))

    @workflow
    async def ask(query: str) -> None:
        await asyncio.sleep(1)
        await noted(query)

    await engine.run(ask, "a")
    notes.clear()
    run = engine.start(ask, "b")
    await asyncio.sleep(0.5)

    assert notes == ["x"]
    await run


@pytest.mark.parametrize("bound", [True, False])
async def test_a_tool_that_belongs_to_one_run_alone_is_not_used_by_others(
    lab: Any, maybe: Any, bound: bool
) -> None:
    @workflow
    async def ask(name: str) -> None:
        session = Session(name, lab)

        async def search(query: str) -> str:
            return await session.search(query)

        await asyncio.sleep(1)
        await tool(reads="web")(session.search if bound else search)("a")
        await asyncio.sleep(1)

    engine = lab.start(maybe("search", query="x"))

    await engine.run(ask, "one")
    await engine.run(ask, "two")

    assert lab.calls == ["one a", "one x", "two a", "two x"]


async def test_only_origins_of_this_run_and_allowed_ones_are_contacted(
    lab: Any, maybe: Any
) -> None:
    @tool(reads="web")
    async def fetch(url: str, note: str = "") -> str:
        return str(await lab.work(url, 0.1))

    @workflow
    async def ask() -> None:
        await asyncio.sleep(1)
        await fetch("https://seen.example/1")
        await asyncio.sleep(1)

    urls = [
        "https://seen.example/2",
        "https://ok.example/1",
        "https://evil.example/1",
        "http://seen.example/1",
        "https://seen.example@evil.example/1",
        "https://seen.example:8443/1",
    ]
    guesses = [maybe("fetch", url=url) for url in urls]
    hidden = maybe("fetch", url="none", note="and https://evil.example/2")
    engine = lab.start(*guesses, hidden, tools=[fetch], origins=("https://ok.example",))

    await engine.run(ask)

    assert lab.calls == ["https://ok.example/1", "https://seen.example/1", "https://seen.example/2"]


async def test_a_guess_has_no_place_in_the_run(lab: Any, maybe: Any) -> None:
    seen: list[Context] = []

    @tool(reads="web")
    async def search(query: str, context: Context) -> str:
        seen.append(context)
        context.emit("half")
        return query

    engine = lab.start(maybe("search", query="x"), tools=[search])

    await engine.run(idle, 1.0)

    assert [context.idempotency_key for context in seen] == [""]
    assert lab.told(events.NodeEmitted) == []
