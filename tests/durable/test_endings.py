"""What is written down of how runs end, are refused and are stopped, and of what they take."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentflow import Budget, Engine, Limits, tool, workflow
from agentflow.errors import (
    ArgumentError,
    DeadlineExceeded,
    HistoryMismatch,
    RunCancelled,
    RunPaused,
)
from agentflow.events import Event, NodeEvent, RunFinished
from agentflow.executor.run import Run
from agentflow.workflows import Workflow
from tests.durable.conftest import Desk, records, rows

pytestmark = pytest.mark.anyio

virtual = pytest.mark.virtual

calls: list[str] = []


@tool(reads="shop")
async def look(name: str, seconds: float = 1.0) -> str:
    calls.append(f"look {name}")
    await asyncio.sleep(seconds)
    return name


@tool(writes="mail")
async def send(seconds: float = 1.5) -> str:
    calls.append("send")
    await asyncio.sleep(seconds)
    return "sent"


@tool(writes="mail", usd="0.25")
async def paid_send() -> str:
    calls.append("paid")
    await asyncio.sleep(1.5)
    return "sent"


@tool(reads="mine", usd="0.01")
async def paid(name: str) -> str:
    await asyncio.sleep(1.0)
    return name


@tool(writes="bank", approve=True)
async def pay() -> str:
    calls.append("pay")
    return "done"


@workflow(budget=Budget(deadline=0.5))
async def sends() -> str:
    return await send()


@workflow
async def posts() -> str:
    return await send()


@workflow(budget=Budget(deadline=0.5))
async def deep() -> str:
    return await posts()


def waits(seconds: float) -> Workflow[[], Any]:
    """A workflow of one call that takes so long."""

    @workflow
    async def flow() -> str:
        return await look("a", seconds)

    return flow


def pays(name: str = "a") -> Workflow[[], Any]:
    """A workflow that looks for something and then has to ask."""

    @workflow
    async def flow() -> str:
        await look(name)
        return await pay()

    return flow


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def kinds(path: Path) -> list[str]:
    """What the records of the newest run are."""
    return [record["event"] for record in records(path)]


def what_rests(path: Path) -> tuple[Any, ...]:
    """What is listed of the newest run that a resume without effect leaves as it was."""
    row = rows(path)[0]
    return row.state, row.asks, row.note, row.seconds, row.usd, row.tokens


async def late(engine: Engine, target: Any) -> Run[Any]:
    """A run that passed its deadline and has cleaned up."""
    run = engine.start(target)
    with pytest.raises(DeadlineExceeded):
        await run
    await run.ended()
    return run


async def paused(engine: Engine, target: Any) -> str:
    """A run that waits for an answer; its id."""
    run = engine.start(target)
    with pytest.raises(RunPaused):
        await run
    await run.ended()
    return run.id


# What ends after the deadline


@virtual
@pytest.mark.parametrize("flow", [sends, deep])
async def test_a_write_that_ends_well_after_the_deadline_is_not_made_again(
    path: Path, flow: Any
) -> None:
    async with Engine(journal=path) as engine:
        run = await late(engine, flow)
    assert kinds(path)[-1] == "node_finished"
    async with Engine(journal=path) as engine:
        assert await engine.resume(run.id, flow, budget=Budget(deadline=50)) == "sent"
    assert calls == ["send"]


@virtual
async def test_it_is_known_at_once_when_the_run_is_over(path: Path) -> None:
    async with Engine(journal=path) as engine:
        run = await late(engine, sends)
        assert await engine.resume(run.id, sends, budget=Budget(deadline=50)) == "sent"
    assert calls == ["send"]


@virtual
async def test_a_write_that_the_deadline_cuts_off_is_in_doubt(path: Path) -> None:
    @workflow(budget=Budget(deadline=0.5))
    async def flow() -> str:
        return await send(60.0)

    async with Engine(journal=path) as engine:
        run = await late(engine, flow)
        with pytest.raises(RunPaused, match="broke off"):
            await engine.resume(run.id, flow, budget=Budget(deadline=500))


@virtual
async def test_nobody_is_told_of_what_ends_after_the_run_has(path: Path) -> None:
    told: list[Event] = []
    async with Engine(journal=path, subscribers=[told.append]) as engine:
        await late(engine, sends)
    assert not any(isinstance(event, NodeEvent) and event.at > 0.5 for event in told)
    assert type(told[-1]).__name__ == "RunFailed"


@virtual
async def test_what_a_late_write_cost_is_listed(path: Path) -> None:
    @workflow(budget=Budget(deadline=0.5))
    async def flow() -> str:
        return await paid_send()

    async with Engine(journal=path) as engine:
        await late(engine, flow)
    assert (rows(path)[0].state, rows(path)[0].usd) == ("failed", "0.25")


# What leaves no trace


@virtual
async def test_a_refused_resume_leaves_a_paused_run_as_it_was(path: Path) -> None:
    async with Engine(journal=path) as engine:
        run = await paused(engine, pays())
        before, wrote = what_rests(path), kinds(path)
        with pytest.raises(HistoryMismatch):
            await engine.resume(run, pays("other"))
        assert (what_rests(path), kinds(path)) == (before, wrote)
        await engine.approve(run)
        assert await engine.resume(run, pays()) == "done"
    assert calls == ["look a", "pay"]


@virtual
async def test_a_resume_with_wrong_arguments_leaves_a_run_as_it_was(path: Path) -> None:
    async with Engine(journal=path) as engine:
        run = await paused(engine, pays())
        before, wrote = what_rests(path), kinds(path)
        with pytest.raises(ArgumentError):
            await engine.resume(run, pays(), args=(1,))
    assert (what_rests(path), kinds(path)) == (before, wrote)


@virtual
@pytest.mark.parametrize("after", [0.0, 0.01])
async def test_a_resume_that_is_cancelled_before_it_does_anything_leaves_a_run_as_it_was(
    path: Path, after: float
) -> None:
    async with Engine(journal=path) as engine:
        run = await paused(engine, pays())
        before = what_rests(path)
        again = await engine.reopen(run, pays())
        asyncio.get_running_loop().call_later(after, again.cancel)
        with pytest.raises(RunCancelled):
            await again
        assert what_rests(path) == before
        await engine.approve(run)
        assert await engine.resume(run, pays()) == "done"


@virtual
async def test_a_resume_that_did_something_before_it_was_cancelled_is_cancelled(path: Path) -> None:
    @workflow
    async def flow() -> str:
        await look("a")
        return await send()

    async with Engine(journal=path) as engine:
        run = engine.start(flow)
        asyncio.get_running_loop().call_later(0.5, run.cancel)
        with pytest.raises(RunCancelled):
            await run
        again = await engine.reopen(run.id, flow)
        asyncio.get_running_loop().call_later(1.5, again.cancel)
        with pytest.raises(RunCancelled):
            await again
    assert rows(path)[0].state == "cancelled"
    assert kinds(path).count("session") == 2
    assert kinds(path)[-2:] == ["node_finished", "run_cancelled"]


@virtual
async def test_a_run_of_which_all_is_known_ends_when_it_is_resumed(desk: Desk) -> None:
    path, flow, seen = desk.path(), waits(1.0), []
    async with Engine(journal=path) as engine:
        await engine.run(flow)
    cut = desk.cut(path, kinds(path).index("run_finished"))

    def see(event: Event) -> None:
        if isinstance(event, RunFinished):
            seen.extend(kinds(cut)[-3:])  # whoever hears of it finds it there

    async with Engine(journal=cut, subscribers=[see]) as engine:
        assert await engine.resume(rows(cut)[0].id, flow) == "a"
    assert rows(cut)[0].state == "finished"
    assert seen == ["session", "run_started", "run_finished"]


# What runs take


@virtual
async def test_what_a_run_has_spent_so_far_is_listed_while_it_goes_on(path: Path) -> None:
    @workflow
    async def flow() -> None:
        for name in ("a", "b", "c"):
            await paid(name)

    async with Engine(journal=path) as engine:
        run = engine.start(flow)
        await asyncio.sleep(2.5)
        row = rows(path)[0]
        assert (row.state, row.usd) == ("running", "0.02")
        assert row.seconds == pytest.approx(2.0)
        await run


@virtual
async def test_the_time_of_a_run_that_costs_nothing_is_listed_too(path: Path) -> None:
    @workflow
    async def flow() -> None:
        for number in range(10):
            await look(f"{number}")

    async with Engine(journal=path) as engine:
        run = engine.start(flow)
        await asyncio.sleep(7.5)
        assert rows(path)[0].seconds == pytest.approx(5.0, abs=0.1)
        await run


@virtual
async def test_seconds_count_for_the_deadline_although_the_process_died_in_a_call(
    desk: Desk,
) -> None:
    flow = waits(8.0).within(Budget(deadline=10))
    path = desk.path()
    async with Engine(journal=path) as engine:
        await engine.run(flow)
    cut = desk.cut(path, kinds(path).index("node_finished"))
    async with Engine(journal=cut) as engine:
        run = await engine.reopen(rows(cut)[0].id, flow)
        began = asyncio.get_running_loop().time()
        with pytest.raises(DeadlineExceeded):
            await run
        assert asyncio.get_running_loop().time() - began == pytest.approx(5.0, abs=0.1)


@virtual
async def test_a_run_without_a_deadline_that_only_waits_writes_nothing(path: Path) -> None:
    async with Engine(journal=path) as engine:
        await engine.run(waits(100.0))
    assert "spent" not in kinds(path)
    assert rows(path)[0].seconds == pytest.approx(100.0)


@virtual
async def test_time_in_which_a_run_waits_for_an_answer_is_not_written_down_as_its_own(
    path: Path,
) -> None:
    async def answerer(_question: Any) -> bool:
        await asyncio.sleep(60.0)
        return True

    flow = pays().within(Budget(deadline=10))
    async with Engine(journal=path, approve=answerer) as engine:
        run = engine.start(flow)
        await asyncio.sleep(50.0)
        assert "spent" not in kinds(path)
        assert await run == "done"
    assert rows(path)[0].seconds < 2.0


# A journal that is locked


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process writes, and does not come to an end."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def test_who_cancels_a_run_has_its_answer_within_the_grace(path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with Engine(journal=path, limits=Limits(grace=0.1)) as engine:
        run = engine.start(waits(60.0))
        await engine.run(waits(0.0))
        with locked(path):
            began = loop.time()
            run.cancel()
            with pytest.raises(RunCancelled):
                await run
            assert loop.time() - began < 1.0  # it would wait for five seconds
    assert {row.state for row in rows(path)} == {"finished", "cancelled"}
