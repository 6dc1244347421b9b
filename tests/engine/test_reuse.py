"""Results that are used again: for how long, for whom, and what is never kept."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from structlog.testing import capture_logs

from agentflow import Engine, Plan, tool, workflow
from agentflow.caches.caching import Caching
from agentflow.clock import now
from agentflow.errors import ArgumentError, ResultError, RunFailed
from agentflow.events import Event, NodeFinished, NodeReused, NodeStarted
from agentflow.planner.plan import Node, Ref
from agentflow.testing import Scripted
from agentflow.tools.tool import Tool


class Counted:
    """Counts calls, each of which takes a second; gives their number."""

    def __init__(self, **options: Any) -> None:
        self.calls: list[Any] = []

        @tool(name="look", **options)
        async def look(what: Any = None) -> int:
            self.calls.append(what)
            number = len(self.calls)
            await asyncio.sleep(1)
            return number

        self.tool: Tool[..., Any] = look

    async def ask(self, engine: Engine, *args: Any, **options: Any) -> Any:
        """Ask for it in a run of its own."""
        called = self.tool.with_(**options) if options else self.tool

        @workflow
        async def once() -> Any:
            return await called(*args)

        return await engine.run(once)


async def test_a_pure_tool_is_called_once_for_ever(engine: Engine) -> None:
    pure = Counted(pure=True)
    assert await pure.ask(engine, "a") == 1
    await asyncio.sleep(1e6)
    assert await pure.ask(engine, "a") == 1
    assert await pure.ask(engine, "b") == 2
    assert pure.calls == ["a", "b"]


async def test_a_tool_that_declares_nothing_is_called_every_time(engine: Engine) -> None:
    plain = Counted()
    assert [await plain.ask(engine), await plain.ask(engine)] == [1, 2]


async def test_without_a_cache_every_call_is_made() -> None:
    pure = Counted(pure=True)
    async with Engine(cache=False) as engine:
        assert [await pure.ask(engine), await pure.ask(engine)] == [1, 2]


async def test_another_engine_knows_nothing(engine: Engine) -> None:
    pure = Counted(pure=True)
    await pure.ask(engine)
    async with Engine() as other:
        assert await pure.ask(other) == 2


async def test_a_read_is_used_again_within_its_run_and_the_runs_within_it(engine: Engine) -> None:
    reads = Counted(reads="web")

    @workflow
    async def child() -> Any:
        return await reads.tool("a")

    @workflow
    async def parent() -> list[Any]:
        return [await child(), await reads.tool("a"), await child()]

    assert await engine.run(parent) == [1, 1, 1]
    assert await engine.run(parent) == [2, 2, 2]


async def test_a_read_with_a_lifetime_is_used_by_other_runs_until_it_is_over(
    engine: Engine,
) -> None:
    reads = Counted(reads="web", ttl="1m")
    assert await reads.ask(engine) == 1
    made = now()
    await asyncio.sleep(53)
    assert await reads.ask(engine) == 1
    assert now() - made == 53, "a value that is there takes no time"
    await asyncio.sleep(7)
    assert await reads.ask(engine) == 2


async def test_results_of_one_moment_do_not_expire_in_one_moment(engine: Engine) -> None:
    reads = Counted(reads="web", ttl=1000)
    await asyncio.gather(*(reads.ask(engine, n) for n in range(40)))
    await asyncio.sleep(899)
    assert len(reads.calls) == 40
    await asyncio.gather(*(reads.ask(engine, n) for n in range(40)))
    assert len(reads.calls) == 40
    await asyncio.sleep(50)
    await asyncio.gather(*(reads.ask(engine, n) for n in range(40)))
    assert 50 < len(reads.calls) < 70


@pytest.mark.parametrize("effect", [{"pure": True}, {"reads": "web"}])
async def test_a_lifetime_of_zero_means_never(engine: Engine, effect: dict[str, Any]) -> None:
    never = Counted(**effect, ttl=0)
    assert [await never.ask(engine) for _ in range(3)] == [1, 2, 3]
    assert sorted(await asyncio.gather(never.ask(engine), never.ask(engine))) == [4, 5]


async def test_a_caller_who_wants_fresh_results_is_not_given_old_ones(engine: Engine) -> None:
    reads = Counted(reads="web", ttl="1h")
    assert await reads.ask(engine) == 1
    await asyncio.sleep(600)
    assert await reads.ask(engine, ttl="1m") == 2
    assert await reads.ask(engine) == 1


# Whose results they are

tenant: ContextVar[str] = ContextVar("tenant")


async def test_tenants_do_not_share_results() -> None:
    pure = Counted(pure=True)

    async def ask(name: str) -> Any:
        tenant.set(name)
        return await pure.ask(engine)

    async with Engine(cache=Caching(scope=tenant.get)) as engine:
        answers = await asyncio.gather(*(ask(name) for name in ("a", "b", "a", "b")))
        again = await asyncio.gather(*(ask(name) for name in ("a", "b")))
    assert answers == [1, 2, 1, 2]
    assert again == [1, 2]


async def test_a_scope_is_read_where_the_call_is_made() -> None:
    reads = Counted(reads="web", ttl=60)

    @workflow
    async def both() -> list[Any]:
        tenant.set("a")
        first = reads.tool()
        tenant.set("b")
        return [await first, await reads.tool()]

    tenant.set("outside")
    async with Engine(cache=Caching(scope=tenant.get)) as engine:
        assert await engine.run(both) == [1, 2]
        tenant.set("a")
        assert await reads.ask(engine) == 1


async def test_a_retry_asks_for_the_same_tenant_as_the_first_attempt() -> None:
    script: Scripted[str] = Scripted("for nobody", OSError("down"), "for a")

    @tool(pure=True, retries=1)
    async def look() -> str:
        return await script()

    @workflow
    async def switch() -> str:
        tenant.set("a")
        return await look()

    @workflow
    async def plain() -> str:
        return await look()

    tenant.set("nobody")
    async with Engine(cache=Caching(scope=tenant.get)) as engine:
        assert await engine.run(plain) == "for nobody"
        assert await engine.run(switch) == "for a"
        assert await engine.run(plain) == "for nobody"


async def test_a_scope_that_is_no_text_is_refused() -> None:
    pure = Counted(pure=True)
    scope: Any = lambda: 7
    async with Engine(cache=Caching(scope=scope)) as engine:
        with pytest.raises(RunFailed, match=r"scope=\.\.\.\) gave 7 for look"):
            await pure.ask(engine)


# Values


@dataclass
class Order:
    items: list[str]


async def test_nobody_sees_what_another_does_to_a_value(engine: Engine) -> None:
    made: list[Order] = []

    @tool(pure=True)
    async def fetch() -> Order:
        made.append(Order(["a"]))
        return made[0]

    @workflow
    async def spoil() -> list[str]:
        order = await fetch()
        order.items.append("spoilt")
        return order.items

    assert await engine.run(spoil) == ["a", "spoilt"]
    made[0].items.append("spoilt by its maker")
    assert await engine.run(spoil) == ["a", "spoilt"]
    assert await engine.run(spoil) == ["a", "spoilt"]
    assert len(made) == 1


async def test_a_result_that_json_does_not_give_back_is_not_kept_and_that_is_said_once(
    engine: Engine,
) -> None:
    calls = Counted(pure=True)

    @tool(pure=True)
    async def parts() -> Any:
        return (await calls.tool.fn(), object())

    @workflow
    async def once() -> Any:
        return await parts()

    with capture_logs() as logs:
        results = [await engine.run(once) for _ in range(3)]
    assert [number for number, _ in results] == [1, 2, 3]
    (log,) = (log for log in logs if log["event"] == "result not cached")
    assert (log["tool"], log["log_level"]) == ("parts", "warning")


async def test_a_result_of_the_wrong_type_is_never_kept(engine: Engine) -> None:
    script: Scripted[Any] = Scripted("text", 5)

    @tool(pure=True)
    async def number() -> int:
        value: int = await script()
        return value

    @workflow
    async def once() -> int:
        return await number()

    with pytest.raises(RunFailed) as failed:
        await engine.run(once)
    assert isinstance(failed.value.__cause__, ResultError)
    assert [await engine.run(once), await engine.run(once)] == [5, 5]


async def test_what_is_kept_by_another_declared_type_is_not_used(engine: Engine) -> None:
    def made(kind: type) -> Tool[..., Any]:
        async def look() -> Any:
            return 7 if kind is int else ["seven"]

        look.__annotations__["return"] = kind
        return tool(pure=True, version="1")(look)

    for kind, value in ((int, 7), (list, ["seven"]), (int, 7)):
        assert await engine.run(Plan((Node("look"),)), tools=[made(kind)]) == {0: value}


# Arguments


class Opaque:
    pass


async def test_an_argument_without_canonical_form_is_not_cached_and_that_is_said_once(
    engine: Engine,
) -> None:
    pure, thing = Counted(pure=True), Opaque()
    with capture_logs() as logs:
        assert [await pure.ask(engine, thing), await pure.ask(engine, thing)] == [1, 2]
    (log,) = (log for log in logs if log["event"] == "result not cached")
    assert "argument 'what' cannot be part of a cache key" in log["why"]


async def test_with_a_lifetime_such_an_argument_is_an_error_that_names_it(engine: Engine) -> None:
    pure = Counted(pure=True, ttl=60)
    with pytest.raises(RunFailed) as failed:
        await pure.ask(engine, {"a": [Opaque()]})
    error = failed.value.__cause__
    assert isinstance(error, ArgumentError)
    assert error.argument == "what.a[0]"
    assert pure.calls == []


async def test_a_wrong_argument_is_the_same_error_as_ever(engine: Engine) -> None:
    @tool(pure=True)
    async def word() -> str:
        return "x"

    @tool(pure=True)
    async def double(number: int) -> int:
        return number * 2

    for _ in range(2):
        with pytest.raises(RunFailed, match="argument 'number'"):
            await engine.run(Plan((Node("word"), Node("double", (Ref(0),)))), tools=[word, double])


# What the subscribers hear


async def test_a_value_that_is_there_is_no_attempt(engine: Engine) -> None:
    pure = Counted(pure=True)
    await pure.ask(engine, "a")
    told: list[Event] = []
    engine.subscribe(told.append)
    run = engine.start(Plan((Node("look", ("a",)),)), tools=[pure.tool])
    assert await run == {0: 1}
    kinds = [type(event) for event in told if getattr(event, "node", None) == 0]
    assert kinds == [NodeReused, NodeFinished]
    (reused,) = (event for event in told if isinstance(event, NodeReused))
    assert (reused.source, reused.saved, reused.tool) == ("memory", 1.0, "look")
    assert not any(isinstance(event, NodeStarted) for event in told)


async def test_a_value_that_is_there_does_not_wait_behind_calls_at_a_full_gate(
    engine: Engine,
) -> None:
    pure = Counted(pure=True, limit=1)
    await pure.ask(engine, "known")
    began = now()
    slow = asyncio.create_task(pure.ask(engine, "slow"))
    queued = asyncio.create_task(pure.ask(engine, "queued"))
    await asyncio.sleep(0.5)
    assert await pure.ask(engine, "known") == 1
    assert now() - began == 0.5
    assert await queued == 3
    assert (now() - began, await slow) == (2.0, 2)


async def test_what_is_known_or_on_its_way_does_not_wait_for_its_turn(engine: Engine) -> None:
    pure = Counted(pure=True, rate="1/m")
    began = now()
    assert await asyncio.gather(*(pure.ask(engine, "a") for _ in range(5))) == [1] * 5
    assert await pure.ask(engine, "a") == 1
    assert now() - began == 1.0
    assert await pure.ask(engine, "b") == 2
    assert now() - began == pytest.approx(61.0)


async def test_a_call_that_is_made_after_all_waits_for_its_turn(engine: Engine) -> None:
    began: list[float] = []

    @tool(pure=True, rate="1/m", timeout=30)
    async def own() -> Any:
        began.append(now())
        await asyncio.sleep(1)
        return object()  # nobody else can have it

    @workflow
    async def once() -> Any:
        return await own()

    first, second = await asyncio.gather(engine.run(once), engine.run(once))
    assert first is not second
    assert began[1] - began[0] == pytest.approx(60.0)


async def test_the_cache_says_what_it_saved(engine: Engine) -> None:
    pure = Counted(pure=True)
    await asyncio.gather(*(pure.ask(engine, "a") for _ in range(3)))
    await pure.ask(engine, "a")
    assert engine.services.cache is not None
    stats = engine.services.cache.stats
    assert (stats.misses, stats.hits) == (1, {"shared": 2, "memory": 1})
    assert stats.seconds_saved == pytest.approx(1.0)


async def test_a_call_that_ends_itself_is_paid_for(engine: Engine) -> None:
    @tool(pure=True, usd="0.1")
    async def leaves() -> None:
        raise asyncio.CancelledError

    @workflow
    async def once() -> None:
        await leaves()

    with pytest.raises(RunFailed):
        await engine.run(once)
    assert engine.ledger.spent.usd == Decimal("0.1")
