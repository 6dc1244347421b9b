"""Time limits of calls: total and idle, cancellation, grace, and tools that resist."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import AsyncIterator

import anyio
import pytest

from agentflow import Context, Engine, Limits, Plan, tool
from agentflow.clock import now
from agentflow.errors import CallCancelled, CallTimeout, DeadlineExceeded, RunCancelled, RunFailed
from agentflow.events import Event, NodeEmitted
from agentflow.executor.calls.timers import Timers
from agentflow.executor.run import Run
from agentflow.planner.plan import GATHER, Join, Node, Ref
from agentflow.testing import Gate, Timeline
from agentflow.tools.tool import Tool

SETTLED = Join("settled")


def plan(*nodes: Node) -> Plan:
    return Plan(nodes)


def one(made: Tool[..., object], *args: object) -> Plan:
    return plan(Node(made.name, args))


async def cause(run: Run[object]) -> BaseException | None:
    """Why a run failed."""
    with pytest.raises(RunFailed) as failed:
        await run
    return failed.value.__cause__


async def test_a_call_that_takes_too_long_is_cancelled_and_says_so(engine: Engine) -> None:
    line = Timeline()

    @tool(timeout=5)
    async def slow() -> None:
        with line.span("slow"):
            await asyncio.sleep(100)

    error = await cause(engine.start(one(slow), tools=[slow]))
    assert isinstance(error, CallTimeout) and isinstance(error, TimeoutError)
    assert (error.tool, error.seconds, error.node) == ("slow", 5.0, 0)
    assert "slow took longer than 5 s" in str(error) and "slow.with_(timeout=...)" in str(error)
    assert line.at("slow ended") == now() == 5.0


async def test_every_tool_has_a_finite_timeout_by_default(engine: Engine) -> None:
    @tool
    async def hung() -> None:
        await asyncio.Event().wait()

    error = await cause(engine.start(one(hung), tools=[hung]))
    assert isinstance(error, CallTimeout)
    assert now() == error.seconds == 120.0


async def test_a_call_has_its_time_from_its_start_and_not_from_the_start_of_its_run(
    engine: Engine,
) -> None:
    @tool(timeout=5)
    async def step(n: int) -> int:
        await asyncio.sleep(4)
        return n

    nodes = (Node("step", (0,)), Node("step", (Ref(0),)), Node("step", (Ref(1),)))
    assert await engine.run(plan(*nodes), tools=[step]) == {0: 0, 1: 0, 2: 0}
    assert now() == 12.0


async def test_many_limits_are_met_each_at_its_time(engine: Engine) -> None:
    line = Timeline()

    async def sleeper(seconds: int) -> None:
        with line.span(str(seconds)):
            await asyncio.sleep(1000)

    tools = [tool(name=f"t{n}", timeout=n)(sleeper) for n in (7, 3, 5, 1)]
    nodes = [Node(made.name, (int(made.name[1:]),)) for made in tools]
    gather = Node(GATHER, tuple(map(Ref, range(4))), join=SETTLED)
    outcomes = (await engine.run(plan(*nodes, gather), tools=tools))[4]
    assert [type(outcome.error) for outcome in outcomes] == [CallTimeout] * 4
    assert [line.at(f"{n} ended") for n in (1, 3, 5, 7)] == [1, 3, 5, 7]


async def test_a_timeout_of_none_is_no_limit(engine: Engine) -> None:
    @tool(timeout=None)
    async def slow() -> str:
        await asyncio.sleep(100_000)
        return "done"

    assert await engine.run(one(slow), tools=[slow]) == {0: "done"}


async def test_silence_is_limited_apart_from_the_total(engine: Engine) -> None:
    @tool(timeout=100, idle=3)
    async def quiet(ctx: Context) -> None:
        for _ in range(4):
            await asyncio.sleep(2)
            ctx.emit("alive")
        await asyncio.sleep(50)

    error = await cause(engine.start(one(quiet), tools=[quiet]))
    assert isinstance(error, CallTimeout) and error.seconds == 3.0
    assert "quiet was silent for 3 s" in str(error)
    assert now() == 11.0  # 4 signs of life, then silence


async def test_signs_of_life_of_several_calls_are_told_apart(engine: Engine) -> None:
    silent: dict[str, float] = {}

    @tool(timeout=None, idle=4)
    async def talk(name: str, every: float, times: int, ctx: Context) -> None:
        try:
            for _ in range(times):
                ctx.emit("alive")
                await asyncio.sleep(every)
            await asyncio.sleep(50)
        finally:
            silent[name] = now()

    calls = [("a", 1.0, 10), ("b", 3.0, 4), ("c", 0.5, 5), ("d", 5.0, 2)]
    settled = Node(GATHER, tuple(map(Ref, range(4))), join=SETTLED)
    await engine.run(plan(*(Node("talk", call) for call in calls), settled), tools=[talk])

    assert silent == {"d": 4.0, "c": 6.0, "a": 13.0, "b": 13.0}


async def test_signs_of_life_are_not_kept() -> None:
    late: list[int] = []
    timers = Timers(asyncio.get_running_loop(), lambda slot, _: late.append(slot))
    tracemalloc.start()
    try:
        for _ in range(20_000):
            timers.touch(1, 60.0)
            await asyncio.sleep(0.0001)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000

    await asyncio.sleep(59.9)
    assert late == []
    await asyncio.sleep(0.2)
    assert late == [1]
    timers.close()


async def test_a_call_that_keeps_talking_is_held_to_its_total(engine: Engine) -> None:
    @tool(timeout=10, idle=3)
    async def chatty() -> AsyncIterator[int]:
        for n in range(100):
            await asyncio.sleep(2)
            yield n

    error = await cause(engine.start(one(chatty), tools=[chatty]))
    assert isinstance(error, CallTimeout) and error.seconds == 10.0 and now() == 10.0


async def test_items_of_a_generator_are_signs_of_life(engine: Engine) -> None:
    closed: list[float] = []

    @tool(idle=3, timeout=None)
    async def trickle() -> AsyncIterator[int]:
        try:
            for n in range(3):
                await asyncio.sleep(2.5)
                yield n
            await asyncio.sleep(60)
        finally:
            closed.append(now())

    error = await cause(engine.start(one(trickle), tools=[trickle]))
    assert isinstance(error, CallTimeout) and error.seconds == 3.0
    assert closed == [10.5]


async def test_a_generator_gives_the_list_of_its_items_and_tells_each(engine: Engine) -> None:
    @tool
    async def count(n: int) -> AsyncIterator[int]:
        for k in range(n):
            await asyncio.sleep(1)
            yield k

    told: list[Event] = []
    engine.subscribe(told.append)
    assert await engine.run(one(count, 3), tools=[count]) == {0: [0, 1, 2]}
    items = [(event.at, event.data) for event in told if isinstance(event, NodeEmitted)]
    assert items == [(1.0, 0), (2.0, 1), (3.0, 2)]


# Cancellation within a call


async def test_a_timeout_inside_a_tool_is_the_tools_own(engine: Engine) -> None:
    @tool(timeout=60)
    async def careful() -> str:
        try:
            async with asyncio.timeout(2):
                await asyncio.sleep(50)
        except TimeoutError:
            return "gave up by myself"
        return "unreachable"

    assert await engine.run(one(careful), tools=[careful]) == {0: "gave up by myself"}
    assert now() == 2.0


async def test_a_task_group_inside_a_tool_is_cancelled_with_it(engine: Engine) -> None:
    line = Timeline()

    async def part(name: str) -> None:
        with line.span(name):
            await asyncio.sleep(100)

    @tool(timeout=4)
    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(part("a"))
            tasks.create_task(part("b"))

    assert isinstance(await cause(engine.start(one(group), tools=[group])), CallTimeout)
    assert line.at("a ended") == line.at("b ended") == 4.0


async def test_cancel_scopes_of_anyio_inside_a_tool_are_its_own(engine: Engine) -> None:
    line = Timeline()

    @tool(timeout=10)
    async def scoped() -> None:
        with anyio.move_on_after(3):
            await anyio.sleep(100)
        line.note("moved on")
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 100)
            with line.span("group"):
                await anyio.sleep(100)

    assert isinstance(await cause(engine.start(one(scoped), tools=[scoped])), CallTimeout)
    assert line.at("moved on") == 3.0 and line.at("group ended") == now() == 10.0


async def test_a_tool_may_clean_up_after_its_timeout(engine: Engine) -> None:
    line = Timeline()

    @tool(timeout=5)
    async def tidy() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1.5)
            line.note("clean")

    error = await cause(engine.start(one(tidy), tools=[tidy]))
    assert isinstance(error, CallTimeout)
    assert line.at("clean") == now() == 6.5


async def test_cleaning_up_is_not_cut_off_by_a_second_reason_to_stop(engine: Engine) -> None:
    line = Timeline()

    @tool(timeout=5)
    async def tidy() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1.5)
            line.note("clean")

    run = engine.start(one(tidy), tools=[tidy])
    asyncio.get_running_loop().call_at(5.5, run.cancel)
    with pytest.raises(RunCancelled):
        await run
    assert line.at("clean") == 6.5


async def test_what_a_tool_raises_when_its_time_is_up_is_the_cause_of_its_timeout(
    engine: Engine,
) -> None:
    @tool(timeout=5)
    async def grumpy() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            raise OSError("connection lost") from None

    error = await cause(engine.start(one(grumpy), tools=[grumpy]))
    assert isinstance(error, CallTimeout)
    assert isinstance(error.__cause__, OSError)


async def test_a_value_that_comes_instead_of_a_cancellation_counts(engine: Engine) -> None:
    @tool(timeout=5)
    async def partial_answer() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(100)
        return "what I had"

    made = partial_answer
    assert await engine.run(one(made), tools=[made]) == {0: "what I had"}


async def test_a_tool_that_ignores_its_cancellation_is_abandoned_after_the_grace_and_named() -> (
    None
):
    release = asyncio.Event()

    @tool(timeout=5)
    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    engine = Engine(limits=Limits(grace=2.0))
    run = engine.start(one(stubborn), tools=[stubborn])
    error = await cause(run)
    assert isinstance(error, CallTimeout) and now() == 7.0
    assert run.unfinished == ["stubborn"]
    left = await engine.aclose()
    assert now() == 7.0  # it has had its time
    assert left == [f"stubborn (run {run.id}, slot 0)"]
    release.set()


async def test_an_abandoned_call_starts_no_further_attempt_and_reports_nothing() -> None:
    began: list[float] = []
    told: list[Event] = []

    @tool(timeout=1, retries=5, backoff=0)
    async def stubborn(ctx: Context) -> None:
        began.append(now())
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.create_task(asyncio.sleep(50)))
        ctx.emit("late")
        raise OSError("at last")

    async with Engine(limits=Limits(grace=2.0), subscribers=[told.append]) as engine:
        error = await cause(engine.start(one(stubborn), tools=[stubborn]))
        assert isinstance(error, CallTimeout) and now() == 3.0
        await asyncio.sleep(200)
    assert began == [0.0]
    assert not any(isinstance(event, NodeEmitted) for event in told)


async def test_a_call_cancelled_before_its_first_step_ends_all_the_same(engine: Engine) -> None:
    began = []

    @tool
    async def never() -> None:
        began.append(True)

    run = engine.start(one(never), tools=[never])
    await asyncio.sleep(0)  # the run begins, and so does the task of the call
    run.cancel(call=0)
    assert await run == {}
    assert not began


async def test_a_cancellation_that_a_tool_raises_by_itself_is_a_failure(engine: Engine) -> None:
    @tool
    async def confused() -> None:
        inner = asyncio.create_task(asyncio.sleep(10))
        inner.cancel()
        await inner

    error = await cause(engine.start(one(confused), tools=[confused]))
    assert isinstance(error, CallCancelled)
    assert "confused awaited something that was cancelled" in str(error)


# Writes


async def test_a_write_that_has_started_is_given_its_grace(engine: Engine) -> None:
    written: list[float] = []

    @tool(writes="orders")
    async def pay() -> str:
        await asyncio.sleep(1.5)
        written.append(now())
        return "paid"

    @tool
    async def boom() -> None:
        raise ValueError("boom")

    run = engine.start(plan(Node("pay"), Node("boom")), tools=[pay, boom])
    with pytest.raises(RunFailed) as failed:
        await run
    assert written == [1.5]
    assert failed.value.results == {0: "paid"} and failed.value.pending == ()


async def test_a_write_that_does_not_end_within_its_grace_is_cut_off(engine: Engine) -> None:
    line = Timeline()

    @tool(writes="orders")
    async def pay() -> None:
        with line.span("pay"):
            await asyncio.sleep(60)

    run = engine.start(one(pay), tools=[pay])
    await asyncio.sleep(1)
    run.cancel()
    with pytest.raises(RunCancelled) as cancelled:
        await run
    assert line.at("pay ended") == 3.0
    assert cancelled.value.pending == (0,)


async def test_a_write_that_waits_to_start_is_not_started(engine: Engine) -> None:
    began: list[str] = []

    @tool(writes="orders/{n}", limit=1)
    async def pay(n: int) -> None:
        began.append(str(n))
        await asyncio.sleep(1)

    run = engine.start(plan(Node("pay", (1,)), Node("pay", (2,))), tools=[pay])
    await asyncio.sleep(0.5)
    run.cancel()
    with pytest.raises(RunCancelled):
        await run
    assert began == ["1"]


async def test_a_read_is_cancelled_at_once(engine: Engine) -> None:
    gate = Gate()
    line = Timeline()

    @tool(reads="web")
    async def look() -> None:
        with line.span("look"):
            await gate.wait()

    run = engine.start(one(look), tools=[look], deadline=4)
    with pytest.raises(DeadlineExceeded):
        await run
    await run.ended()
    assert line.at("look ended") == 4.0
