"""What a tool that began early does is seen when its call is certain, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest

from agentflow import Commit, Context, Late, Stream, Task, Warm, events, tool, workflow
from agentflow.context import logged_node, logged_run, recorder, run_scope

pytestmark = pytest.mark.virtual

WHO: ContextVar[str] = ContextVar("who", default="nobody")

HALVES = '{"key": "a", "hint": "', 'x"}'


async def test_nothing_is_told_of_a_call_before_it_is_made(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def talk(key: str, hint: Late[str], *, ctx: Context) -> str:
        for word in ("one", "two"):
            await asyncio.sleep(0.2)
            ctx.emit(word)
        said = await hint
        ctx.emit("three")
        return said

    await lab.react(pen.written("talk", *HALVES), tools=[talk])

    about = [event for event in lab.events if isinstance(event, events.NodeEvent)]
    assert [(type(event).__name__, event.at) for event in about] == [
        ("NodeStarted", 2.0), *[("NodeEmitted", 2.0)] * 3, ("NodeFinished", 2.0),
    ]  # fmt: skip
    assert [event.data for event in lab.told(events.NodeEmitted)] == ["one", "two", "three"]


async def test_what_a_tool_said_in_vain_is_never_told(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def talk(key: str, hint: Late[str], *, ctx: Context) -> str:
        ctx.emit("one")
        try:
            return await hint
        finally:
            ctx.emit("two")

    turn = pen.written("talk", HALVES[0], 'x", "bogus": 1}')
    await lab.react(turn, tools=[talk])

    assert lab.told(events.PartialStarted)
    assert not [event for event in lab.events if isinstance(event, events.NodeEvent)]


async def test_the_items_of_a_generator_are_told_with_its_call(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def parts(key: str, text: Stream[str]) -> AsyncIterator[str]:
        async for line in text.lines():
            yield line

    turn = pen.written("parts", '{"key": "a", "text": "one\\n', "two\\nthr", 'ee"}')
    await lab.react(turn, tools=[parts])

    assert lab.results() == ['["one", "two", "three"]']
    assert [(event.data, event.at) for event in lab.told(events.NodeEmitted)] == [
        ("one", 3.0), ("two", 3.0), ("three", 3.0),
    ]  # fmt: skip


async def test_a_tool_learns_which_call_it_is_when_it_is_certain(lab: Any, pen: Any) -> None:
    @tool
    async def place(key: str, hint: Late[str], *, ctx: Context, commit: Commit) -> str:
        before = (ctx.node, ctx.attempt)
        await commit()
        return f"{before} {(ctx.node, ctx.attempt)} {ctx.idempotency_key}"

    @tool(pure=True)
    async def other() -> str:
        return ""

    turn = [*pen.written("other", "{}"), *pen.written("place", *HALVES, index=1)]
    await lab.react(turn, tools=[place, other])

    key = lab.results()[1].removeprefix("(0, 1) (1, 1) ")
    assert key.startswith(lab.events[0].run)
    assert len(key) > len(lab.events[0].run)


async def test_there_is_no_idempotency_key_before(lab: Any, pen: Any) -> None:
    @tool
    async def place(key: str, hint: Late[str], *, ctx: Context, commit: Commit) -> str:
        return ctx.idempotency_key

    await lab.react(pen.written("place", *HALVES), tools=[place])

    assert "await commit() before asking for it" in lab.results()[0]


async def test_the_key_is_the_same_as_without_partial_execution(lab: Any, pen: Any) -> None:
    @tool
    async def place(key: str, hint: Late[str], *, ctx: Context, commit: Commit) -> str:
        await commit()
        return ctx.idempotency_key.removeprefix(ctx.run)

    await lab.react(pen.written("place", *HALVES), tools=[place])
    early = lab.results()
    assert lab.told(events.PartialCommitted)
    await lab.aclose()
    await lab.react(pen.written("place", *HALVES), tools=[place], partial=False)

    assert lab.results() == early != ["''"]


async def test_a_tool_runs_in_the_context_of_its_call(lab: Any, pen: Any) -> None:
    def seen() -> list[Any]:
        return [WHO.get(), logged_run.get(), recorder.get()]

    @tool
    async def place(key: str, hint: Late[str], *, commit: Commit) -> list[Any]:
        before = [*seen(), logged_node.get(None)]
        WHO.set(f"{WHO.get()} and {await hint}")
        await commit()
        scope = run_scope.get()
        return [before, [*seen(), logged_node.get(), scope is runs[0]]]

    runs = []
    engine = lab.start(pen.written("place", *HALVES), "Done.", tools=[place])
    WHO.set("somebody")
    runs.append(engine.start(Task("Which?", "react")))
    WHO.set("nobody")
    await runs[0]

    [result] = lab.told(events.NodeFinished)
    run = runs[0].id
    assert result.value == [
        ["somebody", run, None, None],
        ["somebody and x", run, None, 0, True],
    ]
    assert WHO.get() == "nobody"


async def test_so_does_one_that_began_when_another_call_ended(lab: Any, pen: Any) -> None:
    """What that other tool had set is its own."""

    @tool(pure=True)
    async def first() -> str:
        WHO.set("the first")
        await asyncio.sleep(2.5)
        return "a"

    @tool(pure=True)
    async def second(key: str, hint: Late[str]) -> list[Any]:
        lab.note("second")
        found = [WHO.get(), logged_node.get(None)]
        await hint
        return found

    plan = [
        pen.text("$1 = first()\n"),
        pen.text('$2 = second(key=$1, hint="', 1.0),
        pen.text('x")\njoin()', 4.0),
    ]
    engine = lab.start(plan, "Answer: done", tools=[first, second])
    await engine.run("Which?")

    assert lab.log == [("second", 2.5)]
    assert lab.told(events.NodeFinished)[1].value == ["nobody", None]


async def test_a_run_within_the_call_is_refused_before_it_is_certain(lab: Any, pen: Any) -> None:
    """Then the tool is called anew, when it may."""

    @tool(pure=True)
    async def double(n: int) -> int:
        return 2 * n

    @workflow
    async def inner(n: int) -> int:
        return await double(n) + 1

    @tool(pure=True)
    async def outer(n: int, hint: Late[str]) -> str:
        lab.note("called")
        return f"{await inner(n)} {await hint}"

    turn = pen.written("outer", '{"n": 4, "hint": "', 'x"}')
    await lab.react(turn, tools=[double, inner, outer])

    assert lab.results() == ["9 x"]
    assert lab.log == [("called", 1.0), ("called", 2.0)]
    assert [str(event.why) for event in lab.told(events.PartialRetracted)] == [
        "it wanted a run or a model before its call was certain"
    ]


@pytest.mark.parametrize("pieces", [('{"n": 4, "hint": "', 'x"}'), ('{"n": 4, "hint": "x"', "}")])
async def test_also_in_the_moment_in_which_it_becomes_certain(
    lab: Any, pen: Any, pieces: tuple[str, ...]
) -> None:
    @workflow
    async def inner(n: int) -> int:
        return n + 1

    @tool(pure=True)
    async def outer(n: int, hint: Late[str]) -> str:
        said = await hint
        return f"{await inner(n)} {said}"

    await lab.react(pen.written("outer", *pieces), tools=[outer])

    assert lab.results() == ["5 x"]


async def test_a_committed_tool_may_have_runs(lab: Any, pen: Any) -> None:
    @workflow
    async def inner(n: int) -> int:
        return n + 1

    @tool
    async def outer(n: int, hint: Late[str], *, commit: Commit) -> str:
        lab.note("called")
        await commit()
        return f"{await inner(n)} {await hint}"

    await lab.react(pen.written("outer", '{"n": 4, "hint": "', 'x"}'), tools=[outer])

    assert lab.results() == ["5 x"]
    assert lab.log == [("called", 1.0)]
    began = [event for event in lab.told(events.RunStarted) if event.parent is not None]
    assert [(event.parent, event.parent_node) for event in began] == [(lab.events[0].run, 0)]


async def test_a_write_is_made_when_the_turn_is_accepted(lab: Any, pen: Any) -> None:
    @tool(writes="r/{key}")
    async def write(key: str, text: Stream[str], *, commit: Commit) -> str:
        lab.note(await text.whole())
        await commit()
        lab.note("written")
        return "ok"

    turn = [*pen.written("write", '{"key": "a", "text": "', 'x"}'), pen.text("So be it.", 5.0)]
    await lab.react(turn, tools=[write])

    assert lab.log == [("x", 2.0), ("written", 7.0)]


async def test_writes_are_made_in_the_order_of_the_plan(lab: Any, pen: Any) -> None:
    @tool(writes="r/{key}")
    async def write(key: str, text: Stream[str], *, commit: Commit) -> str:
        said = await text.whole()
        await commit()
        await asyncio.sleep(3.0 if said == "one" else 0.0)
        lab.note(said)
        return said

    plan = [
        pen.text('$1 = write(key="a", text="', 1.0), pen.text('one")\n', 1.0),
        pen.text('$2 = write(key="a", text="', 1.0), pen.text('two")\njoin()', 1.0),
    ]  # fmt: skip
    engine = lab.start(plan, "Answer: done", tools=[write])
    await engine.run("Which?")

    assert lab.log == [("one", 7.0), ("two", 7.0)]
    assert len(lab.told(events.PartialCommitted)) == 2


async def test_a_warm_up_that_reports_is_heard_with_the_call(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def fetch(url: str, *, link: Warm[str], ctx: Context) -> str:
        ctx.emit("fetching")
        return link

    @fetch.warm
    async def connect(ctx: Context) -> str:
        ctx.emit("connecting")
        return "link"

    await lab.react(pen.written("fetch", '{"url": ', '"u"}'), tools=[fetch])

    assert [(event.data, event.at) for event in lab.told(events.NodeEmitted)] == [
        ("connecting", 2.0), ("fetching", 2.0),
    ]  # fmt: skip
