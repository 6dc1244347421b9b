"""How many guesses there are, on what they rest, and when there are none."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from agentflow import Limits, events, said, tool, workflow
from agentflow.errors import RunFailed
from agentflow.executor.speculation.speculator import HELD


@pytest.fixture
def search(lab: Any) -> Any:
    @tool(reads="web", limit=500)
    async def search(query: str, seconds: float = 1.0) -> str:
        return str(await lab.work(query, seconds))

    return search


@workflow
async def idle(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def test_a_guess_on_a_guess_is_as_likely_as_both_together(
    lab: Any, maybe: Any, scripted: Any, search: Any
) -> None:
    def after(trail: Any) -> list[Any]:
        if any(step.key for step in trail.steps):
            return [maybe("search", 0.8, query="y")]
        return [maybe("search", 0.9, query="x")]

    engine = lab.start(scripted(after=after), tools=[search])

    await engine.run(idle, 3.0)

    assert lab.made == [("x", 0.0), ("y", 1.0)]
    told = [event.probability for event in lab.told(events.CallPredicted)]
    assert told == [0.9, pytest.approx(0.72)]


async def test_guesses_that_nobody_asks_for_are_let_go_of_when_there_are_too_many(
    lab: Any, maybe: Any, search: Any
) -> None:
    many = HELD + 44
    guesses = [maybe("search", query=str(n)) for n in range(many)]
    engine = lab.start(*guesses, tools=[search], breadth=many)

    await engine.run(idle, 3.0)

    assert lab.wasted().count("too many came after it") == 44


async def test_a_guess_that_waits_for_room_is_predicted_only_once(
    lab: Any, maybe: Any, scripted: Any
) -> None:
    @tool(reads="web", limit=1)
    async def narrow(query: str) -> str:
        return str(await lab.work(query, 9.0))

    @workflow
    async def talk() -> None:
        handle = narrow("a")
        for _ in range(5):
            await asyncio.sleep(1)
            said("well")
        await handle

    source = scripted(after=lambda trail: [maybe("narrow", query="x")] if trail.length else [])
    engine = lab.start(source, tools=[narrow])

    await engine.run(talk)

    assert [event.number for event in lab.told(events.CallPredicted)] == [1]


async def test_what_a_tool_says_in_its_thread_is_heard(
    lab: Any, maybe: Any, scripted: Any, search: Any
) -> None:
    @tool
    def speak() -> None:
        said("go", by="tool")

    @workflow
    async def ask() -> None:
        await speak()
        await asyncio.sleep(3)

    def after(trail: Any) -> list[Any]:
        heard = any(step.actor == "tool" for step in trail.steps)
        return [maybe("search", query="x")] if heard else []

    engine = lab.start(scripted(after=after), tools=[search])

    await engine.run(ask)

    assert lab.calls == ["x"]


async def test_a_run_that_is_ending_starts_no_further_guesses(
    lab: Any, maybe: Any, scripted: Any, search: Any
) -> None:
    @tool
    async def stubborn() -> None:
        try:
            await asyncio.sleep(9)
        finally:
            await asyncio.sleep(1)

    @workflow
    async def broken() -> None:
        stubborn()
        await asyncio.sleep(0.5)
        raise ValueError("no")

    def after(trail: Any) -> list[Any]:
        return [maybe("search", query="y" if any(step.key for step in trail.steps) else "x")]

    engine = lab.start(scripted(after=after), tools=[search])

    with pytest.raises(RunFailed):
        await engine.run(broken)

    assert lab.calls == ["x"]


async def test_what_failed_is_guessed_at_again_once_something_was_written(
    lab: Any, maybe: Any
) -> None:
    orders: dict[str, str] = {}

    @tool(reads="orders")
    async def look(key: str) -> str:
        await lab.work(key, 1.0)
        return orders[key]

    @tool(writes="orders")
    async def place(key: str) -> None:
        orders[key] = "placed"

    @workflow
    async def order() -> str:
        await asyncio.sleep(3)
        await place("x")
        await asyncio.sleep(3)
        return await look("x")

    engine = lab.start(maybe("look", key="x"), tools=[look])

    assert await engine.run(order) == "placed"

    assert lab.made == [("x", 0.0), ("x", 3.0)]
    assert lab.wasted() == ["it failed"]
    assert lab.used() == [1.0]


async def test_no_guess_takes_a_thread_while_half_of_them_work_for_calls(
    lab: Any, maybe: Any, scripted: Any
) -> None:
    busy: list[int] = []
    done: list[int] = []
    go = threading.Event()

    @tool(reads="web")
    def block(n: int) -> int:
        busy.append(n)
        go.wait(5)
        done.append(n)
        return n

    @workflow
    async def ask() -> None:
        handles = [block(1), block(2)]
        while len(busy) < 2:
            await asyncio.to_thread(lambda: None)
        said("now")
        for _ in range(20):
            await asyncio.sleep(0)
        go.set()
        for handle in handles:
            await handle

    def after(trail: Any) -> list[Any]:
        return [maybe("block", n=9)] if trail.length == 1 else []

    engine = lab.start(scripted(after=after), tools=[block], limits=Limits(threads=4))

    await engine.run(ask)

    assert sorted(busy) == sorted(done) == [1, 2]
