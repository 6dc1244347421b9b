"""Code that holds the event loop is named, while it does and afterwards."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextvars import Context
from importlib.abc import MetaPathFinder
from typing import Any

import pytest
import structlog

from agentflow import Engine, Limits, tool, workflow
from agentflow.errors import DefinitionError
from agentflow.events import Event, LoopBlocked, RunFinished
from agentflow.executor import watchdog
from agentflow.testing import run_virtual

PATIENT = 20.0
"""Real seconds after which a test gives up."""

IMPORTING = """
async def importing():
    try:
        import made_up
    except ImportError:
        pass
"""


class Log:
    """What is logged, from any thread."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.written = threading.Event()

    def __call__(self, _logger: Any, _level: str, line: Any) -> Any:
        # On a machine that is busy, other code may be slow as well.
        if __file__ in line["where"] or "importlib" in line["where"]:
            self.lines.append(dict(line))
            self.written.set()
        raise structlog.DropEvent


@pytest.fixture
def anyio_backend() -> str:
    """Real time: a virtual loop is not looked after."""
    return "asyncio"


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log()
    structlog.configure(processors=[made])
    yield made
    structlog.reset_defaults()


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine(limits=Limits(watchdog=0.02)) as made:
        yield made


def line_of(fn: Any, code: str) -> str:
    """Where in a function a piece of code stands, as the watchdog tells it."""
    lines, first = inspect.getsourcelines(fn)
    offset = next(number for number, line in enumerate(lines) if code in line)
    return f"{inspect.getsourcefile(fn)}:{first + offset} in {fn.__name__}"


def blocked_by_us(found: Iterable[Event]) -> list[LoopBlocked]:
    """What is told of the code on this page."""
    return [each for each in found if isinstance(each, LoopBlocked) and __file__ in each.where]


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "watchdog" in thread.name]


held: threading.Event
"""Set when whoever holds the loop may go on; of the test that runs."""


@pytest.fixture(autouse=True)
def _held(log: Log) -> None:
    global held
    held = log.written


@tool
async def hold(seconds: float) -> float:
    held.wait(seconds)
    return seconds


@tool
async def parse(text: str) -> Any:
    return json.loads(text, object_hook=lambda found: held.wait(PATIENT) and found)


@tool
async def double(number: int) -> int:
    return 2 * number


@workflow
async def flow() -> float:
    return await hold(PATIENT * await double(1))


@workflow
async def quick() -> int:
    return await double(4)


@workflow
async def longer() -> float:
    return await hold(0.3)


@workflow
async def patient() -> bool:
    return await asyncio.to_thread(threading.Event().wait, 0.1)


@workflow
async def outer() -> float:
    return await flow()


@workflow
async def busy() -> int:
    number = await double(4)
    held.wait(PATIENT)
    return number


@workflow
async def around() -> int:
    return await busy()


@workflow
async def parsing() -> Any:
    return await parse('{"a": 1}')


async def told(engine: Engine, target: Any) -> list[Event]:
    return [event async for event in engine.stream(target)]


async def test_a_tool_that_holds_the_loop_is_named_while_it_does(engine: Engine, log: Log) -> None:
    run = engine.start(flow)

    await run
    [line] = log.lines
    assert line["event"].startswith("the event loop is blocked")
    assert (line["tool"], line["node"], line["run"]) == ("hold", 1, run.id)
    assert line["where"] == line_of(hold.fn, "held.wait")


async def test_the_runs_stream_tells_of_it_before_the_end(engine: Engine) -> None:
    found = await told(engine, flow)

    [blocked] = blocked_by_us(found)
    assert (blocked.tool, blocked.node, blocked.by) == ("hold", 1, blocked.run)
    assert blocked.where == line_of(hold.fn, "held.wait")
    assert 0.01 < blocked.seconds < PATIENT
    assert isinstance(found[-1], RunFinished)


async def test_every_run_is_told_who_held_it_up(engine: Engine) -> None:
    told_here: list[Event] = []
    engine.subscribe(told_here.append)
    waits = asyncio.Event()

    @workflow
    async def waiting() -> None:
        await waits.wait()

    other, holder = engine.start(waiting), engine.start(flow)
    await holder
    waits.set()
    await other

    found = blocked_by_us(told_here)
    assert {(event.run, event.by) for event in found} == {
        (other.id, holder.id),
        (holder.id, holder.id),
    }


async def test_a_call_of_a_nested_run_is_named_by_its_own_run(engine: Engine) -> None:
    found = await told(engine, outer)

    [blocked] = blocked_by_us(found)
    inner = {event.run for event in found} - {blocked.run}
    assert (blocked.tool, blocked.node, {blocked.by}) == ("hold", 1, inner)


