"""Runs: how they end, what their errors keep, deadlines, cancellation, and what is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from agentflow import Budget, Context, Engine, Limits, Plan, tool, workflow
from agentflow.clock import now
from agentflow.errors import (
    ArgumentError,
    CallCancelled,
    CallSkipped,
    DeadlineExceeded,
    DefinitionError,
    PlanError,
    ResultError,
    RunCancelled,
    RunError,
    RunFailed,
)
from agentflow.events import TERMINAL, Event, NodeStarted, RunFinished, RunStarted
from agentflow.planner.plan import Answer, Node, Ref
from agentflow.testing import Timeline


@tool
async def slow(value: Any, seconds: float = 1.0) -> Any:
    await asyncio.sleep(seconds)
    return value


@tool
async def boom(text: str = "boom", seconds: float = 0.0) -> Any:
    await asyncio.sleep(seconds)
    raise ValueError(text)


TOOLS = [slow, boom]


@workflow
async def wait(seconds: float) -> str:
    return await slow("waited", seconds)  # type: ignore[no-any-return]  # slow takes anything


class Log:
    """The events of an engine, and whether each run has exactly one terminal one, its last."""

    def __init__(self, engine: Engine) -> None:
        self.events: list[Event] = []
        engine.subscribe(self.events.append)

    def check(self) -> list[str]:
        """Names of the terminal events, in the order of their runs."""
        runs: dict[str, list[Event]] = {}
        for event in self.events:
            runs.setdefault(event.run, []).append(event)
        for told in runs.values():
            assert isinstance(told[0], RunStarted)
            assert [isinstance(event, TERMINAL) for event in told].count(True) == 1
            assert isinstance(told[-1], TERMINAL)
        return [type(told[-1]).__name__ for told in runs.values()]


@pytest.fixture
def log(engine: Engine) -> Iterator[Log]:
    made = Log(engine)
    yield made
    made.check()


# Plans


async def test_a_plan_gives_what_it_returns(engine: Engine, log: Log) -> None:
    nodes = (Node("slow", (1,)), Node("slow", ({"x": [Ref(0)]},)))
    plan = Plan(nodes, {"one": Ref(0), "two": Ref(1, ("x", 0)), "three": 3})
    assert await engine.run(plan, tools=TOOLS) == {"one": 1, "two": 1, "three": 3}
    assert log.check() == ["RunFinished"]


@pytest.mark.parametrize("answer", list(Answer))
async def test_a_plan_that_returns_nothing_gives_all_results(
    engine: Engine, answer: Answer
) -> None:
    plan = Plan((Node("slow", (1,)), Node("slow", (2,), guard=Ref(0)), Node("slow", (0,))), answer)
    assert await engine.run(plan, tools=TOOLS) == {0: 1, 1: 2, 2: 0}


async def test_what_is_returned_is_nobody_elses(engine: Engine) -> None:
    run = engine.start(Plan((Node("slow", ([1],)),), Ref(0)), tools=TOOLS)
    (await run).append(2)
    assert run.results == {0: [1]}


async def test_returning_a_skipped_call_says_so(engine: Engine, log: Log) -> None:
    plan = Plan((Node("slow", (0,)), Node("slow", (1,), guard=Ref(0))), Ref(1))
    with pytest.raises(RunFailed) as failed:
        await engine.run(plan, tools=TOOLS)
    assert isinstance(failed.value.__cause__, CallSkipped)
    assert log.check() == ["RunFailed"]


async def test_a_returned_path_that_leads_nowhere_says_so(engine: Engine) -> None:
    with pytest.raises(RunFailed, match="there is no 'y'"):
        await engine.run(Plan((Node("slow", ({"x": 1},)),), Ref(0, ("y",))), tools=TOOLS)


async def test_a_plan_that_cannot_be_run_is_refused_before_anything_starts(
    engine: Engine, log: Log
) -> None:
    for plan, kind in (
        (Plan((Node("slow", (1,)), Node("slwo"))), "unknown_tool"),
        (Plan((Node("slow", (Ref(0),)),)), "self_ref"),
        (Plan((Node("slow", ()),)), "arity"),
        (Plan(), "empty_plan"),
    ):
        with pytest.raises(PlanError) as refused:
            engine.start(plan, tools=TOOLS)
        assert refused.value.kind == kind
    assert log.events == []


async def test_an_engine_runs_nothing_else(engine: Engine) -> None:
    targets: list[Any] = [5, None, slow, [wait]]
    for target in targets:
        with pytest.raises(DefinitionError, match="an engine runs"):
            engine.start(target)


# Ends


async def test_a_failed_run_keeps_what_was_done_and_names_what_was_not(
    engine: Engine, log: Log
) -> None:
    nodes = (
        Node("slow", ("done", 1.0)), Node("boom", ("bad", 2.0)), Node("slow", ("cut", 50.0)),
        Node("slow", (Ref(1),)), Node("slow", (Ref(2),)),
    )  # fmt: skip
    with pytest.raises(RunFailed) as failed:
        await engine.run(Plan(nodes), tools=TOOLS)
    error = failed.value
    assert now() == 2.0
    assert error.results == {0: "done"}
    assert error.pending == (2, 4)
    assert error.unfinished == ()
    assert [(node, str(cause)) for node, cause in error.failures.items()] == [(1, "bad")]
    assert str(error.__cause__) == "bad" and "plan failed: ValueError: bad" in str(error)
    assert log.check() == ["RunFailed"]


async def test_a_run_may_be_awaited_again_and_by_several(engine: Engine, log: Log) -> None:
    run = engine.start(wait, 2.0)
    assert [*await asyncio.gather(run, run, run.result())] == ["waited"] * 3
    assert await run == "waited" and run.done
    failing = engine.start(Plan((Node("boom"),)), tools=TOOLS)
    for _ in range(2):
        with pytest.raises(RunFailed):
            await failing
    assert log.check() == ["RunFinished", "RunFailed"]


async def test_a_run_goes_on_when_nobody_awaits_it(engine: Engine, log: Log) -> None:
    run = engine.start(wait, 2.0)
    await asyncio.sleep(3)
    assert run.done and await run == "waited"


async def test_a_failure_nobody_awaits_is_quiet(engine: Engine, log: Log) -> None:
    run = engine.start(Plan((Node("boom"),)), tools=TOOLS)
    await run.ended()
    assert log.check() == ["RunFailed"]


async def test_cancelling_a_run_stops_it_and_says_why(engine: Engine, log: Log) -> None:
    run = engine.start(wait, 50.0)
    await asyncio.sleep(1)
    run.cancel(reason="changed my mind")
    run.cancel(reason="not heard")
    with pytest.raises(RunCancelled, match="wait was cancelled: changed my mind") as cancelled:
        await run
    assert now() == 1.0 and cancelled.value.pending == (0,)
    run.cancel()
    assert log.check() == ["RunCancelled"]


async def test_cancelling_a_run_stops_its_calls_also_while_its_body_cleans_up(
    engine: Engine, log: Log
) -> None:
    line = Timeline()

    @tool
    async def long() -> None:
        with line.span("long"):
            await asyncio.sleep(100)

    @workflow
    async def flow() -> None:
        long()
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            line.note("clean")

    run = engine.start(flow)
    await asyncio.sleep(2)
    run.cancel()
    with pytest.raises(RunCancelled):
        await run
    assert line.at("long ended") == 2.0 and line.at("clean") == 3.0


async def test_cancelling_a_run_before_it_began(engine: Engine, log: Log) -> None:
    run = engine.start(wait, 50.0)
    run.cancel()
    with pytest.raises(RunCancelled):
        await run
    await run.ended()
    assert log.check() == ["RunCancelled"]
    assert not any(isinstance(event, NodeStarted) for event in log.events)


async def test_cancelling_whoever_awaits_a_run_cancels_it(engine: Engine, log: Log) -> None:
    line = Timeline()

    @tool
    async def tidy() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            line.note("clean")

    waiter = asyncio.create_task(engine.run(Plan((Node("tidy"),)), tools=[tidy]))
    await asyncio.sleep(2)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert line.at("clean") == now() == 3.0  # it waited for the cleaning up
    assert log.check() == ["RunCancelled"]


async def test_a_timeout_or_a_cancel_scope_around_a_run_cancels_it(
    engine: Engine, log: Log
) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await engine.run(wait, 50.0)
    with anyio.move_on_after(2) as scope:
        await engine.run(wait, 50.0)
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.run(wait, 50.0), 2)
    assert now() == 6.0
    assert log.check() == ["RunCancelled"] * 3


async def test_a_cancellation_that_a_workflow_raises_by_itself_is_a_failure(
    engine: Engine, log: Log
) -> None:
    @workflow
    async def confused() -> None:
        inner = asyncio.create_task(asyncio.sleep(10))
        inner.cancel()
        await inner

    with pytest.raises(RunFailed, match="CancelledError"):
        await engine.run(confused)
    assert log.check() == ["RunFailed"]


async def test_a_call_may_be_cancelled_by_its_id(engine: Engine, log: Log) -> None:
    run = engine.start(
        Plan((Node("slow", (1, 50.0)), Node("slow", (Ref(0),)), Node("slow", (2,)))), tools=TOOLS
    )
    await asyncio.sleep(0.5)
    run.cancel(call=0)
    assert await run == {2: 2}
    run = engine.start(Plan((Node("slow", (1, 50.0)),), Ref(0)), tools=TOOLS)
    await asyncio.sleep(0.5)
    run.cancel(call=0)
    with pytest.raises(RunFailed) as failed:
        await run
    assert isinstance(failed.value.__cause__, CallCancelled)


async def test_a_call_that_is_not_there_cannot_be_cancelled(engine: Engine) -> None:
    run = engine.start(wait, 5.0)
    for call in (0, -1, 7):
        with pytest.raises(LookupError, match="has no call"):
            run.cancel(call=call)
    await run


async def test_a_workflow_that_ignores_its_cancellation_is_ended_without(log: Log) -> None:
    release = asyncio.Event()

    @workflow
    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    engine = Engine(limits=Limits(grace=2.0))
    run = engine.start(stubborn)
    await asyncio.sleep(1)
    run.cancel()
    with pytest.raises(RunCancelled):
        await run
    assert now() == 3.0
    assert engine.services.abandoned == [f"stubborn (run {run.id})"]
    assert await engine.aclose() == [f"stubborn (run {run.id})"]
    assert now() == 3.0  # what has had its time is not given it again
    release.set()


# Deadlines


async def test_at_its_deadline_a_run_is_answered_and_cleaning_up_goes_on(
    engine: Engine, log: Log
) -> None:
    line = Timeline()

    @tool
    async def tidy() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1.5)
            line.note("clean")

    plan = Plan((Node("slow", ("done",)), Node("tidy"), Node("slow", (Ref(1),))))
    run = engine.start(plan, tools=[slow, tidy], deadline="4s")
    with pytest.raises(DeadlineExceeded) as late:
        await run
    assert now() == 4.0 and isinstance(late.value, TimeoutError)
    assert late.value.results == {0: "done"}
    assert late.value.pending == (1, 2)
    assert late.value.unfinished == ("tidy",)
    assert "plan passed its deadline; calls not done: 2" in str(late.value)
    assert log.check() == ["RunFailed"]
    await run.ended()
    assert line.at("clean") == now() == 5.5


async def test_a_run_that_is_being_cancelled_is_answered_at_its_deadline(
    engine: Engine, log: Log
) -> None:
    @tool
    async def tidy() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1.5)

    run = engine.start(Plan((Node("tidy"),)), tools=[tidy], deadline=4)
    await asyncio.sleep(3)
    run.cancel()
    with pytest.raises(RunCancelled):
        await run
    assert now() == 4.0


async def test_a_run_that_failed_just_before_its_deadline_has_failed(
    engine: Engine, log: Log
) -> None:
    @tool
    async def tidy() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1.5)

    plan = Plan((Node("tidy"), Node("boom", ("bad", 3.0))))
    with pytest.raises(RunFailed, match="bad"):
        await engine.run(plan, tools=[tidy, boom], deadline=4)
    assert now() == 4.0


async def test_a_deadline_stops_new_attempts_and_new_calls(engine: Engine, log: Log) -> None:
    tries: list[float] = []

    @tool(retries=100, backoff=0)
    async def flaky() -> None:
        tries.append(now())
        await asyncio.sleep(1)
        raise OSError

    run = engine.start(Plan((Node("flaky"),)), tools=[flaky], deadline=3.5)
    with pytest.raises(DeadlineExceeded):
        await run
    await run.ended()
    await asyncio.sleep(10)
    assert tries == [0.0, 1.0, 2.0, 3.0]


async def test_a_deadline_is_passed_on_to_tools(engine: Engine) -> None:
    @tool
    async def left(ctx: Context = Context()) -> float | None:
        await asyncio.sleep(1)
        return ctx.remaining()

    @workflow(budget=Budget(deadline="10s"))
    async def flow() -> float | None:
        await asyncio.sleep(2)
        return await left()

    assert await engine.run(flow) == 7.0
    assert await left() is None


async def test_a_deadline_shrinks_down_the_tree(engine: Engine, log: Log) -> None:
    @workflow(budget=Budget(deadline=60))
    async def inner() -> str:
        return await wait(50.0)

    @workflow(budget=Budget(deadline=5))
    async def outer() -> str:
        return await inner()

    with pytest.raises(DeadlineExceeded):
        await engine.run(outer)
    assert now() == 5.0


@pytest.mark.parametrize("deadline", [0, "0s"])
async def test_a_run_without_any_time_starts_nothing(
    engine: Engine, log: Log, deadline: float | str
) -> None:
    with pytest.raises(DeadlineExceeded):
        await engine.run(Plan((Node("slow", (1,)),)), tools=TOOLS, deadline=deadline)
    assert now() == 0.0
    assert not any(isinstance(event, NodeStarted) for event in log.events)


async def test_a_child_may_have_less_time_than_its_parent(engine: Engine, log: Log) -> None:
    @workflow(budget=Budget(deadline=2))
    async def inner() -> str:
        return await wait(50.0)

    @workflow(budget=Budget(deadline=60))
    async def outer() -> str:
        try:
            return await inner()
        except DeadlineExceeded:
            return "went on"

    assert await engine.run(outer) == "went on"
    assert now() == 2.0
    assert log.check() == ["RunFinished", "RunFailed", "RunFailed"]


# Workflows within workflows


async def test_a_workflow_within_a_workflow_is_a_run_of_its_own(engine: Engine, log: Log) -> None:
    @workflow
    async def outer() -> list[str]:
        return list(await asyncio.gather(wait(1.0), wait(2.0)))

    run = engine.start(outer)
    assert await run == ["waited", "waited"] and now() == 2.0
    starts = [event for event in log.events if isinstance(event, RunStarted)]
    assert [(event.name, event.parent, event.parent_node) for event in starts] == [
        ("outer", None, None), ("wait", run.id, 0), ("wait", run.id, 1),
    ]  # fmt: skip
    assert log.check() == ["RunFinished"] * 3


async def test_cancelling_a_run_cancels_the_runs_within_it(engine: Engine, log: Log) -> None:
    @workflow
    async def outer() -> str:
        return await wait(50.0)

    run = engine.start(outer)
    await asyncio.sleep(1)
    run.cancel()
    with pytest.raises(RunCancelled):
        await run
    assert now() == 1.0
    assert log.check() == ["RunCancelled", "RunCancelled"]


async def test_a_failure_within_reaches_the_caller_as_the_error_of_that_run(
    engine: Engine, log: Log
) -> None:
    @workflow
    async def inner() -> Any:
        return await boom("deep")

    @workflow
    async def outer() -> str:
        try:
            await inner()
        except RunFailed as error:
            return f"{error.__cause__}"
        return "unreachable"

    assert await engine.run(outer) == "deep"


async def test_a_workflow_called_by_a_tool_belongs_to_the_tools_run(
    engine: Engine, log: Log
) -> None:
    @tool
    async def indirect() -> str:
        return await wait(1.0)

    @workflow
    async def outer() -> str:
        return await indirect()

    run = engine.start(outer)
    assert await run == "waited"
    starts = [event for event in log.events if isinstance(event, RunStarted)]
    assert [event.parent for event in starts] == [None, run.id]


async def test_a_recursion_without_end_is_ended() -> None:
    @workflow
    async def endless(n: int) -> int:
        return await endless(n + 1)

    async with Engine(limits=Limits(depth=20)) as engine:
        with pytest.raises(RunFailed, match="called 20 workflows deep"):
            await engine.run(endless, 0)


async def test_calls_within_have_keys_that_say_where_and_are_the_same_in_every_run(
    engine: Engine, log: Log
) -> None:
    @tool
    async def key(n: int, ctx: Context = Context()) -> str:
        return ctx.idempotency_key

    @workflow
    async def inner(n: int) -> list[str]:
        return [await key(n), await key(n)]

    @workflow
    async def outer() -> list[list[str]]:
        return [await inner(1), await inner(1), *await inner.map([1, 2])]

    runs = [engine.start(outer) for _ in range(2)]
    one, other = [[key for keys in await run for key in keys] for run in runs]
    assert len(set(one)) == len(one) == 8
    assert all(key.startswith(f"{runs[0].id}:") for key in one)
    assert [key.partition(":")[2] for key in one] == [key.partition(":")[2] for key in other]


async def test_a_workflow_called_plainly_makes_its_own_engine() -> None:
    assert await wait(3.0) == "waited"
    assert now() == 3.0


async def test_arguments_and_values_of_a_workflow_have_their_declared_types(
    engine: Engine, log: Log
) -> None:
    @workflow
    async def double(n: int) -> int:
        return 2 * n

    @workflow
    async def wrong(n: int) -> int:
        return "text"  # type: ignore[return-value]  # on purpose

    text: Any = "4"
    assert await engine.run(double, text) == 8
    with pytest.raises(ArgumentError):
        text = "four"
        engine.start(double, text)
    with pytest.raises(RunFailed) as failed:
        await engine.run(wrong, 1)
    assert isinstance(failed.value.__cause__, ResultError)
    assert log.check() == ["RunFinished", "RunFailed"]


# Streams of events


async def test_a_stream_yields_every_event_and_ends_with_the_terminal_one(
    engine: Engine, log: Log
) -> None:
    @workflow
    async def outer() -> str:
        return await wait(1.0)

    told = [event async for event in engine.stream(outer)]
    assert told == log.events
    assert isinstance(told[0], RunStarted) and isinstance(told[-1], RunFinished)
    assert told[-1].value == "waited"


async def test_a_stream_of_a_run_that_fails_ends_too(engine: Engine) -> None:
    told = [e async for e in engine.stream(Plan((Node("boom"),)), tools=TOOLS)]
    assert type(told[-1]).__name__ == "RunFailed"


async def test_leaving_a_stream_cancels_the_run(engine: Engine, log: Log) -> None:
    line = Timeline()

    @tool
    async def long() -> None:
        with line.span("long"):
            await asyncio.sleep(100)

    stream = engine.stream(Plan((Node("long"),)), tools=[long])
    assert isinstance(stream, AsyncIterator)
    async for event in stream:
        if isinstance(event, NodeStarted):
            break
    await asyncio.sleep(2)
    await stream.aclose()
    assert line.at("long ended") == now() == 2.0
    assert log.check() == ["RunCancelled"]


async def test_cancelling_the_reader_of_a_stream_cancels_the_run(engine: Engine, log: Log) -> None:
    async def read() -> None:
        async for _ in engine.stream(wait, 50.0):
            pass

    reader = asyncio.create_task(read())
    await asyncio.sleep(2)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert now() == 2.0
    assert log.check() == ["RunCancelled"]


async def test_a_subscription_may_be_ended(engine: Engine) -> None:
    told: list[Event] = []
    end = engine.subscribe(told.append)
    await engine.run(wait, 1.0)
    heard = len(told)
    end()
    await engine.run(wait, 1.0)
    assert heard == len(told) > 0


# Engines


async def test_engines_do_not_know_of_each_other() -> None:
    async with Engine() as one, Engine() as two:
        heard = Log(one), Log(two)
        await asyncio.gather(one.run(wait, 1.0), two.run(wait, 1.0))
        assert heard[0].check() == heard[1].check() == ["RunFinished"]
        assert {e.run for e in heard[0].events}.isdisjoint(e.run for e in heard[1].events)
        await one.aclose()
        assert await two.run(wait, 1.0) == "waited"


async def test_a_closed_engine_starts_nothing() -> None:
    engine = Engine()
    assert await engine.aclose() == []
    assert await engine.aclose() == []
    with pytest.raises(DefinitionError, match="closed"):
        engine.start(wait, 1.0)


async def test_closing_an_engine_ends_its_runs_and_answers_whoever_awaits_them() -> None:
    line = Timeline()

    @tool
    async def tidy() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1.5)
            line.note("clean")

    engine = Engine()
    log = Log(engine)
    run = engine.start(Plan((Node("tidy"),)), tools=[tidy])
    waiter = asyncio.create_task(run.result())
    await asyncio.sleep(1)
    assert await engine.aclose() == []
    with pytest.raises(RunCancelled, match="its engine closed"):
        await waiter
    assert line.at("clean") == now() == 2.5
    assert log.check() == ["RunCancelled"]


async def test_closing_an_engine_is_bounded_by_stubborn_calls_and_names_them() -> None:
    release = asyncio.Event()

    @tool
    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    engine = Engine(limits=Limits(grace=2.0))
    run = engine.start(Plan((Node("stubborn"),)), tools=[stubborn])
    await asyncio.sleep(1)
    assert await engine.aclose() == [f"stubborn (run {run.id}, slot 0)"]
    assert now() <= 5.0
    with pytest.raises(RunCancelled) as cancelled:
        await run
    assert isinstance(cancelled.value, RunError) and cancelled.value.unfinished == ("stubborn",)
    release.set()


async def test_a_run_that_ends_as_its_engine_closes_ends_once() -> None:
    engine = Engine()
    log = Log(engine)
    engine.start(wait, 1.0)
    asyncio.get_running_loop().call_at(1.0, lambda: None)
    await asyncio.sleep(1.0)
    await engine.aclose()
    assert len(log.check()) == 1
