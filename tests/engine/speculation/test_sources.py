"""Sources of candidates that are no good."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentflow import Engine, events, tool, workflow


@workflow
async def idle(seconds: float) -> None:
    await asyncio.sleep(seconds)


@workflow
async def buy(seconds: float, tool: Any, query: str) -> Any:
    await asyncio.sleep(seconds)
    return await tool(query)


async def test_a_source_that_raises_is_dropped_with_one_warning_and_harms_nothing(
    lab: Any, scripted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def oops(trail: Any) -> Any:
        raise RuntimeError("no idea")

    @tool(reads="web")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    engine = lab.start(scripted(after=oops), tools=[search])

    assert await engine.run(buy, 1.0, search, "x") == "X"
    assert await engine.run(buy, 1.0, search, "x") == "X"

    assert capsys.readouterr().out.count("no more speculation") == 1


@pytest.mark.parametrize("probability", [float("nan"), -0.5, 1.5, "high", None])
async def test_a_source_that_names_no_proper_candidates_is_dropped(
    lab: Any, maybe: Any, probability: Any
) -> None:
    @tool(reads="web")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    engine = lab.start(maybe("search", probability, query="y"), tools=[search])

    assert await engine.run(buy, 1.0, search, "x") == "X"

    assert lab.calls == ["x"]


async def test_what_a_tool_does_to_its_arguments_does_not_change_the_candidate(
    lab: Any, maybe: Any, scripted: Any
) -> None:
    @tool(reads="web")
    async def pick(items: Any) -> str:
        items.append("more")
        return str(await lab.work(str(len(items)), 0.5))

    source = scripted(maybe("pick", items=["a"]))
    engine = lab.start(source, tools=[pick])

    await engine.run(idle, 1.0)

    assert source.says[0].arguments == {"items": ["a"]}
    assert lab.told(events.CallPredicted)[0].arguments == {"items": ["a"]}


def test_an_engine_takes_a_policy_or_yes_or_no() -> None:
    assert Engine(speculation=False).services.foresight is None
    assert Engine(speculation=True).services.foresight is not None
