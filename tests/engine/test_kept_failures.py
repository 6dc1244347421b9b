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


async def test_a_remembered_failure_is_not_tried_again(engine: Engine) -> None:
    options: dict[str, Any] = {"pure": True, "negative_ttl": 300, "retries": 1}
    script, call = failing(Down("1"), Down("2"), "value", **options)
    assert [await outcome(engine, call) for _ in range(3)] == ["2", "2", "2"]
    assert len(script.calls) == 2
    await asyncio.sleep(301)
    assert await outcome(engine, call) == "value"


async def test_a_failure_that_is_followed_by_another_attempt_is_not_remembered(
    engine: Engine,
) -> None:
    options: dict[str, Any] = {"pure": True, "negative_ttl": 300, "retries": 1, "backoff": 10}
    script, call = failing(Down("1"), "value", **options)
    calls = outcome(engine, call), outcome(engine, call)
    assert list(await asyncio.gather(*calls)) == ["value"] * 2
    assert len(script.calls) == 2


async def test_a_fallback_takes_the_place_of_a_remembered_failure(engine: Engine) -> None:
    script, call = failing(Down("1"), pure=True, negative_ttl=300, fallback="instead")
    assert [await outcome(engine, call) for _ in range(3)] == ["instead"] * 3
    assert len(script.calls) == 1


async def test_a_success_makes_a_failure_forgotten(engine: Engine) -> None:
    script, call = failing(Down("1"), "short", "again", pure=True, negative_ttl=300, ttl=10)
    assert await outcome(engine, call) == "1"
    assert await outcome(engine, call.with_(negative_ttl=0)) == "short"
    await asyncio.sleep(20)
    assert await outcome(engine, call) == "again"
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
