"""Going on with a run: what is found again, what counts, what is refused."""

from __future__ import annotations

import asyncio
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentflow import Budget, Context, Engine, tool, workflow
from agentflow.errors import (
    DeadlineExceeded,
    DefinitionError,
    HistoryMismatch,
    JournalError,
    RunCancelled,
    RunFailed,
)
from agentflow.events import Event, NodeFinished, NodeReused, RunFinished
from agentflow.executor.journal.journal import Journal
from tests.durable.conftest import records, rows

pytestmark = [pytest.mark.virtual, pytest.mark.anyio]

calls: list[str] = []


@tool(reads="shop")
async def look(name: str) -> str:
    calls.append(name)
    await asyncio.sleep(1.0)
    return name.upper()


@tool(usd="0.01")
async def paid(name: str) -> str:
    calls.append(name)
    await asyncio.sleep(1.0)
    return name


@workflow
async def two(first: str, second: str) -> list[str]:
    return [await look(first), await look(second)]


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def cancelled(engine: Engine, target: Any, *args: Any, after: float = 1.5) -> str:
    """Begin a run and cancel it after some time; its id."""
    run = engine.start(target, *args)
    asyncio.get_running_loop().call_later(after, run.cancel)
    with pytest.raises(RunCancelled):
        await run
    await run.ended()
    return run.id


async def test_a_workflow_is_found_by_its_name_with_its_arguments(path: Path) -> None:
    async with Engine(journal=path) as engine:
        run = await cancelled(engine, two, "a", "b")
    async with Engine(journal=path) as engine:
        assert await engine.resume(run) == ["A", "B"]
    assert calls == ["a", "b", "b"]
    assert rows(path)[0].state == "finished"


async def test_the_beginning_of_an_id_is_enough(path: Path) -> None:
    async with Engine(journal=path) as engine:
        run = await cancelled(engine, two, "a", "b")
        assert await engine.resume(run[:4]) == ["A", "B"]


async def test_a_plan_is_found_by_its_text(path: Path) -> None:
    async with Engine(journal=path, tools=[look]) as engine:
        plan = engine.plan('$1 = look(name="a")\n$2 = look(name="${1}b")\nreturn $2\n')
        run = await cancelled(engine, plan)
    async with Engine(journal=path, tools=[look]) as engine:
        assert await engine.resume(run) == "AB"
    assert calls == ["a", "Ab", "Ab"]


async def test_tools_that_are_missing_are_named(path: Path) -> None:
    async with Engine(journal=path, tools=[look]) as engine:
        run = await cancelled(engine, engine.plan('$1 = look(name="a")\nreturn $1\n'), after=0.5)
    async with Engine(journal=path) as engine:
        with pytest.raises(DefinitionError, match="look"):
            await engine.resume(run)


async def test_a_workflow_without_a_name_of_its_own_is_asked_for(path: Path) -> None:
    @workflow
    async def local() -> str:
        return await look("a") + await look("b")

    async with Engine(journal=path) as engine:
        run = await cancelled(engine, local)
        with pytest.raises(DefinitionError, match="target=flow"):
            await engine.resume(run)
        assert await engine.resume(run, local) == "AB"


async def test_money_that_was_spent_counts(path: Path) -> None:
    @workflow(budget=Budget(usd="0.025"))
    async def three() -> list[str]:
        return [await paid("a"), await paid("b"), await paid("c")]

    async with Engine(journal=path) as engine:
        run = await cancelled(engine, three)  # the second has begun, and is paid
        assert rows(path)[0].usd == "0.02"
        with pytest.raises(RunFailed, match=r"0\.01 usd do not fit") as caught:
            await engine.resume(run, three, in_doubt="retry")
        assert caught.value.results == {0: "a"}
        assert engine.ledger.spent.usd >= Decimal("0.02")


