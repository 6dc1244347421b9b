"""What users of other engines complain of most, each as a test that it does not happen here."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import tracemalloc
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from agentflow import Context, Engine, Limits, Plan, first, gather, quorum, settled, tool, workflow
from agentflow.clock import now
from agentflow.errors import CallTimeout, RunCancelled, RunFailed
from agentflow.events import TERMINAL, Event, NodeEmitted, NodeStarted, RunStarted
from agentflow.planner.plan import Node, Ref
from agentflow.testing import Timeline

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


@tool
async def step(name: str, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return name


@tool
async def fail(seconds: float) -> str:
    await asyncio.sleep(seconds)
    raise ValueError("step 0 failed")


# The five probes


async def test_when_a_sibling_fails_the_others_are_cancelled_and_what_is_finished_is_kept(
    engine: Engine,
) -> None:
    effects: list[str] = []

    @tool
    async def effect() -> None:
        await asyncio.sleep(0.4)
        effects.append("happened")

    plan = Plan((Node("fail", (0.03,)), Node("step", ("finished", 0.01)), Node("effect")))
    with pytest.raises(RunFailed) as failed:
        await engine.run(plan, tools=[fail, step, effect])
    assert now() == 0.03
    assert isinstance(failed.value.__cause__, ValueError)
    assert failed.value.results == {1: "finished"}
    await asyncio.sleep(1)
    assert effects == []


async def test_when_the_awaiting_task_is_cancelled_everything_is(engine: Engine) -> None:
    line = Timeline()

    @tool
    async def part(name: str) -> None:
        with line.span(name):
            await asyncio.sleep(10)

    plan = Plan(tuple(Node("part", (name,)) for name in "abc"))
    waiter = asyncio.create_task(engine.run(plan, tools=[part]))
    await asyncio.sleep(1)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert [line.at(f"{name} ended") for name in "abc"] == [1.0, 1.0, 1.0]


async def test_a_tool_that_blocks_stalls_neither_the_loop_nor_its_siblings(
    engine: Engine,
) -> None:
    together, beats = threading.Barrier(4, timeout=5), 0

    @tool
    def blocking(n: int) -> int:
        together.wait()  # three steps and the loop's own beat stand here at one time
        return n

    async def beat() -> None:
        await asyncio.to_thread(together.wait)

    heart = asyncio.create_task(beat())
    plan = Plan(tuple(Node("blocking", (n,)) for n in range(3)))
    assert await engine.run(plan, tools=[blocking]) == {0: 0, 1: 1, 2: 2}
    await heart
    assert beats == 0


async def test_identical_concurrent_pure_calls_run_once(engine: Engine) -> None:
    calls: list[str] = []

    @tool(pure=True)
    async def embed(text: str) -> str:
        calls.append(text)
        await asyncio.sleep(1)
        return text.upper()

    @workflow
    async def flow() -> list[str]:
        return list(await asyncio.gather(*(embed("same") for _ in range(10))))

    assert await engine.run(flow) == ["SAME"] * 10
    assert calls == ["same"]


async def test_context_variables_reach_nodes_and_threads(engine: Engine) -> None:
    @tool
    async def in_task() -> str:
        return tenant.get()

    @tool
    def in_thread(_after: str) -> str:
        return tenant.get()

    @workflow
    async def inner() -> str:
        return await in_task()

    @workflow
    async def flow() -> list[Any]:
        node = in_task()
        return await gather(node, in_thread(node.ref), inner(), in_thread.map(["x"]))

    tenant.set("ada")
    assert await engine.run(flow) == ["ada", "ada", "ada", ["ada"]]


# The list. Numbers are those of the survey; lines that other tests hold are named there.


async def test_01_a_call_has_a_stable_key_that_its_attempts_share_and_its_tool_can_see(
    engine: Engine,
) -> None:
    keys: list[str] = []

    @tool(writes="orders", idempotent=True, retries=1, backoff=0)
    async def pay(order: str, ctx: Context = Context()) -> str:
        keys.append(ctx.idempotency_key)
        if ctx.attempt == 1:
            raise OSError("connection lost after the server took it")
        return order

    @workflow
    async def flow() -> list[str]:
        return [await pay("a"), await pay("b")]

    await engine.run(flow)
    assert keys[0] == keys[1] != keys[2] == keys[3]


async def test_03_a_slow_sibling_blocks_no_unrelated_branch(engine: Engine) -> None:
    nodes = (
        Node("step", ("slow", 100.0)), Node("step", ("a", 1.0)), Node("step", (Ref(1), 1.0)),
        Node("step", (Ref(2), 1.0)),
    )  # fmt: skip
    run = engine.start(Plan(nodes), tools=[step])
    await asyncio.sleep(3)
    await asyncio.sleep(0)
    assert run.results == {1: "a", 2: "a", 3: "a"}
    await run


async def test_04_a_failing_branch_takes_nobody_with_it_where_a_policy_says_so(
    engine: Engine,
) -> None:
    @workflow
    async def flow() -> list[Any]:
        bad, good, late = fail(1.0), step("good", 2.0), step("late", 3.0)
        return [
            [outcome.status for outcome in await settled(bad, good)],
            await quorum(2, bad, good, late),
            await first(bad, good, late),
        ]

    assert await engine.run(flow) == [["failed", "done"], ["good", "late"], "good"]


async def test_04_an_error_that_was_handled_is_not_raised_again(engine: Engine) -> None:
    @workflow
    async def flow() -> str:
        handles = [fail(1.0), fail(1.0), step("fine", 1.0)]
        results = await asyncio.gather(*handles, return_exceptions=True)
        return str(results[-1])

    assert await engine.run(flow) == "fine"


async def test_05_no_sibling_outlives_its_run(engine: Engine) -> None:
    plan = Plan((Node("fail", (1.0,)), *(Node("step", (str(n), 50.0)) for n in range(5))))
    before = asyncio.all_tasks()
    with pytest.raises(RunFailed):
        await engine.run(plan, tools=[fail, step])
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("how", ["timeout", "scope", "wait_for", "run"])
async def test_06_a_cancellation_reaches_the_work_and_lets_it_clean_up(
    engine: Engine, how: str
) -> None:
    line = Timeline()

    @tool
    async def tidy() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            line.note("clean")

    run = engine.start(Plan((Node("tidy"),)), tools=[tidy])
    if how == "timeout":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await run
    elif how == "scope":
        with anyio.move_on_after(2):
            await run
    elif how == "wait_for":
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run.result(), 2)
    else:
        await asyncio.sleep(2)
        run.cancel()
    with pytest.raises(RunCancelled):
        await run
    assert line.at("clean") == now() == 3.0


async def test_07_a_hung_tool_does_not_hang_its_run(engine: Engine) -> None:
    @tool
    async def hung() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RunFailed) as failed:
        await engine.run(Plan((Node("hung"),)), tools=[hung])
    assert isinstance(failed.value.__cause__, CallTimeout)


async def test_07_one_call_may_be_cancelled_from_outside(engine: Engine) -> None:
    run = engine.start(Plan((Node("step", ("a", 500.0)), Node("step", ("b", 1.0)))), tools=[step])
    await asyncio.sleep(2)
    run.cancel(call=0)
    assert await run == {1: "b"}


async def test_08_time_is_limited_by_step_and_by_silence_and_for_the_run(engine: Engine) -> None:
    @tool(idle=2, timeout=60)
    async def heartbeat(beats: int, ctx: Context = Context()) -> int:
        for _ in range(beats):
            await asyncio.sleep(1)
            ctx.emit("alive")
        await asyncio.sleep(5)
        return beats

    with pytest.raises(RunFailed) as failed:
        await engine.run(Plan((Node("heartbeat", (10,)),)), tools=[heartbeat])
    assert isinstance(failed.value.__cause__, CallTimeout) and now() == 12.0
    with pytest.raises(TimeoutError):
        await engine.run(Plan((Node("heartbeat", (30,)),)), tools=[heartbeat], deadline=3)
    assert now() == 15.0


async def test_09_a_wide_fan_out_has_a_ceiling_by_default(engine: Engine) -> None:
    at_once = most = 0

    @tool
    async def call(n: int) -> int:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(1)
        at_once -= 1
        return n

    await engine.run(Plan(tuple(Node("call", (n,)) for n in range(2500))), tools=[call])
    assert most == 1000
    async with Engine(limits=Limits(run=50)) as small:
        most = 0
        await small.run(Plan(tuple(Node("call", (n,)) for n in range(200))), tools=[call])
    assert most == 50


async def test_11_limits_hold_under_concurrency(engine: Engine) -> None:
    at_once = most = 0

    @tool(limit=3)
    async def call(n: int) -> int:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(1)
        at_once -= 1
        return n

    plan = Plan(tuple(Node("call", (n,)) for n in range(10)))
    await asyncio.gather(*(engine.run(plan, tools=[call]) for _ in range(5)))
    assert most == 3


async def test_12_calls_are_spaced_by_a_local_rate(engine: Engine) -> None:
    starts: list[float] = []

    @tool(rate="60/m")
    async def call(n: int) -> int:
        starts.append(now())
        return n

    await engine.run(Plan(tuple(Node("call", (n,)) for n in range(5))), tools=[call])
    assert starts == [0.0, 1.0, 2.0, 3.0, 4.0]


async def test_13_progress_is_one_stream_at_every_depth_and_tools_may_report(
    engine: Engine,
) -> None:
    @tool
    async def work(ctx: Context = Context()) -> None:
        ctx.emit({"percent": 50})

    @workflow
    async def inner() -> None:
        await work()

    @workflow
    async def outer() -> None:
        await inner()

    told = [event async for event in engine.stream(outer)]
    root, child = (event for event in told if isinstance(event, RunStarted))
    assert (child.parent, child.parent_node) == (root.run, 0)
    emitted = [event for event in told if isinstance(event, NodeEmitted)]
    assert [(event.run, event.tool, event.data) for event in emitted] == [
        (child.run, "work", {"percent": 50})
    ]


@pytest.mark.parametrize("seconds", [0.0, 1.0])
async def test_14_a_stream_ends_after_an_error(engine: Engine, seconds: float) -> None:
    plan = Plan((Node("fail", (seconds,)),))
    told = [event async for event in engine.stream(plan, tools=[fail])]
    assert [isinstance(event, TERMINAL) for event in told].count(True) == 1
    assert isinstance(told[-1], TERMINAL)


async def test_16_memory_does_not_grow_with_the_steps_of_an_engine(engine: Engine) -> None:
    plan = Plan(tuple(Node("call", (n,)) for n in range(100)))

    @tool
    async def call(n: int) -> int:
        return n

    async def many(runs: int) -> int:
        for _ in range(runs):
            await engine.run(plan, tools=[call])
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = await many(5)
        assert await many(50) - before < 50_000  # 5,000 further steps
    finally:
        tracemalloc.stop()


async def test_16_a_loop_of_steps_keeps_no_chain_of_frames(engine: Engine) -> None:
    @tool
    async def call(n: int) -> int:
        return n + 1

    @workflow
    async def count(upto: int) -> int:
        n = 0
        while n < upto:
            n = await call(n)
        return n

    assert await engine.run(count, 2000) == 2000


async def test_18_a_value_of_the_wrong_type_is_refused_with_the_path_to_it(
    engine: Engine,
) -> None:
    @tool
    async def hits() -> list[dict[str, int]]:
        return [{"rank": 1}, {"rank": "first"}]  # type: ignore[dict-item]  # on purpose

    with pytest.raises(RunFailed, match=r"1\.rank"):
        await engine.run(Plan((Node("hits"),)), tools=[hits])


async def test_19_parallel_branches_share_no_mutable_state(engine: Engine) -> None:
    @tool
    async def spoil(items: list[int], n: int) -> list[int]:
        items.append(n)
        await asyncio.sleep(1)
        return items

    @tool
    async def source() -> list[int]:
        return [0]

    @workflow
    async def flow() -> list[list[int]]:
        shared = source()
        return await gather(*(spoil(shared.ref, n) for n in (1, 2, 3)))

    assert await engine.run(flow) == [[0, 1], [0, 2], [0, 3]]


async def test_22_steps_are_known_by_what_they_are_and_not_by_when_they_ran(
    engine: Engine,
) -> None:
    @tool
    async def call(n: int, seconds: float, ctx: Context = Context()) -> str:
        await asyncio.sleep(seconds)
        return ctx.idempotency_key.partition(":")[2]

    @workflow
    async def flow(delays: list[float]) -> list[str]:
        async def branch(n: int) -> str:
            await asyncio.sleep(delays[n])
            return await call(n, 0.0)

        return list(await asyncio.gather(*(branch(n) for n in range(3))))

    assert await engine.run(flow, [0.0, 1.0, 2.0]) == await engine.run(flow, [2.0, 1.0, 0.0])


async def test_23_a_thousand_tasks_at_once_hang_nothing(engine: Engine) -> None:
    plan = Plan(tuple(Node("step", (str(n), 1.0)) for n in range(3000)))
    assert len(await engine.run(plan, tools=[step])) == 3000


def test_25_importing_it_loads_nothing_heavy_and_asks_nobody() -> None:
    code = (
        "import sys, agentflow; agentflow.tool, agentflow.workflow\n"
        "heavy = {'openai', 'networkx', 'structlog', 'tenacity', 'httpx', 'diskcache'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def test_25_sequential_steps_cost_linear_time_in_events(engine: Engine) -> None:
    told: list[Event] = []
    engine.subscribe(told.append)
    nodes = (Node("step", ("a", 0.0)), *(Node("step", (Ref(n), 0.0)) for n in range(299)))
    await engine.run(Plan(nodes), tools=[step])
    assert sum(isinstance(event, NodeStarted) for event in told) == 300
    assert len(told) == 300 * 2 + 3
