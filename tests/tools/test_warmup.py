"""Warm-ups: what may be one, when it runs and what it is told of, when nobody writes the call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentflow import Commit, Context, Engine, Late, Stream, Tool, Warm, tool, workflow
from agentflow.errors import DefinitionError, RunFailed

NONE = "tool 'fetch' takes 'link' from its warm-up and has none: decorate one with @fetch.warm"


def fetching() -> Tool[..., Any]:
    @tool(pure=True)
    async def fetch(url: str, port: int = 80, *, link: Warm[str]) -> str:
        return f"{url} by {link}"

    return fetch


# What is refused


@pytest.mark.parametrize("late", [False, True])
def test_it_takes_parameters_of_the_tool_that_may_come_late(late: bool) -> None:
    with pytest.raises(DefinitionError, match=r"@fetch.warm takes .*: it may take a Context, and"):
        if late:

            @fetching().warm
            async def connect(host: Late[str]) -> str:
                return ""
        else:

            @fetching().warm
            async def begin(url: str) -> str:
                return ""


def test_it_is_async() -> None:
    with pytest.raises(DefinitionError, match=r"@fetch\.warm decorates an 'async def'"):

        @fetching().warm
        def connect() -> str:
            return ""


def test_it_has_no_commit_and_no_warm_up_of_its_own() -> None:
    with pytest.raises(DefinitionError, match="comes before the call"):

        @fetching().warm
        async def connect(commit: Commit) -> str:
            return ""

    with pytest.raises(DefinitionError, match="comes before the call"):

        @fetching().warm
        async def begin(link: Warm[str]) -> str:
            return ""


def test_a_tool_has_one() -> None:
    fetch = fetching()

    @fetch.warm
    async def connect() -> str:
        return ""

    with pytest.raises(DefinitionError, match="tool 'fetch' has a warm-up already"):
        fetch.warm(connect)


async def test_a_tool_that_takes_what_nobody_warms_says_so() -> None:
    with pytest.raises(DefinitionError, match=NONE):
        await fetching()("u")


async def test_so_does_its_call_in_an_engine() -> None:
    fetch = fetching()

    @workflow
    async def flow() -> Any:
        return await fetch("u")

    async with Engine() as engine:
        with pytest.raises(RunFailed, match=NONE):
            await engine.run(flow)


# What it is told of, and when


async def test_it_runs_before_the_call_and_ends_after_it() -> None:
    said: list[str] = []

    @tool(pure=True)
    async def fetch(url: str, *, link: Warm[str]) -> str:
        said.append("fetch")
        return link

    @fetch.warm
    async def connect(ctx: Context) -> AsyncIterator[str]:
        said.append("connect")
        yield "link"
        said.append("close")

    made: Tool[..., Any] = fetch
    assert await made("u") == "link"
    assert said == ["connect", "fetch", "close"]


async def test_it_ends_after_a_call_that_fails() -> None:
    said: list[str] = []

    @tool(pure=True)
    async def fetch(url: str, *, link: Warm[str]) -> str:
        raise LookupError(url)

    @fetch.warm
    async def connect() -> AsyncIterator[str]:
        try:
            yield "link"
        finally:
            said.append("close")

    made: Tool[..., Any] = fetch
    with pytest.raises(LookupError):
        await made("u")
    assert said == ["close"]


async def test_it_is_told_of_arguments_and_defaults() -> None:
    fetch = fetching()

    @fetch.warm
    async def connect(url: Stream[str], port: Late[int]) -> str:
        return f"{await url.whole()}:{await port}"

    assert await fetch("u") == "u by u:80"
    assert await fetch("u", port=81) == "u by u:81"


async def test_what_it_gives_can_be_given_by_hand() -> None:
    fetch = fetching()

    @fetch.warm
    async def connect() -> str:
        raise AssertionError("it is not wanted")

    assert await fetch("u", link="mine") == "u by mine"


async def test_a_tool_called_differently_has_the_same_one() -> None:
    fetch = fetching()
    other = fetch.with_(timeout=3)

    @other.warm
    async def connect() -> str:
        return "link"

    assert await fetch("u") == await other("u") == "u by link"


async def test_plain_functions_take_what_was_warmed_up() -> None:
    @tool(pure=True)
    def load(name: str, *, model: Warm[dict[str, int]]) -> int:
        return model[name]

    @load.warm
    async def read() -> dict[str, int]:
        return {"a": 7}

    async with Engine(tools=[load]) as engine:
        assert await engine.run(engine.plan('$1 = load("a")\nreturn $1')) == 7
    made: Tool[..., Any] = load
    assert await made("a") == 7


async def test_each_call_has_its_own() -> None:
    count = 0
    fetch = fetching()

    @fetch.warm
    async def connect() -> str:
        nonlocal count
        count += 1
        return str(count)

    assert await fetch.map(["a", "b"]) == ["a by 1", "b by 2"]
