"""A run goes on once, whoever asks for it at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from agentflow import Budget, Engine, Limits, tool, workflow
from agentflow.errors import DeadlineExceeded, DefinitionError, JournalError, RunCancelled
from agentflow.executor.journal.journal import Journal
from agentflow.testing.clock import run_virtual
from tests.durable.conftest import rows

pytestmark = [pytest.mark.virtual, pytest.mark.anyio]

calls: list[str] = []


@tool(reads="shop")
async def look(name: str) -> str:
    calls.append(f"look {name}")
    await asyncio.sleep(1.0)
    return name


@tool(writes="mail")
async def send(name: str) -> str:
    calls.append(f"send {name}")
    await asyncio.sleep(1.0)
    return name


@workflow
async def flow() -> str:
    await look("a")
    await look("b")
    return await send("c")


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def cancelled(engine: Engine, target: Any = flow) -> str:
    """Begin a run and cancel it in its second call; its id."""
    run = engine.start(target)
    asyncio.get_running_loop().call_later(1.5, run.cancel)
    with pytest.raises(RunCancelled):
        await run
    await run.ended()
    return run.id


async def outcomes(*asked: Awaitable[Any]) -> list[str]:
    """What came of them, sorted: a value or the type of an error."""
    found = await asyncio.gather(*asked, return_exceptions=True)
    return sorted(v if isinstance(v, str) else type(v).__name__ for v in found)


async def test_of_several_in_one_engine_one_goes_on(path: Path) -> None:
    async with Engine(journal=path) as engine:
        run = await cancelled(engine)
        seen = await outcomes(*(engine.resume(run) for _ in range(3)))
    assert seen == ["JournalError", "JournalError", "c"]
    assert calls == ["look a", "look b", "look b", "send c"]


async def test_the_beginnings_of_an_id_are_one_run(path: Path) -> None:
    async with Engine(journal=path) as engine:
        run = await cancelled(engine)
        seen = await outcomes(engine.resume(run), engine.resume(run[:5]), engine.resume(run[:3]))
    assert seen == ["JournalError", "JournalError", "c"]


async def test_of_several_engines_that_share_a_journal_one_goes_on(path: Path) -> None:
    journal = Journal(path)
    async with Engine(journal=journal) as one, Engine(journal=journal) as other:
        run = await cancelled(one)
        seen = await outcomes(one.resume(run), other.resume(run))
    assert seen == ["JournalError", "c"]
    assert calls.count("send c") == 1


async def test_a_first_execution_is_not_gone_on_with_by_an_engine_that_shares_its_journal(
    path: Path,
) -> None:
    journal = Journal(path)
    async with Engine(journal=journal) as one, Engine(journal=journal) as other:
        run = one.start(flow)
        await asyncio.sleep(0.5)
        with pytest.raises(JournalError, match=f"run {run.id} is going on"):
            await other.resume(run.id)
        assert await run == "c"
    assert calls == ["look a", "look b", "send c"]
    assert rows(path)[0].state == "finished"


async def test_engines_that_share_a_journal_go_on_one_after_the_other(path: Path) -> None:
    journal = Journal(path)
    async with Engine(journal=journal) as one, Engine(journal=journal) as other:
        run = await cancelled(one)
        going = await other.reopen(run)
        await asyncio.sleep(0.5)
        going.cancel()
        await going.ended()
        assert await one.resume(run) == "c"
    assert calls == ["look a", *["look b"] * 3, "send c"]


async def test_who_is_refused_leaves_the_run_to_who_has_it(path: Path) -> None:
    async with Engine(journal=path) as engine:
        run = await cancelled(engine)
        going = await engine.reopen(run)
        for _ in range(2):
            with pytest.raises(JournalError, match="going on in this engine"):
                await engine.resume(run)
            assert rows(path)[0].state == "running"
        assert await going == "c"


async def test_a_run_whose_program_was_not_found_is_gone_on_with_by_the_next(path: Path) -> None:
    @workflow
    async def local() -> str:
        await look("a")
        return await look("b")

    async with Engine(journal=path) as engine:
        run = await cancelled(engine, local)
        with pytest.raises(DefinitionError):
            await engine.resume(run)
        assert await engine.resume(run, local) == "b"


async def test_a_run_that_answered_and_cleans_up_is_waited_for(path: Path) -> None:
    @tool(writes="mail")
    async def tidy() -> str:
        calls.append("tidy")
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.7)
            calls.append("tidied")
        return "never"

    @workflow(budget=Budget(deadline=1))
    async def late() -> str:
        return await tidy()

    async with Engine(journal=path, limits=Limits(grace=1.0)) as engine:
        run = engine.start(late)
        with pytest.raises(DeadlineExceeded):
            await run
        assert not run.over
        more = Budget(deadline=100)
        going = await engine.reopen(run.id, late, budget=more, in_doubt="retry")
        assert calls == ["tidy", "tidied"]
        going.cancel()
        await going.ended()


async def test_a_run_that_has_just_begun_is_known(path: Path) -> None:
    async with Engine(journal=path) as engine:
        run = engine.start(flow)
        with pytest.raises(JournalError, match="going on in this engine"):
            await engine.resume(run.id)
        assert await run == "c"


async def test_a_run_that_was_cancelled_before_it_began_goes_on_at_once(path: Path) -> None:
    async with Engine(journal=path) as engine:
        run = engine.start(flow)
        run.cancel()
        await run.ended()
        assert await engine.resume(run.id) == "c"


@pytest.mark.parametrize("turns", range(6))
async def test_who_is_cancelled_while_it_reads_leaves_the_run_as_it_was(
    path: Path, turns: int
) -> None:
    async with Engine(journal=path) as engine:
        run = await cancelled(engine)
        asked = asyncio.ensure_future(engine.reopen(run))
        for _ in range(turns):
            await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    assert rows(path)[0].state == "cancelled"
    async with Engine(journal=path) as engine:
        assert await engine.resume(run) == "c"


def test_what_a_closed_loop_left_behind_is_nobody_s(path: Path) -> None:
    journal = Journal(path)

    async def take() -> None:
        journal.take("a")
        with pytest.raises(JournalError, match="run a is going on"):
            journal.take("a")
        journal.release("a")
        journal.take("a")

    run_virtual(take())
    run_virtual(take())
