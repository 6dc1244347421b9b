"""What becomes of a tool that began, when its call is not made after all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentflow import Budget, Commit, Late, Limits, Stream, Task, Tool, Warm, events, tool
from agentflow.errors import BackendError, DeadlineExceeded, RunFailed

pytestmark = pytest.mark.virtual

LOST = BackendError("the connection was lost", url="http://author/v1")


def reader(lab: Any) -> Tool[..., Any]:
    """A tool that begins with its key, and notes what becomes of it."""

    @tool(reads="r/{key}")
    async def read(key: str, hint: Late[str]) -> str:
        lab.note("begun")
        try:
            said = await hint
            lab.note("worked")
            return f"{key} {said}"
        except asyncio.CancelledError:
            lab.note("cancelled")
            raise
        finally:
            lab.note("cleaned up")

    return read


def why(lab: Any) -> list[str]:
    return [str(event.why) for event in lab.told(events.PartialRetracted)]


async def test_a_reply_that_breaks_off_retracts_what_it_began(lab: Any, pen: Any) -> None:
    broken = pen.Stroke({}, 1.0, error=LOST)
    turn = [*pen.written("read", '{"key": "a", "hint": "b'), broken]
    engine = lab.start(turn, tools=[reader(lab)])

    with pytest.raises(RunFailed, match="the connection was lost"):
        await engine.run(Task("Which?", "react"))

    assert lab.log == [("begun", 1.0), ("cancelled", 2.0), ("cleaned up", 2.0)]
    assert why(lab) == ["its call was not completed"]


async def test_so_does_a_plan_that_breaks_off(lab: Any, pen: Any) -> None:
    broken = pen.Stroke({}, 1.0, error=LOST)
    plan = [pen.text('$1 = read(key="a", hint="b', 1.0), broken]
    engine = lab.start(plan, tools=[reader(lab)])

    with pytest.raises(RunFailed, match="the connection was lost"):
        await engine.run("Which?")

    assert lab.log == [("begun", 1.0), ("cancelled", 2.0), ("cleaned up", 2.0)]


async def test_so_does_a_model_that_declines(lab: Any, pen: Any) -> None:
    refusal = pen.Stroke({"refusal": "I must not."}, 1.0)
    engine = lab.start(
        [*pen.written("read", '{"key": "a", "hint": "b'), refusal], tools=[reader(lab)]
    )

    with pytest.raises(RunFailed, match="I must not"):
        await engine.run(Task("Which?", "react"))

    assert lab.notes == ["begun", "cancelled", "cleaned up"]


async def test_so_does_a_reply_that_is_cut_off(lab: Any, pen: Any) -> None:
    cut = pen.Stroke({}, 1.0, finish="length")

    await lab.react([*pen.written("read", '{"key": "a", "hint": "b'), cut], tools=[reader(lab)])

    assert lab.notes == ["begun", "cancelled", "cleaned up"]
    assert lab.results() == ["not called: the reply was too long and ended in this call"]


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ('b"]', "not called: read: the arguments cannot be read"),
        ('b", "bogus": 1}', "not called: read has no parameter 'bogus'"),
        ('b", "key": 7}', "not called: read: argument 'key'"),
    ],
)
async def test_so_does_a_call_that_cannot_be_made(lab: Any, pen: Any, end: str, told: str) -> None:
    await lab.react(pen.written("read", '{"key": "a", "hint": "', end), tools=[reader(lab)])

    assert lab.notes == ["begun", "cancelled", "cleaned up"]
    assert lab.results()[0].startswith(told), lab.results()
    assert why(lab) == ["an argument was rejected"]


async def test_a_call_made_with_other_arguments_is_made_anew(lab: Any, pen: Any) -> None:
    turn = pen.written("read", '{"key": "a", "hint": "', 'b", "key": "c"}')

    await lab.react(turn, tools=[reader(lab)])

    assert lab.results() == ["c b"]
    assert lab.notes.count("begun") == 2
    assert why(lab) == ["the call was made with other arguments"]


async def test_a_guard_that_is_false_takes_back_what_began(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def decide() -> bool:
        return False

    plan = [
        pen.text('$1 = decide()\n$2 = read(key="a", hint="', 1.0),
        pen.text('b") ', 1.0),
        pen.text("if $1\njoin()", 1.0),
    ]
    engine = lab.start(plan, "Answer: done", tools=[decide, reader(lab)])

    await engine.run("Which?")

    assert lab.notes == ["begun", "worked", "cleaned up"]
    assert not lab.told(events.PartialCommitted)
    assert [event.node for event in lab.told(events.NodeSkipped)] == [2]
    assert why(lab) == ["its call was not made"]


async def test_so_does_a_run_that_ends_before_the_line_does(lab: Any, pen: Any) -> None:
    plan = [
        pen.text('$1 = read(key="a", hint="', 1.0),
        pen.text('b")', 1.0),
        pen.text("\njoin()", 60.0),
    ]
    engine = lab.start(plan, tools=[reader(lab)])
    with pytest.raises(DeadlineExceeded):
        await engine.run(Task("Which?", budget=Budget(deadline=5.0)))

    assert lab.notes == ["begun", "worked", "cleaned up"]
    assert why(lab) == ["its call was not made"]
    assert isinstance(lab.events[-1], events.RunFailed)
    assert not [event for event in lab.events if isinstance(event, events.NodeEvent)]


async def test_a_call_for_each_element_does_not_begin_early(lab: Any, pen: Any) -> None:
    plan = [
        pen.text('$1 = read(hint="x", key=each ', 1.0),
        pen.text('["a", "b"])\njoin()', 1.0),
    ]
    engine = lab.start(plan, "Answer: done", tools=[reader(lab)])

    await engine.run("Which?")

    assert [at for what, at in lab.log if what == "begun"] == [2.0, 2.0]
    assert not lab.told(events.PartialCommitted)


async def test_a_call_whose_value_is_there_drops_what_began(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def look(key: str, hint: Late[str]) -> str:
        lab.note("begun")
        try:
            return await hint
        finally:
            lab.note("cleaned up")

    turn = pen.written("look", '{"key": "a", "hint": "', 'b"}')
    engine = lab.start(turn, "Done.", turn, "Done.", tools=[look])

    await engine.run(Task("Which?", "react"))
    lab.log.clear()
    await engine.run(Task("Which?", "react"))

    assert lab.log == [("begun", 3.0), ("cleaned up", 4.0)]
    assert why(lab) == ["the value was there already"]
    assert [event.source for event in lab.told(events.NodeReused)] == ["memory"]


async def test_of_two_equal_calls_that_began_one_is_made(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def look(key: str, hint: Late[str]) -> str:
        lab.note("begun")
        said = await hint
        lab.note("worked")
        return said

    halves = '{"key": "a", "hint": "', 'b"}'
    turn = [
        pen.call(0, "", "look"), pen.call(1, "", "look"),
        pen.call(0, halves[0], wait=1.0), pen.call(1, halves[0]),
        pen.call(0, halves[1], wait=1.0), pen.call(1, halves[1]),
    ]  # fmt: skip

    await lab.react(turn, tools=[look])

    assert lab.results() == ["b", "b"]
    assert len(lab.told(events.NodeFinished)) == 1
    assert why(lab) == ["the value was there already"]


async def test_a_plan_that_is_not_accepted_takes_back_its_writes(lab: Any, pen: Any) -> None:
    @tool(writes="r/{key}")
    async def write(key: str, text: Stream[str], *, commit: Commit) -> str:
        lab.note("prepared")
        try:
            await commit()
            lab.note("written")
            return "ok"
        finally:
            lab.note("cleaned up")

    plan = [
        pen.text('$1 = write(key="a", text="', 1.0),
        pen.text('b")\n', 1.0),
        pen.text("$2 = nothing()\njoin()", 1.0),
    ]
    engine = lab.start(plan, "join()", "Answer: done", tools=[write])

    await engine.run("Which?")

    assert lab.log[:2] == [("prepared", 1.0), ("cleaned up", 3.0)]
    assert "written" not in lab.notes


async def test_a_turn_that_ends_at_another_call_takes_back_its_writes(lab: Any, pen: Any) -> None:
    @tool(writes="r/{key}")
    async def write(key: str, text: Stream[str], *, commit: Commit) -> str:
        lab.note("prepared")
        await commit()
        lab.note("written")
        return "ok"

    turn = [
        *pen.written("write", '{"key": "a", "text": "', 'b"}'),
        *pen.written("write", '{"key": 7,', index=1),
    ]

    await lab.react(turn, tools=[write])

    assert lab.notes == ["prepared"]
    assert lab.results()[0].startswith("not called: the turn ended at another call")


async def test_a_warm_up_is_cleaned_up_after_the_call(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def fetch(url: str, *, link: Warm[str]) -> str:
        await asyncio.sleep(1.0)
        lab.note("fetched")
        return f"{url} by {link}"

    @fetch.warm
    async def connect() -> AsyncIterator[str]:
        lab.note("connected")
        try:
            yield "link"
        finally:
            lab.note("disconnected")

    await lab.react(pen.written("fetch", '{"url": ', '"u"}'), tools=[fetch])

    assert lab.log == [("connected", 0.0), ("fetched", 3.0), ("disconnected", 3.0)]
    assert lab.results() == ["u by link"]


async def test_a_warm_up_is_cleaned_up_although_there_is_no_call(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def fetch(url: str, *, link: Warm[str]) -> str:
        raise AssertionError("it is not called")

    @fetch.warm
    async def connect() -> AsyncIterator[str]:
        lab.note("connected")
        try:
            yield "link"
        finally:
            await asyncio.sleep(0.5)
            lab.note("disconnected")

    await lab.react(pen.written("fetch", '{"url": ', "7}"), tools=[fetch])

    assert lab.log == [("connected", 0.0), ("disconnected", 2.5)]
    assert why(lab) == ["an argument was rejected"]


async def test_a_warm_up_that_was_told_another_argument_is_made_anew(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def fetch(url: str, *, link: Warm[str]) -> str:
        return f"{url} by {link}"

    @fetch.warm
    async def connect(url: Late[str]) -> str:
        return f"the link to {await url}"

    turn = pen.written("fetch", '{"url": "a"', ', "url": "b"}')
    await lab.react(turn, tools=[fetch])

    assert lab.results() == ["b by the link to b"]


async def test_a_warm_up_is_told_of_an_argument_that_is_left_out(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def fetch(url: str, port: int = 80, *, link: Warm[str]) -> str:
        return f"{url} by {link}"

    @fetch.warm
    async def connect(port: Late[int]) -> str:
        return f"port {await port}"

    await lab.react(pen.written("fetch", '{"url": "a"}'), tools=[fetch])

    assert lab.results() == ["a by port 80"]


async def test_an_argument_that_came_late_belongs_to_the_tool(lab: Any, pen: Any) -> None:
    """Whatever the tool does to it: the call, and its key in the cache, stay as written."""

    @tool(pure=True)
    async def total(name: str, numbers: Late[Any]) -> int:
        given = await numbers
        given.append(1)
        return sum(given)

    turn = pen.written("total", '{"name": "x", "numbers": [1, 2]', "}")
    await lab.react(turn, turn, tools=[total])

    lines = [line for event in lab.told(events.PlanExtended) for line in event.lines]
    assert lines == ['$1 = total(name="x", numbers=[1, 2])']
    assert (lab.results(1), lab.results(2)) == (["4"], ["4"])


async def test_a_stream_that_is_left_out_is_empty(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def show(name: str, text: Stream[str] = None) -> str:
        return repr(await text.whole())

    await lab.react(pen.written("show", '{"name": "x"', "}"), tools=[show])

    assert lab.results() == ["''"]


async def test_a_read_that_another_call_of_the_turn_overtook_is_made_anew(
    lab: Any, pen: Any
) -> None:
    """The write is complete before the read: so the read comes after it, and sees it."""
    numbers = {"a": 0}

    @tool(reads="r/{key}")
    async def look(key: str, hint: Late[str]) -> str:
        lab.note("look")
        return f"{numbers[key]} {await hint}"

    @tool(writes="r/{key}")
    async def put(key: str, n: int) -> str:
        numbers[key] = n
        return "ok"

    turn = [
        *pen.written("look", '{"key": "a", "hint": "'),
        *pen.written("put", '{"key": "a", "n": 7}', index=1),
        pen.call(0, 'x"}', wait=1.0),
    ]
    await lab.react(turn, tools=[look, put], cache=False)

    assert lab.results() == ["7 x", "ok"]
    assert lab.log == [("look", 1.0), ("look", 3.0)]
    assert why(lab) == ["what it read has been written since"]


async def test_a_read_does_not_begin_before_a_write_that_is_under_way_has_ended(
    lab: Any, pen: Any
) -> None:
    numbers = {"a": 0}

    @tool(reads="r/{key}")
    async def look(key: str, hint: Late[str]) -> str:
        lab.note("look")
        return f"{numbers[key]} {await hint}"

    @tool(writes="r/{key}")
    async def put(key: str, n: int) -> str:
        await asyncio.sleep(2.5)
        numbers[key] = n
        return "ok"

    plan = [
        pen.text('$1 = put(key="a", n=7)\n', 1.0),
        pen.text('$2 = look(key="a", hint="', 1.0),
        *[pen.text("x", 1.0) for _ in range(3)],
        pen.text('")\njoin()', 1.0),
    ]
    engine = lab.start(plan, "Answer: done", tools=[look, put], cache=False)
    await engine.run(Task("Which?", commit="line"))

    # the write ends at 3.5; the next piece of the reply comes at 4
    assert lab.log == [("look", 4.0)]
    assert [event.value for event in lab.told(events.NodeFinished)] == ["ok", "7 xxx"]


async def test_a_call_that_did_not_begin_in_time_is_made_once(lab: Any, pen: Any) -> None:
    """It could begin when what it uses is there, but by then it is called."""

    @tool(pure=True)
    async def find() -> str:
        await asyncio.sleep(5.0)
        return "a"

    plan = [
        pen.text('$1 = find()\n$2 = read(key=$1, hint="', 1.0),
        pen.text('x")\n', 1.0),
        pen.text("join()", 10.0),
    ]
    engine = lab.start(plan, "Answer: done", tools=[find, reader(lab)])
    await engine.run("Which?")

    assert lab.log == [("begun", 6.0), ("worked", 6.0), ("cleaned up", 6.0)]


async def test_an_optional_argument_is_waited_for_until_a_late_one_begins(
    lab: Any, pen: Any
) -> None:
    @tool(pure=True)
    async def look(key: str, k: int = 1, *, hint: Late[str]) -> str:
        lab.note(f"k={k}")
        return await hint

    turn = pen.written("look", '{"key": "a", ', '"k": 2, ', '"hint": "', 'x"}')
    await lab.react(turn, tools=[look])
    assert lab.log == [("k=2", 2.0)]
    lab.log.clear()

    turn = pen.written("look", '{"key": "a", ', '"hint": "', 'x", ', '"k": 2}')
    began = asyncio.get_running_loop().time()
    await lab.engine.aclose()
    await lab.react(turn, tools=[look])
    assert [(what, at - began) for what, at in lab.log] == [("k=1", 2.0), ("k=2", 4.0)]


async def test_nothing_begins_in_a_run_that_has_no_room_for_its_calls(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def slow(n: int) -> int:
        await asyncio.sleep(10.0)
        return n

    turn = [
        *pen.written("slow", '{"n": 1}'),
        *pen.written("slow", '{"n": 2}', index=1),
        *pen.written("read", '{"key": "a", "hint": "', 'x"}', index=2),
    ]
    await lab.react(turn, tools=[slow, reader(lab)], limits=Limits(run=1))

    assert not lab.told(events.PartialStarted)
    assert lab.at("begun") == 21.0


async def test_a_part_that_is_ended_twice_cleans_up_once(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def look(key: str, hint: Late[str]) -> str:
        try:
            return await hint
        finally:
            await asyncio.sleep(0.5)
            lab.note("cleaned up")

    plan = [pen.text('$1 = look(key="a", hint="', 1.0), pen.text("x", 60.0)]
    engine = lab.start(plan, tools=[look])
    run = engine.start("Which?")
    await asyncio.sleep(1.5)

    await engine.aclose()
    await run.ended()

    assert lab.log == [("cleaned up", 2.0)]


async def test_a_call_that_is_not_made_for_want_of_a_value_ends_what_began(
    lab: Any, pen: Any
) -> None:
    @tool(pure=True)
    async def find() -> str:
        await asyncio.sleep(5.0)
        raise LookupError("nothing")

    plan = [
        pen.text('$1 = find()\n$2 = read(key="a", hint="', 1.0),
        pen.text('${1} x")\n', 1.0),
        pen.text("join()", 10.0),
    ]
    engine = lab.start(plan, "Answer: done", tools=[find, reader(lab)])
    await engine.run("Which?")

    assert lab.log == [("begun", 1.0), ("cancelled", 6.0), ("cleaned up", 6.0)]
    assert why(lab) == ["its call was not made"]


async def test_whatever_else_waits_for_the_call_ends_with_it(lab: Any, pen: Any) -> None:
    """Tasks that the tool has started may wait for its arguments, or for its commit."""
    helpers: list[asyncio.Task[Any]] = []

    @tool
    async def send(to: str, hint: Late[str], text: Stream[str], *, commit: Commit) -> None:
        async def want() -> str:
            return await hint

        works: list[Any] = [want(), text.whole(), anext(text.lines()), commit()]
        helpers.extend(asyncio.create_task(work) for work in works)
        await asyncio.sleep(60.0)

    await lab.react(pen.written("send", '{"to": "a", "text": "', "x"), tools=[send])
    await asyncio.wait(helpers, timeout=1.0)

    assert [task.cancelled() for task in helpers] == [True] * 4
