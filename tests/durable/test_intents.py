"""A write is announced right before it is made: what was never made is never in doubt."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentflow import Answer, Budget, Engine, Limits, gather, tool, workflow
from agentflow.errors import BudgetExceeded, RunCancelled, RunFailed, RunPaused
from agentflow.events import Event, NodeCancelled
from agentflow.executor.journal.journal import Journal
from agentflow.testing.clock import run_virtual
from tests.durable.conftest import Desk, Record, records, rows


def of(path: Path, event: str) -> list[Record]:
    return [record for record in records(path) if record["event"] == event]


def cancelled(target: Any, path: Any, *, after: float, **engine: Any) -> None:
    """Run something, and cancel it so many seconds after it began."""

    async def main() -> None:
        async with Engine(journal=path, seed=1, **engine) as made:
            run = made.start(target)
            asyncio.get_running_loop().call_later(after, run.cancel)
            with pytest.raises(RunCancelled):
                await run
            await run.ended()

    run_virtual(main())


# When a call is announced


def test_a_call_that_waits_for_its_turn_is_not_announced(desk: Desk) -> None:
    @tool(writes="box/{number}", rate="1/s")
    async def put(number: int) -> int:
        desk.made.append(f"put {number}")
        return number

    @workflow
    async def flow() -> list[int]:
        return list(await gather(*[put(n) for n in range(3)]))

    path = desk.path()
    cancelled(flow, path, after=0.5)

    assert len(of(path, "intent")) == 1
    assert desk.made == ["put 0"]
    assert desk.resume(flow, path=path) == [0, 1, 2]
    assert desk.made == ["put 0", "put 1", "put 2"]


def test_a_call_whose_price_does_not_fit_is_not_announced_and_can_be_made_later(
    desk: Desk,
) -> None:
    @tool(usd="1", writes="bank")
    async def pay(number: int) -> int:
        desk.made.append(f"pay {number}")
        return number

    @workflow(budget=Budget(usd="1.5"))
    async def flow() -> list[int]:
        return [await pay(1), await pay(2)]

    path = desk.path()
    with pytest.raises(RunFailed) as failed:
        desk.run(flow, path=path)

    assert isinstance(failed.value.__cause__, BudgetExceeded)
    assert len(of(path, "intent")) == 1
    assert [record["called"] for record in of(path, "node_failed")] == [False]
    assert desk.resume(flow, path=path, budget=Budget(usd="10")) == [1, 2]
    assert desk.made == ["pay 1", "pay 2"]


def test_a_call_that_cannot_end_before_the_deadline_is_not_announced(desk: Desk) -> None:
    @tool(writes="box", rate="1/s")
    async def put(number: int) -> int:
        desk.made.append(f"put {number}")
        return number

    @workflow(budget=Budget(deadline=0.5))
    async def flow() -> list[int]:
        return [await put(1), await put(2)]

    path = desk.path()
    with pytest.raises(RunFailed, match="its rate limit allows it too late"):
        desk.run(flow, path=path)

    assert len(of(path, "intent")) == 1
    assert desk.resume(flow, path=path, budget=Budget(deadline=60)) == [1, 2]
    assert desk.made == ["put 1", "put 2"]


def test_a_call_that_waits_for_its_place_in_a_resumed_run_is_not_announced(desk: Desk) -> None:
    @tool(reads="box")
    async def look() -> str:
        return "seen"

    @tool(writes="box/{number}", limit=1, idempotent=True)
    async def put(number: int) -> int:
        desk.made.append(f"put {number}")
        await asyncio.sleep(10)
        return number

    @workflow
    async def flow() -> list[int]:
        await look()
        return list(await gather(*[put(n) for n in range(3)]))

    path = desk.path()
    cancelled(flow, path, after=1.0)
    before = len(of(path, "intent"))

    async def main() -> None:
        async with Engine(journal=path, seed=1) as made:
            run = await made.reopen(records(path)[1]["run"], flow)
            asyncio.get_running_loop().call_later(5.0, run.cancel)
            with pytest.raises(RunCancelled):
                await run
            await run.ended()

    run_virtual(main())

    assert before == 1
    assert len(of(path, "intent")) == 2


@pytest.mark.parametrize("options", [{}, {"retries": 1, "backoff": 0.1}], ids=["once", "again"])
def test_its_intent_is_durable_before_a_call_is_made(desk: Desk, options: Any) -> None:
    path, seen = desk.path(), []

    @tool(writes="box", idempotent=True, **options)
    async def put() -> None:
        seen.append(len(of(path, "intent")))

    @workflow
    async def flow() -> None:
        await put()
        await put()

    desk.run(flow, path=path)

    assert seen == [1, 2]


def test_another_attempt_is_not_announced_again(desk: Desk) -> None:
    @tool(writes="box", idempotent=True, retries=2, backoff=0.1)
    async def put() -> str:
        desk.made.append("put")
        if len(desk.made) < 3:
            raise ConnectionError("not yet")
        return "there"

    @workflow
    async def flow() -> str:
        return await put()

    path = desk.path()

    assert desk.run(flow, path=path) == "there"
    assert desk.made == ["put"] * 3
    assert len(of(path, "intent")) == 1


def test_a_fallback_is_announced_by_its_own_name(desk: Desk) -> None:
    @tool(writes="box")
    async def keep() -> str:
        desk.made.append("keep")
        return "kept"

    @tool(writes="shelf", fallback=keep)
    async def put() -> str:
        raise ConnectionError("the shelf is full")

    @workflow
    async def flow() -> str:
        return await put()

    path = desk.path()

    assert desk.run(flow, path=path) == "kept"
    assert [record["tool"] for record in of(path, "intent")] == ["put", "keep"]


# What is never in doubt


class Slow(Journal):
    """A journal on a disk that takes a second once it is told to."""

    slow = False

    def durable(self) -> asyncio.Future[None]:
        """Done later than it is."""
        written = super().durable()
        if not self.slow:
            return written
        loop = asyncio.get_running_loop()
        later: asyncio.Future[None] = loop.create_future()
        loop.call_later(1.0, later.set_result, None)
        return later


def test_a_call_that_is_stopped_while_its_intent_is_written_is_not_made(desk: Desk) -> None:
    path = desk.path()
    journal = Slow(path)

    @tool(reads="box")
    async def look() -> str:
        journal.slow = True
        return "seen"

    @tool(writes="box")
    async def put(text: str) -> str:
        desk.made.append(f"put {text}")
        return text

    @workflow
    async def flow() -> str:
        return await put(await look())

    cancelled(flow, journal, after=0.5)
    asyncio.run(journal.aclose())

    assert [len(of(path, "intent")), desk.made] == [1, []]
    assert [record["called"] for record in of(path, "node_cancelled")] == [False]
    assert desk.resume(flow, path=path) == "seen"
    assert desk.made == ["put seen"]


def test_a_call_that_waits_for_a_thread_is_not_made_when_it_is_stopped(desk: Desk) -> None:
    release = threading.Event()
    stop: list[Any] = []

    def heard(event: Event) -> None:
        if isinstance(event, NodeCancelled):
            release.set()

    @tool(writes="box/{number}")
    def put(number: int) -> int:
        desk.made.append(f"put {number}")
        for each in stop:
            each()
        assert release.wait(30)
        return number

    @workflow
    async def flow() -> list[int]:
        return list(await gather(put(0), put(1)))

    path = desk.path()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        limits = Limits(threads=1)
        async with Engine(journal=path, limits=limits, subscribers=[heard]) as engine:
            run = engine.start(flow)
            stop.append(lambda: loop.call_soon_threadsafe(run.cancel))
            with pytest.raises(RunCancelled):
                await run

    asyncio.run(main())
    stop.clear()

    assert [record["called"] for record in of(path, "node_cancelled")] == [False]
    assert desk.resume(flow, path=path) == [0, 1]
    assert desk.made == ["put 0", "put 1"]


def refuses(strict: list[bool]) -> Callable[[int], bool]:
    return lambda number: not strict or number < 3


def test_a_fallback_that_was_refused_was_not_made(desk: Desk) -> None:
    strict = [True]

    @tool(writes="box", check={"number": refuses(strict)})
    async def keep(number: int) -> str:
        desk.made.append("keep")
        return "kept"

    @tool(reads="web", fallback=keep)
    async def look(number: int) -> str:
        raise ConnectionError(number)

    @workflow
    async def flow() -> str:
        return await look(5)

    path = desk.path()
    with pytest.raises(RunFailed):
        desk.run(flow, path=path)
    strict.clear()

    assert desk.resume(flow, path=path) == "kept"
    assert desk.made == ["keep"]


# What is in doubt all the same


def test_a_call_that_was_made_stays_in_doubt_when_its_fallback_was_refused(desk: Desk) -> None:
    @tool(writes="box", usd="5")
    async def keep() -> str:
        raise AssertionError("nobody can pay for it")

    @tool(writes="shelf", fallback=keep)
    async def put() -> str:
        desk.made.append("put")
        raise ConnectionError("no answer")

    @workflow(budget=Budget(usd="1"))
    async def flow() -> str:
        return await put()

    path = desk.path()
    with pytest.raises(RunFailed):
        desk.run(flow, path=path)

    assert "called" not in of(path, "node_failed")[0]
    with pytest.raises(RunPaused):
        desk.resume(flow, path=path)
    assert desk.made == ["put"]


def test_what_was_in_doubt_stays_so_when_it_was_refused_the_next_time(desk: Desk) -> None:
    @tool(writes="bank", usd="1")
    async def pay() -> str:
        desk.made.append("pay")
        return "paid"

    @workflow
    async def flow() -> str:
        return await pay()

    path = desk.path()
    desk.run(flow, path=path)
    desk.made.clear()
    kept = [record["event"] for record in records(path)]
    path = desk.cut(path, kept.index("intent") + 1)
    with pytest.raises(RunFailed):
        desk.resume(flow, path=path, in_doubt="retry", budget=Budget(usd="0.5"))

    with pytest.raises(RunPaused) as paused:
        desk.resume(flow, path=path, budget=Budget(usd="5"))

    assert "broke off" in paused.value.asks[0]["why"]
    assert desk.made == []
    desk.answer(path, Answer("approve"))
    assert desk.resume(flow, path=path, budget=Budget(usd="5")) == "paid"


def test_so_it_does_when_it_was_announced_again_and_then_stopped(desk: Desk) -> None:
    @tool(writes="bank")
    async def pay() -> str:
        desk.made.append("pay")
        return "paid"

    @workflow
    async def flow() -> str:
        return await pay()

    path = desk.path()
    desk.run(flow, path=path)
    desk.made.clear()
    kept = [record["event"] for record in records(path)]
    path = desk.cut(path, kept.index("intent") + 1)
    journal, name = Slow(path), rows(path)[0].id

    async def main() -> None:
        async with Engine(journal=journal, seed=1) as made:
            run = await made.reopen(name, flow, in_doubt="retry")
            journal.slow = True
            asyncio.get_running_loop().call_later(0.5, run.cancel)
            with pytest.raises(RunCancelled):
                await run
            await run.ended()

    run_virtual(main())
    asyncio.run(journal.aclose())

    assert len(of(path, "intent")) == 2
    with pytest.raises(RunPaused) as paused:
        desk.resume(flow, path=path)
    assert "broke off" in paused.value.asks[0]["why"]
    assert desk.made == []
