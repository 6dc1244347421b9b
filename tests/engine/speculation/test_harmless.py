"""A guess is nothing but the call: it spends no money of the run, and starts nothing seen."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from agentflow import Budget, Caching, events, tool, workflow


async def test_a_guess_starts_no_run_of_its_own(lab: Any, maybe: Any) -> None:
    @workflow
    async def inner(x: str) -> str:
        return str(await lab.work(x))

    @tool(pure=True)
    async def careful(x: str) -> str:
        try:
            return await inner(x)
        except Exception:  # noqa: BLE001  # what a tool may do
            return "nothing"

    @workflow
    async def outer() -> str:
        await asyncio.sleep(5)
        return await careful("a")

    engine = lab.start(maybe("careful", x="a"), tools=[careful])

    assert await engine.run(outer) == "A"
    assert lab.wasted() == ["it failed"]
    assert [event.name for event in lab.told(events.RunStarted)] == ["outer", "inner"]
    assert engine.services.foresight.unfit == {"careful"}


async def test_guesses_take_nothing_from_a_budget_that_calls_need(lab: Any, maybe: Any) -> None:
    @tool(pure=True, usd="0.1")
    async def pay(x: str) -> str:
        return str(await lab.work(x, 1.0))

    @workflow
    async def late() -> str:
        await asyncio.sleep(5)
        return await pay("real")

    says = [maybe("pay", x="a"), maybe("pay", x="b")]
    engine = lab.start(*says, tools=[pay], wait_price=1.0)

    engine.ledger.budget = Budget(usd=0.2)
    assert await engine.run(late) == "REAL"
    assert lab.calls == ["real"]


async def test_a_priced_guess_that_is_used_counts_once(lab: Any, maybe: Any) -> None:
    @tool(pure=True, usd="0.1")
    async def pay(x: str) -> str:
        return str(await lab.work(x, 1.0))

    @workflow
    async def late() -> str:
        await asyncio.sleep(5)
        return await pay("a")

    engine = lab.start(maybe("pay", x="a"), tools=[pay], wait_price=1.0)

    assert await engine.run(late) == "A"
    stats = engine.services.cache.stats
    assert (stats.hits, stats.seconds_saved) == ({"memory": 1}, 1.0)


async def test_a_write_elsewhere_leaves_guesses_good_with_a_disk_too(
    lab: Any, maybe: Any, tmp_path: Path
) -> None:
    written = asyncio.Event()

    @tool(reads="a", ttl="1h")
    async def read(x: str) -> str:
        value = str(await lab.work(x, 0.0))
        written.set()
        return value

    @tool(writes="elsewhere")
    async def write() -> None: ...

    @workflow
    async def late() -> str:
        await written.wait()
        await write()
        return await read("q")

    engine = lab.start(maybe("read", x="q"), tools=[read], cache=Caching(directory=tmp_path))

    assert await engine.run(late) == "Q"
    assert lab.calls == ["q"]
    assert (len(lab.used()), lab.wasted()) == (1, [])


async def test_a_guess_that_had_no_time_to_begin_is_no_waste(lab: Any, maybe: Any) -> None:
    @tool(pure=True)
    async def look(x: str) -> str:
        return str(await lab.work(x, 1.0))

    @workflow
    async def hasty() -> str:
        return await look("a")

    engine = lab.start(maybe("look", x="a"), tools=[look])

    assert await engine.run(hasty) == "A"
    assert lab.calls == ["a"]
    assert lab.wasted() == []


async def test_a_guess_is_made_with_the_options_of_the_calls_before(
    lab: Any, maybe: Any, scripted: Any
) -> None:
    @tool(pure=True)
    async def look(x: str) -> str:
        return str(await lab.work(x, 1.0))

    @workflow
    async def twice() -> str:
        await look.with_(ttl="1h")("a")
        await asyncio.sleep(5)
        return await look.with_(ttl="1h")("b")

    def after(trail: Any) -> list[Any]:
        return [maybe("look", x="b")] if trail.length else []

    engine = lab.start(scripted(after=after), tools=[look])

    assert await engine.run(twice) == "B"
    assert lab.calls == ["a", "b"]
    assert (lab.used(), lab.wasted()) == ([1.0], [])
