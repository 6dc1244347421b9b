"""Further attempts, fallbacks, and limits on how many start and run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentflow import Context, Engine, Plan, tool, workflow
from agentflow.clock import now
from agentflow.errors import (
    ArgumentError,
    BackendBusy,
    BackendRejected,
    CallTimeout,
    DefinitionError,
    ResultError,
    RunCancelled,
    RunFailed,
)
from agentflow.events import Event, NodeFailed, NodeFinished, NodeRetrying, NodeStarted
from agentflow.planner.plan import Node
from agentflow.testing import Scripted
from agentflow.tools.tool import Tool


class Flaky(OSError):
    """Worth another attempt."""


def plan(*nodes: Node) -> Plan:
    return Plan(nodes)


def scripted(script: Scripted[Any], **options: Any) -> Tool[..., Any]:
    async def call() -> Any:
        return await script()

    return tool(**options)(call)


async def test_a_failed_call_is_not_repeated_unless_asked(engine: Engine) -> None:
    script: Scripted[str] = Scripted(Flaky("once"), "never given")
    with pytest.raises(RunFailed):
        await engine.run(plan(Node("call")), tools=[scripted(script, reads="web")])
    assert len(script.calls) == 1


async def test_attempts_follow_each_other_until_one_succeeds(engine: Engine) -> None:
    script = Scripted(Flaky("1"), Flaky("2"), "value")
    told: list[Event] = []
    engine.subscribe(told.append)
    made = scripted(script, retries=3, backoff=1)
    assert await engine.run(plan(Node("call")), tools=[made]) == {0: "value"}
    words = [type(e).__name__ for e in told if not type(e).__name__.startswith(("Run", "Plan"))]
    assert words == [
        "NodeStarted", "NodeRetrying", "NodeStarted", "NodeRetrying", "NodeStarted", "NodeFinished",
    ]  # fmt: skip
    assert [e.attempt for e in told if isinstance(e, NodeStarted)] == [1, 2, 3]
    pauses = [event.delay for event in told if isinstance(event, NodeRetrying)]
    assert [call.at for call in script.calls] == [0.0, pauses[0], sum(pauses)]
    assert 0 <= pauses[0] <= 1 and 0 <= pauses[1] <= 2


async def test_the_last_failure_is_the_calls(engine: Engine) -> None:
    script: Scripted[Any] = Scripted(Flaky("1"), Flaky("2"), Flaky("3"))
    told: list[Event] = []
    engine.subscribe(told.append)
    with pytest.raises(RunFailed) as failed:
        await engine.run(plan(Node("call")), tools=[scripted(script, retries=2, backoff=0)])
    assert str(failed.value.__cause__) == "3"
    assert [str(e.error) for e in told if isinstance(e, NodeFailed)] == ["3"]


async def test_the_pause_doubles_up_to_its_limit(engine: Engine) -> None:
    script: Scripted[Any] = Scripted(*(Flaky(str(n)) for n in range(8)))
    told: list[Event] = []
    engine.subscribe(told.append)
    made = scripted(script, retries=7, backoff="1s", backoff_limit="5s")
    with pytest.raises(RunFailed):
        await engine.run(plan(Node("call")), tools=[made])
    pauses = [event.delay for event in told if isinstance(event, NodeRetrying)]
    assert len(pauses) == 7
    assert all(0 <= p <= most for p, most in zip(pauses, [1, 2, 4, 5, 5, 5, 5], strict=True))
    assert len(set(pauses)) == 7  # jitter


async def test_the_jitter_is_the_same_under_the_same_seed() -> None:
    async def ends_at(seed: int) -> float:
        script: Scripted[Any] = Scripted(Flaky("1"), Flaky("2"), 1)
        async with Engine(seed=seed) as engine:
            began = now()
            await engine.run(plan(Node("call")), tools=[scripted(script, retries=2, backoff=10)])
            return now() - began

    assert await ends_at(1) == pytest.approx(await ends_at(1)) != await ends_at(2)


async def test_what_the_server_asked_for_is_the_least_pause(engine: Engine) -> None:
    busy = BackendBusy("busy", url="http://x", status=429, retry_after=42.0)
    script = Scripted(busy, "value")
    made = scripted(script, retries=1, backoff=1, timeout=10)
    assert await engine.run(plan(Node("call")), tools=[made]) == {0: "value"}
    assert script.calls[1].at == 42.0


async def test_a_timeout_is_worth_another_attempt_with_its_own_time(engine: Engine) -> None:
    script = Scripted(60.0, 4.0, "value")
    made = scripted(script, retries=1, backoff=0, timeout=5)
    assert await engine.run(plan(Node("call")), tools=[made]) == {0: "value"}

    assert now() == 9.0


@pytest.mark.parametrize("odd", [False, True])
async def test_an_attempt_that_outlived_its_predecessors_grace_is_left_alone(
    engine: Engine, odd: bool
) -> None:
    attempts: list[float] = []

    @tool(timeout=3, retries=1, backoff=0)
    async def call() -> str:
        attempts.append(now())
        if len(attempts) == 1:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if odd:
                    raise OSError("odd") from None
                raise
        await asyncio.sleep(2.5)  # beyond the grace of the first
        return "value"

    assert await engine.run(plan(Node("call")), tools=[call]) == {0: "value"}
    assert attempts == [0.0, 3.0]


async def test_only_the_named_errors_are_worth_another_attempt(engine: Engine) -> None:
    script: Scripted[Any] = Scripted(Flaky("1"), KeyError("no"), "never given")
    made = scripted(script, retries=5, backoff=0, retry_on=OSError)
    with pytest.raises(RunFailed) as failed:
        await engine.run(plan(Node("call")), tools=[made])
    assert isinstance(failed.value.__cause__, KeyError)
    assert len(script.calls) == 2


@pytest.mark.parametrize(
    "error",
    [
        BackendRejected("no such model", url="http://x", status=404),
        ArgumentError("bad", tool="call"),
        ResultError("bad", tool="call"),
    ],
)
async def test_what_would_fail_again_is_not_tried_again(engine: Engine, error: Exception) -> None:
    script: Scripted[Any] = Scripted(error, "never given")
    with pytest.raises(RunFailed):
        await engine.run(plan(Node("call")), tools=[scripted(script, retries=5, backoff=0)])
    assert len(script.calls) == 1


async def test_a_run_that_is_cancelled_starts_no_further_attempt(engine: Engine) -> None:
    script: Scripted[Any] = Scripted(Flaky("1"), "never given")
    run = engine.start(plan(Node("call")), tools=[scripted(script, retries=1, backoff=100)])
    await asyncio.sleep(0.001)
    run.cancel()
    with pytest.raises(RunCancelled):
        await run
    assert len(script.calls) == 1


async def test_a_stop_that_meets_a_timeout_ends_the_attempts(engine: Engine) -> None:
    began: list[float] = []

    @tool(timeout=5, retries=3, backoff=0)
    async def call() -> None:
        began.append(now())
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(1)

    run = engine.start(plan(Node("call")), tools=[call])
    await asyncio.sleep(5.5)  # the timeout has passed, the tool cleans up
    run.cancel()
    with pytest.raises(RunCancelled):
        await run
    assert began == [0.0] and now() == 6.0


async def test_attempts_of_a_call_share_its_idempotency_key(engine: Engine) -> None:
    keys: list[tuple[str, str]] = []

    @tool(writes="orders", idempotent=True, retries=2, backoff=0)
    async def pay(order: str, ctx: Context) -> str:
        keys.append((order, ctx.idempotency_key))
        if ctx.attempt < 3:
            raise Flaky
        return order

    run = engine.start(plan(Node("pay", ("a",)), Node("pay", ("b",))), tools=[pay])
    await run
    assert len(keys) == 6
    of_a, of_b = ({key for order, key in keys if order == name} for name in "ab")
    assert len(of_a) == len(of_b) == 1 and of_a != of_b
    assert all(key.startswith(f"{run.id}:plan/pay:") for key in of_a | of_b)


async def test_elements_of_a_map_have_keys_of_their_own(engine: Engine) -> None:
    keys: set[str] = set()

    @tool(pure=True)
    async def square(n: int, ctx: Context = Context()) -> int:
        keys.add(ctx.idempotency_key)
        return n * n

    @workflow
    async def squares() -> list[int]:
        return await square.map([1, 2, 3])

    assert await engine.run(squares) == [1, 4, 9]
    assert len(keys) == 3


# Fallbacks


async def test_a_fallback_value_stands_in_for_a_failed_call(engine: Engine) -> None:
    script: Scripted[Any] = Scripted(Flaky("1"), Flaky("2"))
    told: list[Event] = []
    engine.subscribe(told.append)
    made = scripted(script, retries=1, backoff=0, fallback=[])
    assert await engine.run(plan(Node("call")), tools=[made]) == {0: []}
    assert [event.value for event in told if isinstance(event, NodeFinished)] == [[]]


async def test_none_is_a_fallback_too(engine: Engine) -> None:
    made = scripted(Scripted(Flaky("1")), fallback=None)
    assert await engine.run(plan(Node("call")), tools=[made]) == {0: None}


async def test_a_fallback_tool_gets_the_arguments_and_its_own_policy(engine: Engine) -> None:
    tries: list[float] = []

    @tool(retries=1, backoff=0, timeout=5)
    async def mirror(url: str, ctx: Context) -> str:
        tries.append(now())
        if len(tries) == 1:
            await asyncio.sleep(60)
        return f"mirror of {url}, attempt {ctx.attempt}"

    @tool(fallback=mirror, timeout=1)
    async def fetch(url: str) -> str:
        await asyncio.sleep(60)
        return url

    assert await engine.run(plan(Node("fetch", ("u",))), tools=[fetch]) == {
        0: "mirror of u, attempt 2"
    }
    assert tries == [1.0, 6.0]


async def test_a_fallback_that_fails_fails_the_call(engine: Engine) -> None:
    @tool(timeout=3)
    async def mirror() -> str:
        await asyncio.sleep(60)
        return ""

    @tool(fallback=mirror)
    async def fetch() -> str:
        raise Flaky("first")

    with pytest.raises(RunFailed) as failed:
        await engine.run(plan(Node("fetch")), tools=[fetch])
    error = failed.value.__cause__
    assert isinstance(error, CallTimeout) and error.tool == "mirror" and now() == 3.0


async def test_the_limit_of_a_tool_holds_for_calls_that_fall_back_to_it(engine: Engine) -> None:
    began: list[tuple[int, float]] = []

    @tool(limit=1)
    async def mirror(n: int) -> int:
        began.append((n, now()))
        await asyncio.sleep(1)
        return -n

    @tool(fallback=mirror)
    async def fetch(n: int) -> int:
        raise Flaky("first")

    @workflow
    async def program() -> list[int]:
        one, other = fetch(1), fetch(2)
        await asyncio.sleep(0.5)
        return [await one, await other, await mirror(3), await fetch(4)]

    assert await engine.run(program) == [-1, -2, -3, -4]
    assert began == [(1, 0.0), (2, 1.0), (3, 2.0), (4, 3.0)]


async def test_calls_that_fall_back_to_each_others_tools_do_not_wait_for_ever(
    engine: Engine,
) -> None:
    broken = True

    @tool(limit=1)
    async def one() -> str:
        await asyncio.sleep(1)
        if broken:
            raise Flaky("one")
        return "one"

    @tool(limit=1)
    async def other() -> str:
        nonlocal broken
        await asyncio.sleep(1)
        if broken:
            broken = False
            raise Flaky("other")
        return "other"

    @workflow
    async def program() -> list[str]:
        return list(await asyncio.gather(one.with_(fallback=other)(), other.with_(fallback=one)()))

    assert await engine.run(program) == ["other", "one"]


async def test_a_call_may_fall_back_to_its_own_tool_although_only_one_may_run(
    engine: Engine,
) -> None:
    script: Scripted[str] = Scripted(Flaky("1"), "second")
    made = scripted(script, limit=1)

    @workflow
    async def program() -> Any:
        return await made.with_(fallback=made)()

    assert await engine.run(program) == "second"


async def test_a_call_that_is_stopped_while_its_fallback_waits_for_a_place_keeps_none(
    engine: Engine,
) -> None:
    @tool(limit=1)
    async def mirror(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    @tool(fallback=mirror, limit=1)
    async def fetch(seconds: float) -> float:
        raise Flaky("first")

    run = engine.start(plan(Node("mirror", (5.0,)), Node("fetch", (1.0,))), tools=[mirror, fetch])
    await asyncio.sleep(2)
    run.cancel(call=1)
    assert await run == {0: 5.0}

    assert await engine.run(plan(Node("fetch", (1.0,))), tools=[fetch]) == {0: 1.0}
    assert now() == 6.0


async def test_a_cancelled_call_has_no_fallback(engine: Engine) -> None:
    @tool(fallback="stand-in")
    async def call() -> str:
        await asyncio.sleep(60)
        return ""

    run = engine.start(plan(Node("call")), tools=[call])
    await asyncio.sleep(1)
    run.cancel(call=0)
    assert await run == {}


# Limits


async def test_calls_of_one_tool_run_at_once_up_to_its_limit(engine: Engine) -> None:
    at_once, most = 0, 0

    @tool(limit=3)
    async def call(n: int) -> int:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(1)
        at_once -= 1
        return n

    await engine.run(plan(*(Node("call", (n,)) for n in range(10))), tools=[call])
    assert most == 3 and now() == 4.0


async def test_the_limit_of_a_tool_holds_across_runs_and_overrides(engine: Engine) -> None:
    at_once, most = 0, 0

    @tool(limit=2)
    async def call(n: int) -> int:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(1)
        at_once -= 1
        return n

    @workflow
    async def one() -> None:
        await asyncio.gather(call(1), call.with_(timeout=50)(2), call(3))

    await asyncio.gather(engine.run(one), engine.run(one))
    assert most == 2 and now() == 3.0


async def test_two_engines_do_not_share_limits() -> None:
    @tool(limit=1)
    async def call() -> None:
        await asyncio.sleep(1)

    async with Engine() as one, Engine() as two:
        nodes = plan(Node("call"))
        await asyncio.gather(one.run(nodes, tools=[call]), two.run(nodes, tools=[call]))
    assert now() == 1.0


async def test_200_calls_run_at_once_by_default(engine: Engine) -> None:
    @tool
    async def call(n: int) -> int:
        await asyncio.sleep(1)
        return n

    await engine.run(plan(*(Node("call", (n,)) for n in range(200))), tools=[call])
    assert now() == 1.0


async def test_a_rate_spaces_the_starts_of_calls(engine: Engine) -> None:
    starts: list[float] = []

    @tool(rate="2/s", timeout=3)
    async def call(n: int) -> int:
        starts.append(now())
        return n

    await engine.run(plan(*(Node("call", (n,)) for n in range(12))), tools=[call])
    assert starts == [0.0, 0.0] + [0.5 * n for n in range(1, 11)]


async def test_a_rate_is_one_for_all_calls_of_a_tool(engine: Engine) -> None:
    starts: list[float] = []

    @tool(rate="1/s")
    async def call(n: int) -> int:
        starts.append(now())
        return n

    @workflow
    async def several() -> None:
        await asyncio.gather(call(1), call.with_(timeout=50)(2), call.with_(retries=1)(3))

    await engine.run(several)
    assert starts == [0.0, 1.0, 2.0]


async def test_an_override_may_limit_its_own_calls_further(engine: Engine) -> None:
    @tool
    async def call(n: int) -> int:
        await asyncio.sleep(1)
        return n

    @workflow
    async def several() -> list[int]:
        return await call.with_(limit=2).map(range(6))

    assert await engine.run(several) == [0, 1, 2, 3, 4, 5]
    assert now() == 3.0


def test_a_write_is_not_repeated_by_an_override_either() -> None:
    @tool(writes="orders")
    async def pay() -> None: ...

    with pytest.raises(DefinitionError, match="idempotent=True"):
        pay.with_(retries=1)
