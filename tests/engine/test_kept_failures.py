"""Failures are not kept, unless asked, and then for as long as asked."""

from __future__ import annotations

import asyncio
from typing import Any

from agentflow import Engine, tool, workflow
from agentflow.errors import RunFailed
from agentflow.testing import Scripted
from agentflow.tools.tool import Tool


class Down(OSError):
    """What a tool raises."""


def failing(*script: Any, **options: Any) -> tuple[Scripted[Any], Tool[..., Any]]:
    answers: Scripted[Any] = Scripted(*script)

    @tool(name="call", **options)
    async def call() -> Any:
        return await answers()

    return answers, call


async def outcome(engine: Engine, made: Tool[..., Any]) -> Any:
    @workflow
    async def once() -> Any:
        return await made()

    try:
        return await engine.run(once)
    except RunFailed as failed:
        return str(failed.__cause__)


async def test_a_failure_is_not_kept(engine: Engine) -> None:
    _, call = failing(Down("1"), Down("2"), "value", pure=True)
    assert [await outcome(engine, call) for _ in range(4)] == ["1", "2", "value", "value"]


async def test_a_failure_is_remembered_for_as_long_as_asked(engine: Engine) -> None:
    script, call = failing(Down("1"), "value", pure=True, negative_ttl=30)
    assert [await outcome(engine, call) for _ in range(3)] == ["1", "1", "1"]
    await asyncio.sleep(29.9)
    assert await outcome(engine, call) == "1"
    await asyncio.sleep(0.2)
    assert await outcome(engine, call) == "value"
    assert len(script.calls) == 2


async def test_a_remembered_failure_does_not_stand_in_the_way_of_a_retry(engine: Engine) -> None:
    options: dict[str, Any] = {"pure": True, "negative_ttl": 300, "retries": 1}
    script, call = failing(Down("1"), Down("2"), "value", **options)
    assert await outcome(engine, call) == "2"
    assert await outcome(engine, call) == "value"
    assert await outcome(engine, call) == "value"
    assert len(script.calls) == 3


async def test_a_success_makes_a_failure_forgotten(engine: Engine) -> None:
    script, call = failing(
        Down("1"), "short", "again", pure=True, negative_ttl=300, ttl=10, retries=1
    )
    assert await outcome(engine, call) == "short"
    await asyncio.sleep(20)
    assert await outcome(engine, call.with_(retries=0)) == "again"
    assert len(script.calls) == 3


async def test_a_caller_who_did_not_ask_for_it_is_not_told_of_old_failures(engine: Engine) -> None:
    _, call = failing(Down("1"), "value", pure=True, negative_ttl=300)
    assert await outcome(engine, call) == "1"
    assert await outcome(engine, call.with_(negative_ttl=0)) == "value"


async def test_a_write_makes_a_failure_forgotten(engine: Engine) -> None:
    _, call = failing(Down("no such order"), "value", reads="orders", ttl=60, negative_ttl=60)

    @tool(writes="orders")
    async def create() -> None: ...

    assert await outcome(engine, call) == await outcome(engine, call) == "no such order"
    await outcome(engine, create)
    assert await outcome(engine, call) == "value"
