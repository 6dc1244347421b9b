"""Handles: what asyncio may do with them, and what becomes of those that nobody uses."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from agentflow import Engine, settled, tool, workflow
from agentflow.clock import now
from agentflow.errors import RunFailed, WorkflowError
from agentflow.testing import Timeline

user: ContextVar[str] = ContextVar("user", default="nobody")


@tool
async def echo(value: Any) -> Any:
    return value


@tool
async def slow(value: Any, seconds: float = 1.0) -> Any:
    await asyncio.sleep(seconds)
    return value


@tool
async def boom(text: str = "boom", seconds: float = 0.0) -> Any:
    await asyncio.sleep(seconds)
    raise ValueError(text)


@tool(pure=True)
async def square(n: int) -> int:
    await asyncio.sleep(1)
    return n * n


async def test_asyncio_takes_handles_wherever_it_takes_coroutines(engine: Engine) -> None:
    @workflow
    async def flow() -> dict[str, Any]:
        found: dict[str, Any] = {
            "gather": await asyncio.gather(slow(1), slow(2)),
            "wait_for": await asyncio.wait_for(slow(3), 10),
            "shield": await asyncio.shield(slow(4)),
            "task": await asyncio.create_task(slow(5)),
            "completed": [await f for f in asyncio.as_completed([slow(7, 2.0), slow(6, 1.0)])],
        }
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(slow(n)) for n in (8, 9)]
        found["group"] = [task.result() for task in tasks]
        return found

    assert await engine.run(flow) == {
        "gather": [1, 2],
        "wait_for": 3,
        "shield": 4,
        "task": 5,
        "completed": [6, 7],
        "group": [8, 9],
    }


async def test_a_timeout_around_an_await_cancels_the_call(engine: Engine) -> None:
    line = Timeline()

    @tool
    async def long() -> None:
        with line.span("long"):
            await asyncio.sleep(100)

    @workflow
    async def flow() -> str:
        try:
            async with asyncio.timeout(3):
                await long()
        except TimeoutError:
            return "moved on"
        return "unreachable"

    assert await engine.run(flow) == "moved on"
    assert line.at("long ended") == 3.0


async def test_wait_for_cancels_the_call_it_gives_up_on(engine: Engine) -> None:
    line = Timeline()

    @tool
    async def long() -> None:
        with line.span("long"):
            await asyncio.sleep(100)

    @workflow
    async def flow() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(long(), 3)

    await engine.run(flow)
    assert line.at("long ended") == 3.0


async def test_a_shielded_call_goes_on_when_its_waiter_is_cancelled(engine: Engine) -> None:
    @workflow
    async def flow() -> Any:
        handle = slow("kept", 5.0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await asyncio.shield(handle)
        return await handle

    assert await engine.run(flow) == "kept"
    assert now() == 5.0


async def test_cancelling_a_task_cancels_the_call_it_awaits(engine: Engine) -> None:
    line = Timeline()

    @tool
    async def long() -> None:
        with line.span("long"):
            await asyncio.sleep(100)

    @workflow
    async def flow() -> None:
        async def part() -> None:
            await long()

        task = asyncio.create_task(part())
        await asyncio.sleep(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    await engine.run(flow)
    assert line.at("long ended") == 2.0


async def test_cancelling_a_handle_spares_a_call_that_another_one_needs(engine: Engine) -> None:
    @workflow
    async def flow() -> Any:
        a = slow("needed", 5.0)
        b = echo(a.ref)
        await asyncio.sleep(1)
        a.cancel()
        return await b

    assert await engine.run(flow) == "needed"


async def test_cancelling_a_handle_spares_a_call_that_was_made_twice(engine: Engine) -> None:
    @workflow
    async def flow() -> int:
        one, same = square(3), square(3)
        await asyncio.sleep(0.5)
        one.cancel()
        return await same

    assert await engine.run(flow) == 9


async def test_cancelling_a_handle_before_its_call_began_is_quiet(engine: Engine) -> None:
    began: list[int] = []

    @tool
    async def mark() -> None:
        began.append(1)

    @workflow
    async def flow() -> str:
        mark().cancel()
        return "done"

    assert await engine.run(flow) == "done"
    assert not began


async def test_a_failing_member_of_a_task_group_cancels_its_siblings(engine: Engine) -> None:
    line = Timeline()

    @tool
    async def long() -> None:
        with line.span("long"):
            await asyncio.sleep(100)

    @workflow
    async def flow() -> str:
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(long())
                group.create_task(boom("bad", 2.0))
        return str(caught.value.exceptions[0])

    assert await engine.run(flow) == "bad"
    assert line.at("long ended") == 2.0


class Pair(NamedTuple):
    one: Any


@dataclass(frozen=True)
class Box:
    content: Any


@pytest.mark.parametrize("hide", [lambda handle: {handle}, Pair, Box, lambda handle: [Box(handle)]])
@pytest.mark.parametrize("ref", [False, True])
async def test_a_handle_where_nobody_would_wait_for_it_is_refused(
    engine: Engine, hide: Callable[[Any], Any], ref: bool
) -> None:
    @workflow
    async def returned() -> Any:
        handle = echo(1)
        return hide(handle.ref if ref else handle)

    @workflow
    async def passed() -> Any:
        handle = echo(1)
        return await echo(hide(handle.ref if ref else handle))

    for flow in (returned, passed):
        with pytest.raises(RunFailed) as failed:
            await engine.run(flow)
        assert isinstance(failed.value.__cause__, WorkflowError)
        assert "where it is not waited for" in str(failed.value.__cause__)


async def test_a_handle_is_not_its_value(engine: Engine) -> None:
    @workflow
    async def flow() -> None:
        handle: Any = echo([1])
        for use in (
            lambda: bool(handle), lambda: len(handle), lambda: list(handle), lambda: handle[0],
            lambda: f"{handle:>3}", lambda: handle == 1, lambda: handle < 1, lambda: handle + 1,
            lambda: 1 in handle, lambda: int(handle),
        ):  # fmt: skip
            with pytest.raises(TypeError, match="await it"):
                use()
        with pytest.raises(AttributeError, match=r"await it, or pass echo\(\.\.\.\)\.ref\.url on"):
            handle.url  # noqa: B018  # read for its effect
        for use in (
            lambda: bool(handle.ref), lambda: len(handle.ref), lambda: list(handle.ref.x),
            lambda: f"{handle.ref}", lambda: handle.ref == 1, lambda: handle.ref + 1,
            lambda: handle.ref(), lambda: 1 in handle.ref[0],
        ):  # fmt: skip
            with pytest.raises(TypeError, match="await the handle"):
                use()
        assert "echo" in repr(handle) and "test_handles.py" in repr(handle)
        assert repr(handle.ref.a[0]).endswith(".a[0]>")
        await handle

    await engine.run(flow)


async def test_a_call_that_is_never_used_runs_is_joined_and_warned_of_once(
    engine: Engine,
) -> None:
    ran: list[float] = []

    @tool
    async def mark() -> None:
        await asyncio.sleep(3)
        ran.append(now())

    @workflow
    async def flow() -> str:
        mark()
        return "done"

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert await engine.run(flow) == "done"
    assert ran == [3.0] and now() == 3.0
    assert [warning.category for warning in caught] == [RuntimeWarning]
    assert "mark(...) in workflow 'flow' was never awaited nor passed on" in str(caught[0].message)
    assert caught[0].filename == __file__


async def test_what_an_unused_call_raises_fails_the_workflow(engine: Engine) -> None:
    @workflow
    async def flow() -> str:
        boom("lost")
        return "done"

    with pytest.raises(RunFailed) as failed:
        await engine.run(flow)
    assert str(failed.value.__cause__) == "lost"


async def test_several_unused_failures_come_as_a_group(engine: Engine) -> None:
    @workflow
    async def flow() -> str:
        boom("one")
        boom("two")
        return "done"

    with pytest.raises(RunFailed) as failed:
        await engine.run(flow)
    group = failed.value.__cause__
    assert isinstance(group, ExceptionGroup)
    assert sorted(map(str, group.exceptions)) == ["one", "two"]


async def test_a_handle_that_was_passed_on_needs_no_await(engine: Engine) -> None:
    @workflow
    async def flow() -> Any:
        return await settled(boom(), echo(1))

    outcomes = await engine.run(flow)
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]
