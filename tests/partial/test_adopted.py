"""A call that goes on from what began is the call it would have been."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from decimal import Decimal
from typing import Annotated, Any

import pydantic
import pytest

from agentflow import Budget, Commit, Context, Late, Stream, Task, Warm, events, tool, workflow
from agentflow.errors import BackendError

pytestmark = pytest.mark.virtual

Lower = Annotated[str, pydantic.StringConstraints(to_lower=True, strip_whitespace=True)]
LOST = BackendError("the connection was lost", url="http://author/v1")


def why(lab: Any) -> list[str]:
    return [str(event.why) for event in lab.told(events.PartialRetracted)]


async def test_a_text_that_its_type_changes_is_read_as_changed(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def find() -> str:
        await asyncio.sleep(5.0)
        return "HERE"

    @tool(pure=True)
    async def say(text: Stream[Lower]) -> str:
        return "".join([piece async for piece in text])

    plan = [
        pen.text('$1 = find()\n$2 = say(text=" One ', 1.0),
        pen.text('and ${1}")\njoin()', 1.0),
    ]
    engine = lab.start(plan, "Answer: done", tools=[find, say])
    await engine.run("Which?")

    assert [event.value for event in lab.told(events.NodeFinished)] == ["HERE", "one and here"]
    assert asyncio.get_running_loop().time() == 6.0


async def test_arguments_left_out_are_those_of_any_call(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def show(
        name: str,
        hint: Late[str],
        n: int = pydantic.Field(default=3, ge=1),
        tags: list[str] = [],  # noqa: B006  # every call has its own
    ) -> list[Any]:
        tags.append(await hint)
        return [n, tags]

    turn = [
        *pen.written("show", '{"name": "a", "hint": "', 'x"}'),
        *pen.written("show", '{"name": "b", "hint": "', 'y"}', index=1),
    ]
    await lab.react(turn, tools=[show])

    assert lab.results() == ['[3, ["x"]]', '[3, ["y"]]']
    assert len(lab.told(events.PartialCommitted)) == 2


async def test_one_that_is_made_anew_keeps_to_the_limit_of_its_tool(lab: Any, pen: Any) -> None:
    """It waits until what had begun has cleaned up."""

    @tool(reads="r/{key}", limit=1)
    async def look(key: str, hint: Late[str]) -> str:
        lab.note("begun")
        try:
            said = await hint
            await asyncio.sleep(3.0)
            return said
        finally:
            await asyncio.sleep(0.5)
            lab.note("ended")

    engine = lab.start(pen.written("look", '{"key": "a", "hint": "', 'x"}'), "Done.", tools=[look])
    run = engine.start(Task("Which?", "react"))
    await asyncio.sleep(1.5)
    await engine.changed("r/a")
    await run

    assert lab.notes == ["begun", "ended", "begun", "ended"]
    assert why(lab) == ["what it read has been written since"]


async def test_and_to_its_rate(lab: Any, pen: Any) -> None:
    @tool(reads="r/{key}", rate=0.1)
    async def look(key: str, hint: Late[str]) -> str:
        lab.note("begun")
        return await hint

    engine = lab.start(pen.written("look", '{"key": "a", "hint": "', 'x"}'), "Done.", tools=[look])
    run = engine.start(Task("Which?", "react"))
    await asyncio.sleep(1.5)
    await engine.changed("r/a")
    await run

    assert lab.log == [("begun", 1.0), ("begun", pytest.approx(11.0))]


async def test_and_is_paid_like_any_other(lab: Any, pen: Any) -> None:
    @tool(reads="r/{key}", usd=0.1)
    async def look(key: str, hint: Late[str]) -> str:
        return await hint

    engine = lab.start(pen.written("look", '{"key": "a", "hint": "', 'x"}'), "Done.", tools=[look])
    run = engine.start(Task("Which?", "react"))
    await asyncio.sleep(1.5)
    await engine.changed("r/a")
    await run

    assert (run.ledger.spent.usd, run.ledger.reserved.usd) == (Decimal("0.2"), 0)


async def test_a_warm_up_that_is_refused_while_its_call_waits_is_not_paid(
    lab: Any, pen: Any
) -> None:
    """The call waits for its turn; the price is set aside once."""

    @tool(pure=True, usd=0.1, rate=0.1)
    async def fetch(url: str, *, link: Warm[str]) -> str:
        return f"{url} by {link}"

    @workflow
    async def inner() -> str:
        return ""

    @fetch.warm
    async def connect(url: Late[str]) -> str:
        await url
        await asyncio.sleep(3.0)
        with suppress(Exception):  # it is refused
            await inner()
        return "link"

    turn = [
        *pen.written("fetch", '{"url": "a"}'),
        *pen.written("fetch", '{"url": "b"}', index=1),
    ]
    engine = lab.start(turn, "Done.", tools=[fetch, inner])
    run = engine.start(Task("Which?", "react", budget=Budget(usd=1)))
    await run

    assert (run.ledger.spent.usd, run.ledger.reserved.usd) == (Decimal("0.2"), 0)
    assert why(lab) == ["it wanted a run or a model before its call was certain"]


async def test_writes_that_start_together_keep_what_they_began(lab: Any, pen: Any) -> None:
    @tool(writes="files/{path}", limit=2)
    async def save(path: str, text: Stream[str], *, commit: Commit) -> str:
        lab.note(f"prepare {path}")
        await text.whole()
        await commit()
        return path

    plan = [
        pen.text('$1 = save(path="a", text="', 1.0), pen.text('x")\n', 1.0),
        pen.text('$2 = save(path="b", text="', 1.0), pen.text('x")\n', 1.0),
        pen.text("join()", 1.0),
    ]  # fmt: skip
    engine = lab.start(plan, "Answer: done", tools=[save])
    await engine.run("Which?")

    assert lab.notes == ["prepare a", "prepare b"]
    assert len(lab.told(events.PartialCommitted)) == 2


@pytest.mark.parametrize("partial", [True, False])
@pytest.mark.parametrize("then", ["lost", "refused"])
async def test_what_goes_wrong_after_a_rejected_argument_does_not_count(
    lab: Any, pen: Any, partial: bool, then: str
) -> None:
    @tool(pure=True)
    async def look(key: str) -> str:
        return key

    end = pen.Stroke({}, 1.0, error=LOST) if then == "lost" else pen.Stroke({"refusal": "no"}, 1.0)
    turn = [*pen.written("look", '{"kee": "a", "k'), end]

    assert await lab.react(turn, tools=[look], partial=partial) == "Done."
    assert lab.results()[0].startswith("not called: look has no parameter 'kee'")
    assert "refusal" not in lab.author.requests[1][2]


async def test_a_tool_that_ends_by_a_cancellation_of_its_own_is_called_once(
    lab: Any, pen: Any
) -> None:
    @tool(pure=True)
    async def look(key: str, hint: Late[str]) -> str:
        lab.note("called")
        raise asyncio.CancelledError

    await lab.react(pen.written("look", '{"key": "a", "hint": "', 'x"}'), tools=[look])

    assert lab.notes == ["called"]
    assert lab.results()[0].startswith("failed: CallCancelled: look awaited something")


# What is told


async def test_a_tool_is_said_to_have_started_when_it_is_called(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def fetch(url: str, hint: Late[str], *, link: Warm[str]) -> str:
        lab.note("called")
        return await hint

    @fetch.warm
    async def connect() -> str:
        await asyncio.sleep(3.0)
        return "link"

    turn = pen.written("fetch", '{"url": "u", "hint": "', "x", "x", "x", '"}')
    await lab.react(turn, tools=[fetch])

    [warmed], [started] = lab.told(events.PartialWarmed), lab.told(events.PartialStarted)
    assert (warmed.at, started.at) == (0.0, 3.0) == (0.0, lab.at("called"))


async def test_one_whose_warm_up_fails_never_started(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def fetch(url: str, hint: Late[str], *, link: Warm[str]) -> str:
        raise AssertionError("it is not called")

    @fetch.warm
    async def connect() -> str:
        raise ConnectionError("away")

    turn = pen.written("fetch", '{"url": "u", "hint": "', 'x"}')
    await lab.react(turn, tools=[fetch])

    assert not lab.told(events.PartialStarted)
    assert lab.results() == ["failed: ConnectionError: away"]


async def test_what_could_not_begin_is_not_said_to_be_retracted(lab: Any, pen: Any) -> None:
    @tool(pure=True, usd=0.5)
    async def look(key: str, hint: Late[str]) -> str:
        raise AssertionError("nobody can pay it")

    turn = pen.written("look", '{"key": "a", "hint": "', 'x"}')
    engine = lab.start(turn, "Done.", tools=[look])
    await engine.run(Task("Which?", "react", budget=Budget(usd="0.2")))

    assert not [event for event in lab.events if isinstance(event, events.PartialEvent)]


async def test_a_call_that_fails_before_it_is_made_did_not_find_its_value(
    lab: Any, pen: Any
) -> None:
    """Each argument is right by itself, and they are not right together."""

    @tool(pure=True, timeout=2.0, rate=0.1)
    async def fetch(url: str, *, link: Warm[str]) -> str:
        return link

    @fetch.warm
    async def connect() -> str:
        await asyncio.sleep(60.0)
        return "link"

    await lab.react(pen.written("fetch", '{"url": "u"}'), tools=[fetch])

    assert lab.results()[0].startswith("failed: CallTimeout")
    assert "the value was there already" not in why(lab)


@pytest.mark.parametrize("partial", [True, False])
async def test_a_value_does_not_wait_for_the_cleaning_up_nor_fail_with_it(
    lab: Any, pen: Any, partial: bool
) -> None:
    """Else a model would be told that what was done has failed, and do it again."""

    @tool(writes="files/{path}")
    async def save(path: str, *, link: Warm[str], commit: Commit) -> str:
        await commit()
        lab.note("saved")
        return "saved"

    @save.warm
    async def connect() -> AsyncIterator[str]:
        try:
            yield "link"
        finally:
            lab.note("closing")
            raise ConnectionError("it was closed already")

    await lab.react(pen.written("save", '{"path": "a"}'), tools=[save], partial=partial)

    assert lab.results() == ["saved"]
    assert lab.notes == ["saved", "closing"]


@pytest.mark.parametrize("partial", [True, False])
@pytest.mark.parametrize("name", ["commit", "link", "ctx"])
async def test_a_model_cannot_give_what_the_engine_fills_in(
    lab: Any, pen: Any, partial: bool, name: str
) -> None:
    @tool
    async def save(path: str, *, commit: Commit, link: Warm[str], ctx: Context, **more: str) -> str:
        raise AssertionError("it is not called")

    @save.warm
    async def connect() -> str:
        return "link"

    turn = pen.written("save", f'{{"path": "a", "{name}": "x"}}')
    await lab.react(turn, tools=[save], partial=partial)

    assert lab.results()[0].startswith("not called"), lab.results()
