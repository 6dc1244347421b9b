"""What calls wait for that need nothing more is told, and nothing is told of calls that do not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentflow import Engine, Limits, events, tool, workflow


@tool(pure=True)
async def nap(n: int, seconds: float = 1.0) -> int:
    await asyncio.sleep(seconds)
    return n


@workflow
async def three(limit: int | None = None, rate: float | None = None) -> None:
    given: dict[str, Any] = {
        name: value for name, value in (("limit", limit), ("rate", rate)) if value
    }
    narrow = nap.with_(**given) if given else nap
    await asyncio.gather(*(narrow(n) for n in range(3)))


async def waits(engine: Engine, **given: Any) -> list[tuple[int, str, float]]:
    """What the three calls waited for, and how long."""
    seen: list[events.Event] = []
    engine.subscribe(seen.append)
    await engine.run(three, **given)
    return [
        (event.node, event.why, event.seconds)
        for event in seen
        if isinstance(event, events.NodeWaited)
    ]


async def test_a_place_among_the_calls_of_a_tool_is_waited_for(engine: Engine) -> None:
    assert await waits(engine, limit=1) == [(1, "tool", 1.0), (2, "tool", 2.0)]


async def test_a_place_among_the_calls_of_a_run_is_waited_for() -> None:
    async with Engine(limits=Limits(run=2)) as engine:
        assert await waits(engine) == [(2, "run", 1.0)]


async def test_a_turn_is_waited_for_where_so_many_may_begin_a_second(engine: Engine) -> None:
    told = await waits(engine, rate=1)

    assert {why for _, why, _ in told} == {"rate"}
    assert [seconds for _, _, seconds in told] == pytest.approx([1.0, 2.0])


async def test_where_there_is_room_nothing_is_waited_for(engine: Engine) -> None:
    assert await waits(engine) == []


async def test_a_wait_is_told_of_before_its_call_begins(engine: Engine) -> None:
    seen: list[str] = []
    engine.subscribe(lambda event: seen.append(events.event_name(type(event))))

    await engine.run(three, limit=1)

    assert seen.index("node_waited") < seen.index("node_started", seen.index("node_waited"))
    assert seen.count("node_waited") == 2
