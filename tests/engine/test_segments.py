"""Workflows: calls become segments, handles become edges, and errors surface where they are awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

import pytest

from agentflow import Engine, gather, tool, workflow
from agentflow.clock import now
from agentflow.errors import (
    ArgumentError,
    CallCancelled,
    DefinitionError,
    DependencyFailed,
    RunFailed,
    WorkflowError,
)
from agentflow.events import Event, PlanExtended
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


def plans(engine: Engine) -> list[tuple[str, ...]]:
    """The segments of the runs that follow, as lines."""
    found: list[tuple[str, ...]] = []

    def hear(event: Event) -> None:
        if isinstance(event, PlanExtended):
            found.append(tuple(event.lines))

    engine.subscribe(hear)
    return found


async def test_calls_between_two_awaits_form_one_segment(engine: Engine) -> None:
    @workflow
    async def flow() -> list[Any]:
        a = echo(1)
        b = echo(a.ref)
        await b
        c = echo(b.ref)
        return [await a, await c]

    segments = plans(engine)
    assert await engine.run(flow) == [1, 1]
    assert segments == [("$1 = echo(1)", "$2 = echo($1)"), ("$3 = echo($2)",)]


async def test_branches_under_gather_form_one_segment(engine: Engine) -> None:
    async def branch(n: int) -> Any:
        return await echo(echo(n).ref)

    @workflow
    async def flow() -> list[Any]:
        return await asyncio.gather(*(branch(n) for n in range(5)))

    segments = plans(engine)
    assert await engine.run(flow) == [0, 1, 2, 3, 4]
    assert [len(lines) for lines in segments] == [10]


async def test_any_await_starts_the_calls_made_before_it(engine: Engine) -> None:
    line = Timeline()

    @tool
    async def mark() -> None:
        line.note("started")

    @workflow
    async def flow() -> None:
        handle = mark()
        await asyncio.sleep(5)
        await handle

    await engine.run(flow)
    assert line.at("started") == 0.0


async def test_handles_passed_on_are_edges_and_calls_run_side_by_side(engine: Engine) -> None:
    @workflow
    async def flow() -> Any:
        a, b = slow(1, 3.0), slow(2, 2.0)
        return await slow([a.ref, b.ref], 1.0)

    assert await engine.run(flow) == [1, 2]
    assert now() == 4.0


async def test_a_bare_handle_is_an_edge_too(engine: Engine) -> None:
    @workflow
    async def flow() -> Any:
        return await echo({"a": [echo(1)], "b": (echo(2),)})

    assert await engine.run(flow) == {"a": [1], "b": (2,)}


async def test_a_reference_follows_a_path(engine: Engine) -> None:
    @workflow
    async def flow() -> Any:
        page = echo({"hits": [{"url": "u"}, {"url": "v"}], "n": 2})
        return await gather(echo(page.ref["hits"][0]["url"]), echo(page.ref["hits"][-1]), page)

    assert await engine.run(flow) == [
        "u",
        {"url": "v"},
        {"hits": [{"url": "u"}, {"url": "v"}], "n": 2},
    ]


async def test_awaiting_gives_the_value_for_ordinary_control_flow(engine: Engine) -> None:
    @workflow
    async def collatz(n: int) -> list[int]:
        seen = [n]
        while n != 1:
            n = await (echo(n // 2) if n % 2 == 0 else echo(3 * n + 1))
            seen.append(n)
        return seen

    assert await engine.run(collatz, 6) == [6, 3, 10, 5, 16, 8, 4, 2, 1]


async def test_a_handle_may_be_awaited_twice_and_after_it_is_done(engine: Engine) -> None:
    @workflow
    async def flow() -> list[Any]:
        handle = slow("x")
        return [await handle, await handle, handle.done()]

    assert await engine.run(flow) == ["x", "x", True]


async def test_what_a_workflow_returns_may_hold_handles(engine: Engine) -> None:
    @workflow
    async def flow() -> Any:
        page = slow({"title": "t"})
        return {"all": [page, (echo(2),)], "title": page.ref["title"], "plain": 3}

    assert await engine.run(flow) == {"all": [{"title": "t"}, (2,)], "title": "t", "plain": 3}


async def test_a_workflow_without_calls_is_just_its_value(engine: Engine) -> None:
    @workflow
    async def flow(n: int) -> int:
        return n + 1

    assert await engine.run(flow, 1) == 2


async def test_an_exception_of_a_call_is_raised_where_it_is_awaited(engine: Engine) -> None:
    @workflow
    async def flow() -> str:
        handle = boom("seen")
        user = echo(handle.ref)
        with pytest.raises(DependencyFailed) as lost:
            await user
        assert isinstance(lost.value.__cause__, ValueError)
        try:
            await handle
        except ValueError as error:
            return str(error)
        return "unreachable"

    assert await engine.run(flow) == "seen"


async def test_an_exception_of_the_workflow_discards_what_has_not_started_and_cancels_the_rest(
    engine: Engine,
) -> None:
    line = Timeline()

    @tool
    async def long(name: str) -> None:
        with line.span(name):
            await asyncio.sleep(100)

    @workflow
    async def flow() -> None:
        long("running")
        await asyncio.sleep(2)
        long("discarded")
        raise KeyError("my own")

    with pytest.raises(RunFailed) as failed:
        await engine.run(flow)
    assert isinstance(failed.value.__cause__, KeyError)
    assert failed.value.failures == {}
    assert line.notes == [(0.0, "running started"), (2.0, "running ended")]


async def test_a_call_cancelled_by_its_id_raises_where_it_is_awaited(engine: Engine) -> None:
    @workflow
    async def flow() -> str:
        try:
            await slow(1, 100.0)
        except CallCancelled:
            return "went on"
        return "unreachable"

    run = engine.start(flow)
    await asyncio.sleep(2)
    run.cancel(call=0)
    assert await run == "went on"
    assert now() == 2.0


async def test_a_workflow_may_call_tools_while_it_is_cancelled(engine: Engine) -> None:
    line = Timeline()

    @tool
    async def release() -> None:
        await asyncio.sleep(1)
        line.note("released")

    @workflow
    async def flow() -> None:
        try:
            await slow(1, 100.0)
        finally:
            await release()

    run = engine.start(flow)
    await asyncio.sleep(2)
    run.cancel()
    await run.ended()
    assert line.at("released") == 3.0


async def test_a_call_from_another_thread_is_refused(engine: Engine) -> None:
    @workflow
    async def flow() -> None:
        with pytest.raises(WorkflowError, match="another thread"):
            await asyncio.to_thread(echo, 1)

    await engine.run(flow)


async def test_a_call_after_the_workflow_has_ended_is_refused(engine: Engine) -> None:
    errors: list[BaseException] = []
    late: list[asyncio.Task[None]] = []

    @workflow
    async def flow() -> None:
        async def afterwards() -> None:
            await asyncio.sleep(5)
            try:
                await echo(1)
            except WorkflowError as error:
                errors.append(error)

        late.append(asyncio.create_task(afterwards()))

    await engine.run(flow)
    await late[0]
    assert "after workflow 'flow' had ended" in str(errors[0])


async def test_a_handle_of_another_workflow_is_refused(engine: Engine) -> None:
    kept: list[Any] = []

    @workflow
    async def lender() -> None:
        kept.append(echo(1))
        await kept[0]

    @workflow
    async def borrower() -> Any:
        return await echo(kept[0].ref)

    await engine.run(lender)
    with pytest.raises(RunFailed, match="belongs to another workflow"):
        await engine.run(borrower)


async def test_a_bad_argument_is_refused_at_the_call(engine: Engine) -> None:
    @workflow
    async def flow() -> None:
        with pytest.raises(ArgumentError) as wrong:
            square("three")  # type: ignore[arg-type]  # meant
        assert wrong.value.argument == "n"
        with pytest.raises(ArgumentError, match="required"):
            square()  # type: ignore[call-arg]  # meant

    await engine.run(flow)


async def test_outside_a_workflow_and_inside_a_tool_a_tool_is_a_plain_coroutine(
    engine: Engine,
) -> None:
    @tool
    async def inner() -> Any:
        call = echo(5)
        assert isinstance(call, Coroutine) and not hasattr(call, "ref")
        return await call

    assert await inner() == 5

    @workflow
    async def flow() -> Any:
        return await inner()

    segments = plans(engine)
    assert await engine.run(flow) == 5
    assert segments == [("$1 = inner()",)]


async def test_two_tools_of_one_name_are_told_apart(engine: Engine) -> None:
    def named(value: str) -> Any:
        async def pick() -> str:
            return value

        return tool(pick)

    one, two = named("one"), named("two")

    @workflow
    async def flow() -> list[str]:
        return await gather(one(), two(), one())

    segments = plans(engine)
    assert await engine.run(flow) == ["one", "two", "one"]
    assert [line.split(" = ")[1] for line in segments[0][:3]] == ["pick()", "pick.2()", "pick()"]


async def test_an_override_holds_for_its_call_only(engine: Engine) -> None:
    @workflow
    async def flow() -> list[Any]:
        quick = slow.with_(timeout=1, fallback="gave up")(1, 50.0)
        return [await quick, await slow(2, 50.0)]

    assert await engine.run(flow) == ["gave up", 2]


async def test_a_join_policy_of_a_plain_call_is_refused(engine: Engine) -> None:
    @workflow
    async def flow() -> None:
        echo.with_(join="first")(1)

    with pytest.raises(RunFailed) as failed:
        await engine.run(flow)
    assert isinstance(failed.value.__cause__, DefinitionError)
