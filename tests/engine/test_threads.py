"""Plain functions run in threads: what they see, and what becomes of those that hang."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from agentflow import Context, Engine, Limits, Plan, tool, workflow
from agentflow.clock import now
from agentflow.errors import CallTimeout, RunFailed
from agentflow.events import Event, NodeEmitted
from agentflow.executor.calls.threads import DaemonThreads
from agentflow.planner.plan import Node, Ref
from agentflow.testing import VirtualLoop

user: ContextVar[str] = ContextVar("user", default="nobody")


@pytest.fixture
def stuck(anyio_backend: object) -> Iterator[threading.Event]:
    """Set at the end of the test: threads that wait for it are stuck until then."""
    patience, VirtualLoop.patience = VirtualLoop.patience, 0.01
    event = threading.Event()
    yield event
    event.set()
    VirtualLoop.patience = patience


def plan(*nodes: Node) -> Plan:
    return Plan(nodes)


async def test_a_plain_function_runs_in_a_thread_and_the_loop_goes_on(engine: Engine) -> None:
    beat = threading.Event()

    @tool
    def blocking() -> str:
        assert beat.wait(5), "the loop stood still"
        return threading.current_thread().name

    asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(beat.set))
    results = await engine.run(plan(Node("blocking")), tools=[blocking])
    assert results[0].startswith("agentflow-")


async def test_blocking_calls_run_side_by_side(engine: Engine) -> None:
    together = threading.Barrier(3, timeout=5)

    @tool
    def blocking(n: int) -> int:
        together.wait()
        return n

    results = await engine.run(plan(*(Node("blocking", (n,)) for n in range(3))), tools=[blocking])
    assert results == {0: 0, 1: 1, 2: 2}


async def test_threads_are_used_again(engine: Engine) -> None:
    @tool
    def name(before: str) -> str:
        return threading.current_thread().name

    nodes = [Node("name", ("",))] + [Node("name", (Ref(n),)) for n in range(9)]
    results = await engine.run(plan(*nodes), tools=[name])
    assert len(set(results.values())) == 1


async def test_an_idle_thread_is_counted_on_once() -> None:
    threads = DaemonThreads(2)
    threads.submit(int).result(5)
    assert threads.submit(int).result(5) == 0  # by now the thread is idle again, or a second one
    together = threading.Barrier(2, timeout=5)
    jobs = [threads.submit(together.wait) for _ in range(2)]
    assert sorted(job.result(5) for job in jobs) == [0, 1]
    threads.shutdown()


async def test_threads_are_daemons() -> None:
    threads = DaemonThreads(1)
    seen = threads.submit(lambda: threading.current_thread().daemon)
    assert await asyncio.wrap_future(seen)
    threads.shutdown()


async def test_no_more_threads_run_than_the_engine_allows() -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    @tool
    def blocking(n: int) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        threading.Event().wait(0.002)
        with lock:
            at_once -= 1

    async with Engine(limits=Limits(threads=2)) as engine:
        await engine.run(plan(*(Node("blocking", (n,)) for n in range(8))), tools=[blocking])
    assert most == 2


async def test_context_variables_reach_threads_and_what_threads_set_stays_there(
    engine: Engine,
) -> None:
    @tool
    def who(new: str) -> str:
        before = user.get()
        user.set(new)
        return before

    user.set("ada")
    nodes = (Node("who", ("eve",)), Node("who", (Ref(0),)))
    assert await engine.run(plan(*nodes), tools=[who]) == {0: "ada", 1: "ada"}
    assert user.get() == "ada"


async def test_a_thread_reports_progress_in_order(engine: Engine) -> None:
    @tool
    def work(ctx: Context) -> str:
        for n in range(3):
            ctx.emit(n)
        return ctx.run

    told: list[Event] = []
    engine.subscribe(told.append)
    run = engine.start(plan(Node("work")), tools=[work])
    assert await run == {0: run.id}
    assert [event.data for event in told if isinstance(event, NodeEmitted)] == [0, 1, 2]
    assert told.index(next(e for e in told if isinstance(e, NodeEmitted))) < len(told) - 2


async def test_a_thread_may_ask_how_long_it_has_and_for_its_key(engine: Engine) -> None:
    @tool
    def ask(n: int, ctx: Context) -> tuple[float | None, str]:
        return ctx.remaining(), ctx.idempotency_key

    nodes = [Node("ask", (n,)) for n in range(20)]
    results = await engine.run(plan(*nodes), tools=[ask], deadline=30)
    assert {left for left, _ in results.values()} == {30.0}
    assert len({key for _, key in results.values()}) == 20


@pytest.mark.parametrize("error", [ValueError("boom"), StopIteration(3), GeneratorExit("odd")])
async def test_what_a_thread_raises_fails_its_call(engine: Engine, error: BaseException) -> None:
    @tool
    def bad() -> None:
        raise error

    with pytest.raises(RunFailed) as failed:
        await engine.run(plan(Node("bad")), tools=[bad])
    cause = failed.value.__cause__
    assert cause is error or (cause is not None and cause.__cause__ is error)


async def test_a_hung_thread_is_abandoned_at_its_timeout_counted_and_named(
    stuck: threading.Event,
) -> None:
    @tool(timeout=5)
    def hung() -> None:
        stuck.wait()

    engine = Engine()
    with pytest.raises(RunFailed) as failed:
        await engine.run(plan(Node("hung")), tools=[hung])
    assert isinstance(failed.value.__cause__, CallTimeout) and now() == 5.0
    assert engine.services.threads.abandoned == ["agentflow-1"]
    assert await engine.aclose() == ["agentflow-1"]


async def test_a_thread_of_an_earlier_attempt_is_not_heard(
    engine: Engine, stuck: threading.Event
) -> None:
    heard_again = threading.Event()
    attempts: list[int] = []

    @tool(timeout=5, retries=1, backoff=0)
    def work(ctx: Context) -> int:
        attempts.append(ctx.attempt)
        if ctx.attempt == 1:
            stuck.wait()
            ctx.emit("late")
            heard_again.set()
        else:
            stuck.set()
            heard_again.wait(5)
            ctx.emit("mine")
        return ctx.attempt

    told: list[Event] = []
    engine.subscribe(told.append)
    assert await engine.run(plan(Node("work")), tools=[work]) == {0: 2}
    assert [event.data for event in told if isinstance(event, NodeEmitted)] == ["mine"]


async def test_a_call_that_waits_behind_a_hung_thread_gets_a_thread_of_its_own(
    stuck: threading.Event,
) -> None:
    @tool(timeout=5)
    def hung() -> None:
        stuck.wait()

    @tool(timeout=None)
    def fine() -> str:
        return "fine"

    @workflow
    async def both() -> str:
        slow, quick = hung(), fine()
        with pytest.raises(CallTimeout):
            await slow
        return await quick

    engine = Engine(limits=Limits(threads=1))
    assert await engine.run(both) == "fine"
    assert now() == 5.0
    await engine.aclose()


async def test_hung_threads_are_replaced_up_to_a_limit(stuck: threading.Event) -> None:
    threads = DaemonThreads(2)

    def hang(begun: threading.Event) -> None:
        begun.set()
        stuck.wait()

    for _ in range(2):  # two of two are abandoned, and replaced
        for _ in range(2):
            begun = threading.Event()
            job = threads.submit(hang, begun)
            assert begun.wait(5)
            threads.abandon(job)
    waiting = threads.submit(lambda: "never begun")
    assert len(threads.abandoned) == 4
    assert waiting.cancel()
    threads.shutdown()


async def test_a_cancelled_call_whose_thread_has_not_begun_is_not_run(
    stuck: threading.Event,
) -> None:
    ran: list[int] = []
    threads = DaemonThreads(1)
    begun = threading.Event()

    def hang() -> None:
        begun.set()
        stuck.wait()

    blocker = threads.submit(hang)
    waiting = threads.submit(ran.append, 1)
    assert begun.wait(5)
    threads.abandon(waiting)
    stuck.set()
    blocker.result(5)
    assert threads.submit(lambda: "next").result(5) == "next"
    assert not ran and threads.abandoned == []
    threads.shutdown()


async def test_an_engine_that_closed_takes_no_more_work() -> None:
    threads = DaemonThreads(1)
    threads.shutdown()
    with pytest.raises(RuntimeError, match="the engine is closed"):
        threads.submit(print)


async def test_no_thread_is_left_after_an_engine_closed() -> None:
    @tool
    def name() -> str:
        return threading.current_thread().name

    before = set(threading.enumerate())
    async with Engine() as engine:
        await engine.run(plan(Node("name"), Node("name")), tools=[name])
        mine = set(threading.enumerate()) - before
    assert mine
    for thread in mine:
        thread.join(5)
        assert not thread.is_alive()
