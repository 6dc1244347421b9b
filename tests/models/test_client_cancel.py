"""Whoever leaves a stream, in whatever way, ends the call on the server at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentflow.clock import now
from agentflow.executor.models.base import ChatRequest
from agentflow.executor.models.ratelimit import RateLimiter
from agentflow.executor.models.retry import RetryPolicy

pytestmark = pytest.mark.virtual

ASK = ChatRequest(messages=[{"role": "user", "content": "hello"}])


async def server_sees_it(wire: Any) -> None:
    """Wait for the disconnect; on the virtual clock a minute passes at once if none comes."""
    async with asyncio.timeout(60):
        await wire.seen[0].gone.wait()


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_while_waiting_for_the_first_piece(wire: Any, backend: Any) -> None:
    wire.reply(asyncio.Event())
    task = asyncio.create_task(backend().complete(ASK))
    await wire.arrived.wait()

    await cancel(task)

    await server_sees_it(wire)


async def test_cancelled_between_pieces(wire: Any, backend: Any) -> None:
    wire.reply(wire.text("Hel"), asyncio.Event())
    begun = asyncio.Event()
    task = asyncio.create_task(backend().complete(ASK, lambda _: begun.set()))
    await begun.wait()

    await cancel(task)

    await server_sees_it(wire)


async def test_cancelled_while_the_consumer_awaits_something_else(wire: Any, backend: Any) -> None:
    wire.reply(wire.text("Hel"), asyncio.Event())
    begun = asyncio.Event()

    async def consume() -> None:
        async with backend().stream(ASK) as stream:
            async for _ in stream:
                begun.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(consume())
    await begun.wait()

    await cancel(task)

    await server_sees_it(wire)


async def test_left_by_break(wire: Any, backend: Any) -> None:
    wire.reply(wire.text("Hel"), asyncio.Event())

    async with backend().stream(ASK) as stream:
        async for _ in stream:
            break

    await server_sees_it(wire)


async def test_left_by_an_error_of_the_consumer(wire: Any, backend: Any) -> None:
    wire.reply(wire.text("Hel"), asyncio.Event())

    def on_delta(_: Any) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await backend().complete(ASK, on_delta)

    await server_sees_it(wire)


async def test_entered_and_never_read(wire: Any, backend: Any) -> None:
    wire.reply(wire.text("Hel"), asyncio.Event())

    async with backend().stream(ASK):
        pass

    await server_sees_it(wire)


async def test_a_cancelled_call_gives_its_place_to_the_next(wire: Any, backend: Any) -> None:
    wire.reply(wire.text("Hel"), asyncio.Event())
    wire.reply(*wire.HELLO)
    client = backend(max_concurrent=1)
    task = asyncio.create_task(client.complete(ASK))
    await wire.arrived.wait()
    waiting = asyncio.create_task(client.complete(ASK))

    await cancel(task)

    assert (await waiting).text == "Hello"


async def test_no_task_is_left_behind(wire: Any, backend: Any) -> None:
    gate = asyncio.Event()
    wire.reply(wire.text("Hel"), gate)
    before = asyncio.all_tasks()

    async with backend().stream(ASK) as stream:
        await anext(aiter(stream))
    await server_sees_it(wire)
    gate.set()  # lets the server's own task end
    await asyncio.sleep(1)

    assert asyncio.all_tasks() <= before


async def test_cancelled_while_waiting_to_try_again(wire: Any, backend: Any) -> None:
    wire.fail(503)
    waiting = asyncio.Event()

    def wait(_: object) -> float:
        waiting.set()
        return 30.0

    client = backend(retry=RetryPolicy(wait=wait), max_concurrent=1)
    task = asyncio.create_task(client.complete(ASK))
    await waiting.wait()

    await cancel(task)

    wire.answers.clear()
    wire.reply(*wire.HELLO)
    assert (await client.complete(ASK)).text == "Hello"


async def test_a_call_cancelled_in_the_queue_of_a_rate_limit_gives_its_turn_back(
    wire: Any, backend: Any
) -> None:
    wire.reply(*wire.HELLO)
    client = backend(limiter=RateLimiter(requests_per_minute=1, burst=1))
    await client.complete(ASK)
    task = asyncio.create_task(client.complete(ASK))
    await asyncio.sleep(1)

    await cancel(task)

    begun = now()
    await client.complete(ASK)
    assert now() - begun == pytest.approx(59, abs=1)


async def test_many_first_calls_build_one_client(wire: Any, backend: Any) -> None:
    client = backend()

    built = await asyncio.gather(*(client.connect() for _ in range(10)))

    assert len({id(one) for one in built}) == 1