async def test_another_budget_may_be_given(path: Path) -> None:
    @workflow(budget=Budget(usd="0.015"))
    async def both() -> list[str]:
        return [await paid("a"), await paid("b")]

    async with Engine(journal=path) as engine:
        with pytest.raises(RunFailed):
            await engine.run(both)
        more = Budget(usd=1)
        run = rows(path)[0].id
        assert await engine.resume(run, both, budget=more, in_doubt="retry") == ["a", "b"]
    assert calls == ["a", "b"]


async def test_only_the_time_in_which_it_ran_counts_for_its_deadline(path: Path) -> None:
    @workflow(budget=Budget(deadline=5))
    async def many() -> list[str]:
        return [await look(str(n)) for n in range(4)]

    async with Engine(journal=path) as engine:
        run = await cancelled(engine, many, after=2.5)
        await asyncio.sleep(1000)
        assert await engine.resume(run, many) == ["0", "1", "2", "3"]

        again = await cancelled(engine, many, after=2.5)
        await asyncio.sleep(1000)
        again = await cancelled_again(engine, again, many, after=1.8)
        with pytest.raises(DeadlineExceeded):
            await engine.resume(again, many)  # 0.7 s are left, and a call takes one


async def cancelled_again(
    engine: Engine, run: str, target: Any, after: float, **options: Any
) -> str:
    """Go on with a run and cancel it after some time."""
    going = await engine.reopen(run, target, **options)
    asyncio.get_running_loop().call_later(after, going.cancel)
    with pytest.raises(RunCancelled):
        await going
    await going.ended()
    return run


async def test_what_failed_is_tried_again_and_what_ended_is_not(path: Path) -> None:
    broken = True

    @tool(reads="shop")
    async def shaky(name: str) -> str:
        calls.append(f"shaky {name}")
        if broken:
            raise ConnectionError(name)
        return name

    @workflow
    async def mixed() -> list[str]:
        good = look("a")
        return [await good, await shaky("b")]

    async with Engine(journal=path) as engine:
        with pytest.raises(RunFailed):
            await engine.run(mixed)
        run = rows(path)[0].id
        with pytest.raises(RunFailed):
            await engine.resume(run, mixed)
        broken = False
        assert await engine.resume(run, mixed) == ["A", "b"]
    assert calls == ["a", "shaky b", "shaky b", "shaky b"]


def program(*names: str) -> Any:
    """A program that looks for these, one after the other."""

    @workflow
    async def flow() -> Any:
        return [await look(name) for name in names]

    return flow


async def test_another_program_is_refused_with_the_first_call_that_differs(path: Path) -> None:
    before, after = program("a", "b"), program("a2", "b")

    async with Engine(journal=path) as engine:
        run = await cancelled(engine, before)
        calls.clear()
        with pytest.raises(HistoryMismatch, match=r'calls \$1 = look\("a2"\) where.*look\("a"\)'):
            await engine.resume(run, after)
        assert calls == []
        assert await engine.resume(run, before) == ["A", "B"]  # nothing was spoilt


async def test_a_program_that_ends_too_early_is_refused(path: Path) -> None:
    before, after = program("a", "b"), program("a")
    async with Engine(journal=path) as engine:
        run = await cancelled(engine, before)
        with pytest.raises(HistoryMismatch, match=r'ends without the call \$2 = look\("b"\)'):
            await engine.resume(run, after)


async def test_a_finished_run_is_not_gone_on_with(path: Path) -> None:
    async with Engine(journal=path) as engine:
        assert await engine.run(two, "a", "b") == ["A", "B"]
        with pytest.raises(JournalError, match="has finished"):
            await engine.resume(rows(path)[0].id)
        with pytest.raises(JournalError, match="nope"):
            await engine.resume("nope")


async def test_a_run_that_goes_on_elsewhere_is_not_gone_on_with(path: Path) -> None:
    async with Engine(journal=path) as one, Engine(journal=path) as other:
        run = one.start(two, "a", "b")
        await asyncio.sleep(0.5)
        with pytest.raises(JournalError, match=run.id):
            await other.resume(run.id)
        assert await run == ["A", "B"]


