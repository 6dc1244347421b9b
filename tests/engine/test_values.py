"""Values cross from call to call as copies; equal pure calls are one."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest
import structlog

from agentflow import Engine, Handle, gather, settled, tool, workflow
from agentflow.events import Event, NodeStarted

user: ContextVar[str] = ContextVar("user", default="nobody")


@tool
async def echo(value: Any) -> Any:
    return value


@tool
async def boom(text: str = "boom", seconds: float = 0.0) -> Any:
    await asyncio.sleep(seconds)
    raise ValueError(text)


@tool(pure=True)
async def square(n: int) -> int:
    await asyncio.sleep(1)
    return n * n


async def test_arguments_are_copied_at_the_call(engine: Engine) -> None:
    @workflow
    async def flow() -> list[Any]:
        inner = [2]
        items = [1, inner]
        handle: Handle[list[Any]] = echo(items)
        items.append(3)
        inner.append(4)
        return await handle

    assert await engine.run(flow) == [1, [2]]


async def test_consumers_of_a_value_do_not_see_each_others_changes(engine: Engine) -> None:
    @tool
    async def spoil(items: list[int]) -> list[int]:
        items.append(99)
        return items

    @workflow
    async def flow() -> list[Any]:
        source = echo([1])
        mine = await source
        mine.append(0)
        return await gather(spoil(source.ref), spoil(source.ref), source)

    assert await engine.run(flow) == [[1, 99], [1, 99], [1]]


async def test_attempts_get_fresh_arguments(engine: Engine) -> None:
    seen: list[list[int]] = []

    @tool(retries=1, backoff=0)
    async def spoil(items: list[int]) -> int:
        seen.append(list(items))
        items.append(99)
        if len(seen) == 1:
            raise OSError
        return len(items)

    @workflow
    async def flow() -> int:
        return await spoil(echo([1]).ref)

    assert await engine.run(flow) == 2
    assert seen == [[1], [1]]


async def test_equal_pure_calls_are_one(engine: Engine) -> None:
    calls: list[int] = []

    @tool(pure=True)
    async def count(n: int) -> int:
        calls.append(n)
        await asyncio.sleep(1)
        return n

    @workflow
    async def flow() -> list[int]:
        early = await gather(count(1), count(n=1), count(2))
        return [*early, await count(1)]

    assert await engine.run(flow) == [1, 1, 2, 1]
    assert calls == [1, 2]


async def test_calls_of_a_tool_that_declares_nothing_are_never_one(engine: Engine) -> None:
    calls: list[int] = []

    @tool
    async def look(n: int) -> int:
        calls.append(n)
        return n

    @workflow
    async def flow() -> list[int]:
        return await gather(look(1), look(1))

    assert await engine.run(flow) == [1, 1]
    assert calls == [1, 1]


async def test_a_pure_call_that_failed_is_made_anew(engine: Engine) -> None:
    calls: list[int] = []

    @tool(pure=True)
    async def shaky() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise OSError
        return 7

    @workflow
    async def flow() -> int:
        with pytest.raises(OSError):
            await shaky()
        return await shaky()

    assert await engine.run(flow) == 7


async def test_a_pure_call_that_was_cancelled_is_made_anew(engine: Engine) -> None:
    @workflow
    async def flow() -> int:
        square(3).cancel()
        return await square(3)

    assert await engine.run(flow) == 9


async def test_each_call_sees_the_context_variables_of_the_place_where_it_was_made(
    engine: Engine,
) -> None:
    @tool
    async def who() -> str:
        found = user.get()
        user.set("changed by a tool")
        return found

    @workflow
    async def flow() -> list[str]:
        user.set("ada")
        a = who()
        user.set("bob")
        b = who()

        async def branch() -> str:
            user.set("eve")
            return await who()

        return [*await asyncio.gather(a, b, asyncio.create_task(branch())), user.get()]

    user.set("outside")
    assert await engine.run(flow) == ["ada", "bob", "eve", "bob"]
    assert user.get() == "outside"


async def test_log_lines_carry_the_run_and_the_call(engine: Engine) -> None:
    @tool
    async def logged() -> dict[str, Any]:
        return structlog.contextvars.get_contextvars()

    @tool
    def logged_in_thread() -> dict[str, Any]:
        return structlog.contextvars.get_contextvars()

    @workflow
    async def flow() -> list[dict[str, Any]]:
        here = structlog.contextvars.get_contextvars()
        return [here, *await gather(logged(), logged_in_thread())]

    run = engine.start(flow)
    assert await run == [{"run": run.id}, {"run": run.id, "node": 0}, {"run": run.id, "node": 1}]
    assert structlog.contextvars.get_contextvars() == {}


async def test_fused_calls_fail_and_are_cancelled_each_for_itself(engine: Engine) -> None:
    sizes: list[int] = []

    @tool(pure=True)
    async def embed_many(texts: list[str]) -> list[str]:
        sizes.append(len(texts))
        await asyncio.sleep(1)
        return [text.upper() for text in texts]

    @tool(pure=True, batch=embed_many)
    async def embed(text: str) -> str:
        return text.upper()

    @workflow
    async def flow() -> list[str]:
        a, b, c = embed("a"), embed("b"), embed("c")
        await asyncio.sleep(0.5)
        a.cancel()
        return [await b, await c]

    assert await engine.run(flow) == ["B", "C"]
    assert sizes == [3]


async def test_calls_after_fused_ones_find_their_values(engine: Engine) -> None:
    made: list[str] = []

    @tool(pure=True)
    async def upper_many(texts: list[str]) -> list[str]:
        made.extend(texts)
        return [text.upper() for text in texts]

    @tool(pure=True, batch=upper_many)
    async def upper(text: str) -> str:
        made.append(text)
        return text.upper()

    @workflow
    async def flow() -> list[Any]:
        a, b, other = upper("a"), upper("b"), echo(1)
        await b
        again, c = upper("a"), upper("c")
        return [await a, await other, await again, await c, await echo([a.ref, b.ref, c.ref])]

    assert await engine.run(flow) == ["A", 1, "A", "C", ["A", "B", "C"]]
    assert sorted(made) in (["a", "a", "b", "c"], ["a", "b", "c"])


async def test_a_batch_that_gives_too_few_values_fails_who_gets_none(engine: Engine) -> None:
    @tool(pure=True)
    async def many(texts: list[str]) -> list[str]:
        return texts[:1]

    @tool(pure=True, batch=many)
    async def one(text: str) -> str:
        return text

    @workflow
    async def flow() -> list[str]:
        return [outcome.status for outcome in await settled(one("a"), one("b"))]

    assert await engine.run(flow) == ["done", "failed"]


async def test_every_call_is_told_of_by_its_id(engine: Engine) -> None:
    started: list[tuple[int, str]] = []

    def hear(event: Event) -> None:
        if isinstance(event, NodeStarted):
            started.append((event.node, event.tool))

    @workflow
    async def flow() -> Any:
        numbers = await square.map([1, 2])
        return await echo(numbers)

    engine.subscribe(hear)
    await engine.run(flow)
    assert started == [(0, "square"), (0, "square"), (1, "echo")]