async def test_the_code_of_a_workflow_is_named_without_a_tool(engine: Engine, log: Log) -> None:
    run = engine.start(busy)

    assert await run == 8
    [line] = log.lines
    assert line["where"] == line_of(busy.fn, "held.wait")
    assert line["run"] == run.id
    assert "tool" not in line
    assert "node" not in line


async def test_the_code_of_a_nested_workflow_is_not_its_callers_call(engine: Engine) -> None:
    found = await told(engine, around)

    [blocked] = blocked_by_us(found)
    inner = {event.run for event in found} - {blocked.run}
    assert (blocked.tool, blocked.node, {blocked.by}) == ("", None, inner)


async def test_the_line_is_the_tools_own_though_it_is_a_library_that_takes_long(
    engine: Engine, log: Log
) -> None:
    await engine.run(parsing)

    assert log.lines[0]["where"] == line_of(parse.fn, "json.loads")


async def test_code_outside_of_all_runs_is_named_too(engine: Engine, log: Log) -> None:
    gate = asyncio.Event()

    def rude() -> None:
        held.wait(PATIENT)
        gate.set()

    @workflow
    async def waiting() -> None:
        asyncio.get_running_loop().call_soon(rude, context=Context())
        await gate.wait()

    found = await told(engine, waiting)

    [blocked] = blocked_by_us(found)
    assert (blocked.where, blocked.tool, blocked.by) == (line_of(rude, "held.wait"), "", "")
    assert "run" not in log.lines[0]


async def test_who_holds_the_loop_next_is_named_too(engine: Engine, log: Log) -> None:
    gate = asyncio.Event()

    def first() -> None:
        held.wait(PATIENT)
        held.clear()

    def second() -> None:
        held.wait(PATIENT)
        gate.set()

    @workflow
    async def waiting() -> None:
        asyncio.get_running_loop().call_soon(first)
        asyncio.get_running_loop().call_soon(second)
        await gate.wait()

    found = await told(engine, waiting)

    places = [line_of(first, "held.wait"), line_of(second, "held.wait")]
    assert [line["where"] for line in log.lines] == places
    assert [event.where for event in blocked_by_us(found)] == places
    assert all(0 < event.seconds < PATIENT for event in blocked_by_us(found))


async def test_one_place_is_warned_of_once(engine: Engine, log: Log) -> None:
    first = await told(engine, longer)
    log.written.clear()
    second = await told(engine, longer)

    assert len(blocked_by_us([*first, *second])) == 2
    assert len(log.lines) == 1


async def test_a_loop_that_waits_is_not_blamed(engine: Engine, log: Log) -> None:
    found = await told(engine, patient)

    assert not blocked_by_us(found)
    assert log.lines == []


async def test_much_short_work_is_not_blamed(log: Log) -> None:
    @workflow
    async def bustling() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(60):
            loop.call_soon(held.wait, 0.005)
        await asyncio.sleep(0)

    async with Engine(limits=Limits(watchdog=0.2)) as engine:
        await engine.run(bustling)

    assert log.lines == []


async def test_an_import_of_ours_is_not_blamed(
    engine: Engine, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(MetaPathFinder):
        def find_spec(self, fullname: str, *_: Any) -> None:
            if fullname == "made_up":
                held.wait(0.1)

    monkeypatch.setattr(sys, "meta_path", [Slow(), *sys.meta_path])
    ours: dict[str, Any] = {"__name__": "agentflow.made_up"}
    exec(IMPORTING, ours)  # noqa: S102  # it is to look like a module of ours

    @workflow
    async def imports() -> None:
        await asyncio.create_task(ours["importing"]())

    await engine.run(imports)

    assert log.lines == []


async def test_its_thread_ends_with_the_engine() -> None:
    async with Engine() as engine:
        await engine.run(quick)
        [thread] = threads()

    await asyncio.to_thread(thread.join, PATIENT)
    assert not thread.is_alive()


async def test_its_thread_ends_when_there_are_no_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "IDLE", 0.01)
    engine = Engine(limits=Limits(watchdog=0.01))
    await engine.run(quick)
    [thread] = threads()
    await asyncio.to_thread(thread.join, PATIENT)
    assert not thread.is_alive()

    await engine.run(quick)
    assert len(threads()) == 1
    await engine.aclose()


async def test_it_can_be_switched_off() -> None:
    async with Engine(limits=Limits(watchdog=None)) as engine:
        await engine.run(quick)
        assert threads() == []


def test_a_virtual_loop_is_not_looked_after() -> None:
    async def main() -> list[threading.Thread]:
        async with Engine() as engine:
            await engine.run(quick)
            return threads()

    assert run_virtual(main()) == []


def test_a_limit_that_is_none_is_refused() -> None:
    with pytest.raises(DefinitionError, match="watchdog=0"):
        Limits(watchdog=0)