async def test_a_run_that_goes_on_here_is_not_gone_on_with(path: Path) -> None:
    async with Engine(journal=path) as engine:
        run = await cancelled(engine, two, "a", "b")
        going = await engine.reopen(run)
        with pytest.raises(JournalError, match="going on in this engine"):
            await engine.resume(run)
        assert await going == ["A", "B"]


async def test_a_run_whose_program_is_not_found_rests_as_it_did(path: Path) -> None:
    async with Engine(journal=path, tools=[look]) as engine:
        run = await cancelled(engine, engine.plan('$1 = look(name="a")\nreturn $1\n'), after=0.5)
    async with Engine(journal=path) as engine:
        with pytest.raises(DefinitionError):
            await engine.resume(run)
    assert rows(path)[0].state == "cancelled"


async def test_a_value_that_looks_like_a_reference_is_none(path: Path) -> None:
    @tool(pure=True)
    async def odd(name: str) -> Any:
        return {name: "no digest"}

    @workflow
    async def flow() -> list[Any]:
        found = [await odd("$blob"), await odd("$json")]
        await look("a")
        return found

    async with Engine(journal=path) as engine:
        run = await cancelled(engine, flow, after=0.5)
        assert await engine.resume(run, flow) == [{"$blob": "no digest"}, {"$json": "no digest"}]


async def test_an_engine_without_a_journal_says_so() -> None:
    async with Engine() as engine:
        with pytest.raises(DefinitionError, match="journal="):
            await engine.resume("x")


async def test_keys_are_the_same_after_a_resume(path: Path) -> None:
    keys: list[str] = []

    @tool(writes="shop", idempotent=True)
    async def put(name: str, context: Context = Context()) -> None:
        keys.append(context.idempotency_key)
        await asyncio.sleep(10)

    @workflow
    async def flow() -> None:
        await look("a")
        await put("b")

    async with Engine(journal=path) as engine:
        run = await cancelled(engine, flow)
        await engine.resume(run, flow)
    assert len(keys) == 2 and len(set(keys)) == 1


async def test_watchers_are_told_what_comes_from_the_journal(path: Path) -> None:
    told: list[Event] = []
    async with Engine(journal=path) as engine:
        run = await cancelled(engine, two, "a", "b")
        engine.subscribe(told.append)
        await engine.resume(run)
    reused = [event for event in told if isinstance(event, NodeReused)]
    assert [(event.node, event.source, event.saved) for event in reused] == [(0, "journal", 1.0)]
    assert [event.node for event in told if isinstance(event, NodeFinished)] == [0, 1]
    assert isinstance(told[-1], RunFinished)


async def test_nobody_hears_of_a_value_before_it_is_durable(path: Path) -> None:
    heard: list[tuple[str, int]] = []

    def listen(event: Event) -> None:
        if isinstance(event, NodeFinished | RunFinished):
            heard.append((type(event).__name__, len(_committed(path))))

    async with Engine(journal=path, subscribers=[listen]) as engine:
        value = await engine.run(two, "a", "b")
        kept = _committed(path)
    assert value == ["A", "B"]
    assert [name for name, _ in heard] == ["NodeFinished", "NodeFinished", "RunFinished"]
    ends = [n for n, line in enumerate(kept, 1) if '"node_finished"' in line or "run_fini" in line]
    assert all(there >= end for (_, there), end in zip(heard, ends, strict=True))


def _committed(path: Path) -> list[str]:
    """The records that another process can see."""
    db = sqlite3.connect(path)
    try:
        found = db.execute("SELECT lines FROM records ORDER BY run, seq").fetchall()
    finally:
        db.close()
    return [line for (lines,) in found for line in _text(lines).split("\n") if line]


def _text(lines: Any) -> str:
    return lines.decode() if isinstance(lines, bytes) else str(lines)


async def test_a_call_that_may_write_waits_until_all_before_it_is_durable(path: Path) -> None:
    seen: list[str] = []

    @tool
    async def write() -> None:
        seen.extend(_committed(path))

    @workflow
    async def flow() -> None:
        await look("a")
        await write()

    async with Engine(journal=path) as engine:
        await engine.run(flow)
    assert '"event":"intent"' in seen[-1] and any('"A"' in line for line in seen)


