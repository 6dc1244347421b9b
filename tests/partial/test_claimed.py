"""Between the start of a call and its going on from what began for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentflow import Commit, Context, Late, Stream, Task, Warm, events, tool
from agentflow.errors import RunCancelled

pytestmark = pytest.mark.virtual

AT_ONCE = -1.0
both = pytest.mark.parametrize("partial", [True, False])


class Grid:
    """A value whose comparison has no single answer."""

    __hash__ = None  # type: ignore[assignment]  # as of an array

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value is ambiguous")


@both
async def test_values_that_cannot_be_compared_break_nothing(
    lab: Any, pen: Any, partial: bool
) -> None:
    @tool(reads="grids")
    async def load() -> object:
        return Grid()

    @tool(pure=True)
    async def look(data: object, hint: Late[str]) -> str:
        return f"{type(data).__name__} {await hint}"

    plan = [pen.text("$1 = load()\n"), pen.text('$2 = look($1, "', 1), pen.text('x")\n', 1)]
    engine = lab.start([*plan, pen.text("return $2")], tools=[load, look], partial=partial)

    assert await engine.run(Task("Which?", "plan")) == "Grid x"


@both
async def test_late_values_can_be_gathered(lab: Any, pen: Any, partial: bool) -> None:
    @tool(pure=True)
    async def look(a: str, b: Late[str], c: Late[str]) -> str:
        return a + "".join(await asyncio.gather(b, c))

    turn = pen.written("look", '{"a": "x",', '"b": "y",', '"c": "z"}')
    await lab.react(turn, tools=[look], partial=partial)

    assert lab.results() == ["xyz"]


async def test_a_call_that_is_taken_back_before_its_first_step_lets_go_of_what_began(
    lab: Any, pen: Any
) -> None:
    """Its bracket and its guard come in one packet."""

    @tool(reads="flags")
    async def flag() -> bool:
        return False

    @tool(reads="web", limit=1)
    async def look(key: str, text: Late[str]) -> str:
        lab.note(f"{key} begins")
        try:
            return f"{key} {await text}"
        finally:
            lab.note(f"{key} ends")

    plan = [
        pen.text("$1 = flag()\n"),
        pen.text('$2 = look("a", "', 1),
        pen.text('x"', 1),
        pen.text(")", 1),
        pen.text(" if $1\n", AT_ONCE),
        pen.text('$3 = look("b", "y")\n', 1),
        pen.text("return $3\n", 1),
    ]
    engine = lab.start(plan, tools=[flag, look])

    assert await engine.run(Task("Which?", "plan")) == "b y"
    assert lab.log == [("a begins", 1.0), ("a ends", 3.0), ("b begins", 4.0), ("b ends", 4.0)]


@both
async def test_cleaning_up_after_a_stale_read_is_not_the_time_of_the_call(
    lab: Any, pen: Any, partial: bool
) -> None:
    @tool(reads="web", timeout=2)
    async def look(key: str, hint: Late[str]) -> str:
        try:
            await hint
            await asyncio.sleep(1.0)
        except asyncio.CancelledError:
            await asyncio.sleep(1.5)
            raise
        return key

    async def write() -> None:
        await asyncio.sleep(1.5)
        await engine.changed("web")

    turn = pen.written("look", '{"key": "a", "hint": "', 'b"}')
    engine = lab.start(turn, "Done.", tools=[look], partial=partial)
    writing = asyncio.create_task(write())
    await engine.run(Task("Which?", "react"))
    await writing

    assert lab.results() == ["a"]


@both
async def test_what_a_warm_up_reports_while_it_cleans_up_starts_no_time_limit(
    lab: Any, pen: Any, partial: bool
) -> None:
    @tool(writes="web", idle=1)
    async def save(key: str, text: Stream[str], *, commit: Commit, link: Warm[int]) -> str:
        await text.whole()
        await commit()
        return key

    @save.warm
    async def connect(ctx: Context) -> AsyncIterator[int]:
        yield 1
        ctx.emit("closing")
        await asyncio.sleep(3)

    turn = pen.written("save", '{"key": "a", "text": "', 'b"}')
    await lab.react(turn, tools=[save], partial=partial)

    assert lab.results() == ["a"]


async def test_a_warm_up_of_a_tool_that_takes_nothing_of_it_knows_its_call_all_the_same(
    lab: Any, pen: Any
) -> None:
    keys: list[str] = []

    @tool(pure=True, timeout=2)
    async def look(key: str) -> str:
        return key

    @look.warm
    async def connect(ctx: Context) -> AsyncIterator[None]:
        ctx.emit("warm")
        yield
        keys.append(ctx.idempotency_key)
        await asyncio.sleep(3)

    await lab.react(pen.written("look", '{"key": "a', '"}'), tools=[look])

    assert lab.results() == ["a"]
    assert len(keys) == 1
    assert [event.data for event in lab.told(events.NodeEmitted)] == ["warm"]


async def test_a_write_that_waits_for_its_turn_when_its_run_is_cancelled_is_not_made(
    lab: Any, pen: Any
) -> None:
    @tool(writes="files/{key}", rate=1)
    async def save(key: str, text: Stream[str], *, commit: Commit) -> str:
        await text.whole()
        await commit()
        lab.note(f"saved {key}")
        return key

    turn = [
        *pen.written("save", '{"key": "a", "text": "', 'x"}', wait=0.1),
        *pen.written("save", '{"key": "b", "text": "', 'y"}', index=1, wait=0.1),
    ]
    engine = lab.start(turn, "Done.", tools=[save])
    run = engine.start(Task("Which?", "react"))
    await asyncio.sleep(0.5)
    assert lab.notes == ["saved a"]
    run.cancel()
    with pytest.raises(RunCancelled):
        await run

    assert lab.notes == ["saved a"]


@both
async def test_values_that_cannot_be_copied_fail_their_call_alone(
    lab: Any, pen: Any, partial: bool
) -> None:
    class Client:
        def __deepcopy__(self, memo: Any) -> Client:
            raise TypeError("a connection cannot be copied")

    @tool(reads="links")
    async def load() -> list[Any]:
        return [Client()]

    @tool(pure=True)
    async def look(links: list[Any], hint: Late[str]) -> str:
        return f"{len(links)} {await hint}"

    plan = [pen.text("$1 = load()\n"), pen.text('$2 = look($1, "', 1), pen.text('x")\n', 1)]
    engine = lab.start([*plan, pen.text("return $2")], tools=[load, look], partial=partial)

    assert await engine.run(Task("Which?", "plan")) == "1 x"


async def test_a_warm_up_that_ignores_its_cancellation_holds_nothing_up(lab: Any, pen: Any) -> None:
    @tool(reads="web")
    async def look(key: str, link: Warm[int]) -> str:
        return key

    @look.warm
    async def connect() -> AsyncIterator[int]:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            lab.note("goes on")
        yield 1

    engine = lab.start(pen.written("look", '{"key": "x"', " oops"), "Done.", tools=[look])
    await engine.run(Task("Which?", "react"))

    assert lab.log == [("goes on", 2.0)]
    assert asyncio.get_running_loop().time() == 2.0
    assert engine.services.abandoned == []
