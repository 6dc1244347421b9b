"""Whom guesses give way to, and what makes them stale."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from agentflow import Limits, events, said, tool, workflow
from agentflow.errors import RunFailed


@workflow
async def buy(seconds: float, tool: Any, query: str) -> Any:
    await asyncio.sleep(seconds)
    return await tool(query)


@pytest.fixture
def narrow(lab: Any) -> Any:
    @tool(reads="web", limit=1)
    async def narrow(query: str) -> str:
        return str(await lab.work(query))

    return narrow


async def test_a_guess_makes_way_at_once_for_a_call_that_needs_its_place(
    lab: Any, maybe: Any, narrow: Any
) -> None:
    engine = lab.start(maybe("narrow", query="y"), tools=[narrow])

    assert await engine.run(buy, 1.0, narrow, "x") == "X"

    assert lab.made[:2] == [("y", 0.0), ("x", 1.0)]
    assert lab.cut[0] == "y"
    assert lab.wasted()[0] == "it made way for a call"


async def test_a_call_waits_until_the_guess_that_makes_way_for_it_has_ended(
    lab: Any, maybe: Any
) -> None:
    @tool(reads="web", limit=1, timeout=4.5)
    async def tidy(query: str) -> str:
        try:
            return str(await lab.work(query))
        except asyncio.CancelledError:
            await asyncio.sleep(3)
            raise

    engine = lab.start(maybe("tidy", query="y"), tools=[tidy])

    assert await engine.run(buy, 1.0, tidy, "x") == "X"

    assert lab.made[:2] == [("y", 0.0), ("x", 4.0)]
    assert lab.cut[0] == "y"


async def test_the_time_limit_of_a_call_begins_when_the_guess_before_it_has_ended(
    lab: Any, maybe: Any
) -> None:
    @tool(reads="web", limit=1, timeout=4.5)
    async def slow(query: str) -> str:
        try:
            return str(await lab.work(query, 100.0))
        except asyncio.CancelledError:
            await asyncio.sleep(3 if query == "y" else 0)
            raise

    engine = lab.start(maybe("slow", query="y"), tools=[slow])

    with pytest.raises(RunFailed, match="took longer than"):
        await engine.run(buy, 1.0, slow, "x")

    assert asyncio.get_running_loop().time() == 4.0 + 4.5


async def test_a_thread_that_others_wait_for_is_no_guess_for_it_could_not_make_way(
    lab: Any, maybe: Any
) -> None:
    @tool(reads="web", limit=1)
    def alone(query: str) -> str:
        return query.upper()

    engine = lab.start(maybe("alone", query="y"), tools=[alone])

    assert await engine.run(buy, 1.0, alone, "x") == "X"

    assert lab.told(events.SpeculationStarted) == []


async def test_a_stale_guess_has_ended_before_the_call_it_was_for_is_made(
    lab: Any, maybe: Any
) -> None:
    @tool(reads="stock/{key}", limit=1)
    async def look(key: str) -> str:
        try:
            return str(await lab.work(key))
        except asyncio.CancelledError:
            await asyncio.sleep(3)
            raise

    @tool(writes="stock/x")
    async def put() -> None: ...

    @workflow
    async def ask() -> str:
        await asyncio.sleep(1)
        await put()
        return await look("x")

    engine = lab.start(maybe("look", key="x"), tools=[look])

    assert await engine.run(ask) == "X"

    assert lab.made == [("x", 0.0), ("x", 4.0)]


async def test_a_guess_that_made_way_cleans_up_to_its_end_although_its_call_is_asked_for(
    lab: Any, maybe: Any
) -> None:
    @tool(reads="web", limit=2)
    async def tidy(query: str) -> str:
        try:
            return str(await lab.work(query))
        except asyncio.CancelledError:
            await asyncio.sleep(3)
            raise

    @workflow
    async def ask() -> list[str]:
        await asyncio.sleep(1)
        one, other = tidy("a"), tidy("b")
        await asyncio.sleep(1)
        guessed = tidy("y")
        return [await one, await other, await guessed]

    engine = lab.start(maybe("tidy", query="y"), tools=[tidy])

    assert await engine.run(ask) == ["A", "B", "Y"]

    assert sorted(lab.made) == [("a", 3.0), ("b", 1.0), ("y", 0.0), ("y", 4.0)]


async def test_the_guess_at_a_call_does_not_make_way_for_that_call(
    lab: Any, maybe: Any, narrow: Any
) -> None:
    engine = lab.start(maybe("narrow", query="x"), tools=[narrow])

    assert await engine.run(buy, 1.0, narrow, "x") == "X"

    assert lab.made == [("x", 0.0)]
    assert lab.used() == [1.0]


async def test_the_guess_that_is_worth_least_makes_way(lab: Any, maybe: Any) -> None:
    @tool(reads="web", limit=2)
    async def pair(query: str) -> str:
        return str(await lab.work(query))

    engine = lab.start(maybe("pair", 0.9, query="y"), maybe("pair", 0.5, query="z"), tools=[pair])

    await engine.run(buy, 1.0, pair, "x")

    assert lab.cut[0] == "z"


async def test_calls_that_start_together_do_not_share_the_place_of_one_guess(
    lab: Any, maybe: Any, narrow: Any
) -> None:
    @workflow
    async def ask() -> list[str]:
        await asyncio.sleep(1)
        one, other = narrow("a"), narrow("b")
        return [await one, await other]

    engine = lab.start(maybe("narrow", query="y"), tools=[narrow])

    assert await engine.run(ask) == ["A", "B"]

    assert lab.made[:3] == [("y", 0.0), ("a", 1.0), ("b", 3.0)]


async def test_a_guess_at_a_full_gate_waits_and_is_overtaken_by_its_call(
    lab: Any, maybe: Any, narrow: Any
) -> None:
    @workflow
    async def ask() -> list[str]:
        one = narrow("a")
        await asyncio.sleep(1)
        other = narrow("x")
        return [await one, await other]

    engine = lab.start(maybe("narrow", query="x"), tools=[narrow])

    assert await engine.run(ask) == ["A", "X"]

    assert lab.made[-2:] == [("a", 0.0), ("x", 2.0)]
    told = lab.told(events.SpeculationOvertaken)
    assert [event.number for event in told] == [lab.told(events.CallPredicted)[-1].number]


async def test_no_guess_starts_while_calls_wait_for_a_place_in_the_run(
    lab: Any, maybe: Any, scripted: Any
) -> None:
    @tool(reads="web")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    @workflow
    async def ask() -> None:
        handles = [search(str(n)) for n in range(3)]
        for handle in handles:
            await handle
        await asyncio.sleep(5)

    source = scripted(after=lambda trail: [maybe("search", query="x")] if trail.length else [])
    engine = lab.start(source, tools=[search], limits=Limits(run=1))

    await engine.run(ask)

    assert lab.made == [("0", 0.0), ("1", 2.0), ("2", 4.0), ("x", 4.0)]


async def test_a_rate_limited_call_takes_a_guess_over_without_a_turn_of_its_own(
    lab: Any, maybe: Any
) -> None:
    @tool(reads="web", rate="1/s")
    async def search(query: str) -> str:
        return str(await lab.work(query))

    engine = lab.start(maybe("search", 0.95, query="x"), tools=[search])

    await engine.run(buy, 0.5, search, "x")

    assert asyncio.get_running_loop().time() == 2.0


async def test_a_guess_that_finds_no_turn_at_a_rate_limit_does_not_use_one_up(
    lab: Any, maybe: Any, scripted: Any
) -> None:
    @tool(reads="web", rate="1/s")
    async def search(query: str) -> str:
        return str(await lab.work(query, 0.1))

    @workflow
    async def ask() -> None:
        await search("a")
        await asyncio.sleep(0.4)
        await search("b")

    def after(trail: Any) -> list[Any]:
        return [maybe("search", 0.99, query="x")] if trail.length == 1 else []

    engine = lab.start(scripted(after=after), tools=[search])

    await engine.run(ask)

    assert lab.made == [("a", 0.0), ("b", 1.0)]


async def test_guesses_leave_half_of_the_threads_alone(lab: Any, maybe: Any) -> None:
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
        while len(busy) < 2:
            await asyncio.to_thread(lambda: None)
        for _ in range(20):
            await asyncio.sleep(0)
        go.set()
        while len(done) < len(busy):
            await asyncio.to_thread(lambda: None)

    engine = lab.start(
        *[maybe("block", n=n) for n in range(6)], tools=[block], limits=Limits(threads=4)
    )

    await engine.run(ask)

    assert len(busy) <= 3


async def test_a_guess_whose_resource_was_written_since_is_not_used(lab: Any, maybe: Any) -> None:
    stock = {"x": "old"}

    @tool(reads="stock/{key}")
    async def look(key: str) -> str:
        found = stock[key]
        await lab.work(key)
        return found

    @tool(writes="stock/{key}")
    async def put(key: str, value: str) -> None:
        stock[key] = value

    @workflow
    async def ask() -> str:
        await asyncio.sleep(3)
        await put("x", "new")
        return await look("x")

    engine = lab.start(maybe("look", query="no"), maybe("look", key="x"), tools=[look])

    assert await engine.run(ask) == "new"

    assert lab.wasted()[0] == "what it read has been written since"


async def test_a_guess_under_way_during_a_write_is_not_used_but_made_anew(
    lab: Any, maybe: Any
) -> None:
    stock = {"x": "old"}

    @tool(reads="stock/{key}")
    async def look(key: str) -> str:
        found = stock[key]
        await lab.work(key)
        return found

    @tool(writes="stock/{key}")
    async def put(key: str, value: str) -> None:
        stock[key] = value

    @workflow
    async def ask() -> str:
        await asyncio.sleep(1)
        await put("x", "new")
        await asyncio.sleep(9)
        return await look("x")

    engine = lab.start(maybe("look", key="x"), tools=[look])

    assert await engine.run(ask) == "new"

    assert lab.made == [("x", 0.0), ("x", 2.0)]
    assert lab.used() == [2.0]


async def test_what_is_being_written_is_not_guessed_at(lab: Any, maybe: Any) -> None:
    @tool(reads="stock/{key}")
    async def look(key: str) -> str:
        return str(await lab.work(key, 1.0))

    @tool(writes="stock/x")
    async def put() -> None:
        await asyncio.sleep(5)

    @workflow
    async def ask() -> str:
        await asyncio.sleep(2)
        handle = put()
        await asyncio.sleep(1)
        said("news")
        await handle
        await asyncio.sleep(2)
        return await look("x")

    guesses = [maybe("look", key="x"), maybe("look", key="y")]
    engine = lab.start(*guesses, tools=[look])

    assert await engine.run(ask) == "X"

    assert lab.made == [("x", 0.0), ("y", 0.0), ("x", 7.0)]
    assert lab.wasted() == ["what it read has been written since", "the run ended without it"]