async def test_a_journal_that_cannot_be_written_stops_calls_that_write(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_text("not a folder")

    @tool
    async def write() -> None:
        calls.append("write")

    @workflow
    async def flow() -> None:
        await write()

    engine = Engine(journal=folder / "journal.db")
    with pytest.raises(RunFailed, match="JournalError"):
        await engine.run(flow)
    assert calls == []
    with pytest.raises(JournalError):
        await engine.aclose()


async def test_a_value_that_json_does_not_keep_is_found_again_by_calling(path: Path) -> None:
    class Odd:
        pass

    @tool(pure=True)
    async def odd() -> Any:
        calls.append("odd")
        return Odd()

    @workflow
    async def flow() -> str:
        await odd()
        return await look("a")

    async with Engine(journal=path) as engine:
        run = await cancelled(engine, flow, after=0.5)
        assert await engine.resume(run, flow) == "A"
    assert calls == ["odd", "a", "odd", "a"]
    (ended,) = [r for r in records(path) if r.get("lost")][:1]
    assert "Odd" in ended["lost"]


async def test_a_tenant_s_runs_are_kept_too(path: Path) -> None:
    async with Engine(journal=path) as engine:
        assert await engine.tenant("acme").run(two, "a", "b") == ["A", "B"]
    assert rows(path)[0].state == "finished"


async def test_what_is_streamed_is_kept_too(path: Path) -> None:
    async with Engine(journal=path) as engine:
        told = [event async for event in engine.stream(two, "a", "b")]
    assert isinstance(told[-1], RunFinished)
    assert rows(path)[0].note == '["A", "B"]'


async def test_a_deadline_answers_in_time_although_the_journal_is_slow(path: Path) -> None:
    @workflow(budget=Budget(deadline=0.5))
    async def late() -> str:
        return await look("a")

    async with Engine(journal=path) as engine:
        began = asyncio.get_running_loop().time()
        with pytest.raises(DeadlineExceeded):
            await engine.run(late)
        assert asyncio.get_running_loop().time() - began <= 0.55
    assert rows(path)[0].state == "failed"


async def test_several_runs_share_a_journal(path: Path) -> None:
    async with Engine(journal=Journal(path)) as engine:
        values = await asyncio.gather(*(engine.run(two, f"{n}", "b") for n in range(20)))
    assert values == [[f"{n}", "B"] for n in range(20)]
    assert [row.state for row in rows(path)] == ["finished"] * 20


async def test_the_budget_it_began_with_holds_whoever_gives_the_program(path: Path) -> None:
    @workflow
    async def three() -> list[str]:
        return [await paid("a"), await paid("b"), await paid("c")]

    limited = three.within(Budget(usd="0.025"))
    async with Engine(journal=path) as engine:
        run = await cancelled(engine, limited)
        with pytest.raises(RunFailed, match="do not fit"):
            await engine.resume(run, three, in_doubt="retry")
        run = await cancelled_again(
            engine, run, three, after=0.5, budget=Budget(usd="0.035"), in_doubt="retry"
        )
        with pytest.raises(RunFailed, match=r"of 0\.035"):  # it is remembered
            await engine.resume(run, three, in_doubt="retry")


async def test_a_program_that_is_given_has_the_arguments_it_began_with(path: Path) -> None:
    async with Engine(journal=path) as engine:
        run = await cancelled(engine, two, "a", "b")
        assert await engine.resume(run, two) == ["A", "B"]


async def test_another_workflow_is_refused_by_name(path: Path) -> None:
    async with Engine(journal=path) as engine:
        run = await cancelled(engine, two, "a", "b")
        with pytest.raises(HistoryMismatch, match=r"of the workflow two, and not of flow"):
            await engine.resume(run, program("a", "b"))
        with pytest.raises(DefinitionError, match="'rety'"):
            await engine.resume(run, in_doubt="rety")
        assert await engine.resume(run) == ["A", "B"]
