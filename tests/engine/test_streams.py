"""Streams of events: whoever reads them slowly does not slow the run, nor fill the memory."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from agentflow import Budget, Engine, Limits, tool, workflow
from agentflow.errors import DefinitionError
from agentflow.events import TERMINAL, Event, EventsDropped, NodeFinished, RunStarted


@tool
async def one(number: int) -> int:
    return number


@workflow
async def many(calls: int) -> int:
    return sum([await one(number) for number in range(calls)])


async def test_a_slow_reader_is_told_in_brief_and_the_run_does_not_wait_for_it() -> None:
    async with Engine(limits=Limits(unread=10)) as engine:
        ended = asyncio.Event()
        engine.subscribe(lambda event: ended.set() if isinstance(event, TERMINAL) else None)
        found: list[Event] = []
        async for event in engine.stream(many, 50):
            found.append(event)
            await ended.wait()

    assert isinstance(found[0], RunStarted)
    assert [event.count for event in found if isinstance(event, EventsDropped)] == [140]
    assert isinstance(found[-1], TERMINAL)
    assert len(found) == 1 + 10 + 1 + 1  # taken, waiting, the summary, the end


async def test_a_quick_reader_misses_nothing(engine: Engine) -> None:
    found = [event async for event in engine.stream(many, 50)]

    assert sum(isinstance(event, NodeFinished) for event in found) == 50
    assert not any(isinstance(event, EventsDropped) for event in found)


async def test_the_streams_of_a_tenant_have_the_limits_of_its_engine() -> None:
    async with Engine(limits=Limits(unread=1)) as engine:
        stream = engine.tenant("t", Budget()).stream(many, 5)
        await anext(stream)
        await anyio.sleep(1)  # virtual

        assert [type(event).__name__ async for event in stream] == [
            "PlanExtended",
            "EventsDropped",
            "RunFinished",
        ]


def test_a_stream_without_room_is_refused() -> None:
    with pytest.raises(DefinitionError, match="unread=0"):
        Limits(unread=0)
