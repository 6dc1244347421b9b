"""How many seconds of work were hidden while the model wrote: exact figures on virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentflow import Commit, Late, Stream, Tool, Warm, events, tool

pytestmark = pytest.mark.virtual


def hidden(lab: Any) -> list[Any]:
    return [pytest.approx(event.hidden) for event in lab.told(events.PartialCommitted)]


def ended(lab: Any) -> list[float]:
    return [event.at for event in lab.told(events.NodeFinished)]


def worker(before: float, after: float) -> Tool[..., Any]:
    """A tool that works for so long before it wants its late argument, and after."""

    @tool(pure=True)
    async def work(name: str, hint: Late[str]) -> str:
        await asyncio.sleep(before)
        said = await hint
        await asyncio.sleep(after)
        return said

    return work


@pytest.mark.parametrize(
    ("before", "after", "saved", "end"),
    [
        (3.0, 0.0, 3.0, 11.0),  # all of it
        (3.0, 5.0, 3.0, 16.0),  # what could be done without the argument
        (0.0, 5.0, 0.0, 16.0),  # nothing could
        (30.0, 0.0, 10.0, 31.0),  # as long as the model wrote
    ],
)
async def test_an_early_start_hides_what_needs_no_late_argument(
    lab: Any, pen: Any, before: float, after: float, saved: float, end: float
) -> None:
    turn = [*pen.written("work", '{"name": "a", "hint": "'), pen.call(0, 'x"}', wait=10.0)]

    await lab.react(turn, tools=[worker(before, after)])

    assert hidden(lab) == [saved]
    assert ended(lab) == [end]


async def test_with_it_a_run_is_faster_by_what_it_hides(lab: Any, pen: Any) -> None:
    turn = [*pen.written("work", '{"name": "a", "hint": "'), pen.call(0, 'x"}', wait=10.0)]
    times = []
    for partial in (True, False):
        loop = asyncio.get_running_loop()
        began = loop.time()
        await lab.react(turn, tools=[worker(3.0, 5.0)], partial=partial)
        times.append(loop.time() - began)
        await lab.engine.aclose()

    assert times[1] - times[0] == pytest.approx(3.0)


async def test_a_warm_up_hides_what_it_took(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def fetch(url: str, *, link: Warm[str]) -> str:
        await asyncio.sleep(1.0)
        return link

    @fetch.warm
    async def connect() -> str:
        await asyncio.sleep(3.0)
        return "link"

    await lab.react([*pen.written("fetch"), pen.call(0, '{"url": "u"}', wait=10.0)], tools=[fetch])

    assert hidden(lab) == [3.0]
    assert ended(lab) == [11.0]


async def test_one_that_goes_on_into_the_call_hides_what_came_before(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def fetch(url: str, *, link: Warm[str]) -> str:
        await asyncio.sleep(1.0)
        return link

    @fetch.warm
    async def connect() -> str:
        await asyncio.sleep(15.0)
        return "link"

    await lab.react([*pen.written("fetch"), pen.call(0, '{"url": "u"}', wait=10.0)], tools=[fetch])

    assert hidden(lab) == [10.0]
    assert ended(lab) == [16.0]


async def test_a_stream_hides_the_work_on_what_was_there(lab: Any, pen: Any) -> None:
    """Five lines, one every two seconds, each of which takes one second of work."""

    @tool(pure=True)
    async def run(code: Stream[str]) -> int:
        count = 0
        async for _ in code.lines():
            await asyncio.sleep(1.0)
            count += 1
        return count

    lines = [pen.call(0, f"x = {number}\\n", wait=2.0) for number in range(5)]
    turn = [pen.call(0, "", "run"), pen.call(0, '{"code": "'), *lines, pen.call(0, '"}', wait=2.0)]
    await lab.react(turn, tools=[run])

    # lines at 2, 4, 6, 8 and 10; the end at 12, when all of them are done
    assert hidden(lab) == [5.0]
    assert ended(lab) == [12.0]


async def test_of_slow_work_it_hides_as_much_as_the_model_wrote_for(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def run(code: Stream[str]) -> int:
        count = 0
        async for _ in code.lines():
            await asyncio.sleep(3.0)
            count += 1
        return count

    lines = [pen.call(0, f"x = {number}\\n", wait=2.0) for number in range(5)]
    turn = [pen.call(0, "", "run"), pen.call(0, '{"code": "'), *lines, pen.call(0, '"}', wait=2.0)]
    await lab.react(turn, tools=[run])

    # at work from 2 on, without a pause: F_5 = 2 + 5 * 3
    assert hidden(lab) == [10.0]
    assert ended(lab) == [17.0]


async def test_waiting_for_the_commit_hides_nothing(lab: Any, pen: Any) -> None:
    @tool(writes="files")
    async def write(text: Stream[str], *, commit: Commit) -> str:
        await text.whole()
        await asyncio.sleep(1.0)
        await commit()
        await asyncio.sleep(1.0)
        return "ok"

    turn = [*pen.written("write", '{"text": "x"}'), pen.text("So be it.", 10.0)]
    await lab.react(turn, tools=[write])

    assert hidden(lab) == [1.0]
    assert ended(lab) == [12.0]


async def test_calls_overlap_with_one_another_and_with_decoding(lab: Any, pen: Any) -> None:
    work = worker(6.0, 0.0)
    turn = [
        stroke
        for index in range(3)
        for stroke in (
            *pen.written("work", f'{{"name": "{index}", "hint": "', index=index),
            pen.call(index, 'x"}', wait=4.0),
        )
    ]
    await lab.react(turn, tools=[work])

    # one begins every five seconds, and is called four seconds later
    assert hidden(lab) == [4.0, 4.0, 4.0]
    assert ended(lab) == [7.0, 12.0, 17.0]


async def test_in_a_plan_it_is_the_same(lab: Any, pen: Any) -> None:
    plan = [pen.text('$1 = work(name="a", hint="', 1.0), pen.text('x")\njoin()', 10.0)]
    engine = lab.start(plan, "Answer: done", tools=[worker(3.0, 5.0)])

    await engine.run("Which?")

    assert hidden(lab) == [3.0]
    assert ended(lab) == [16.0]


async def test_a_call_that_uses_another_begins_when_that_has_ended(lab: Any, pen: Any) -> None:
    @tool(pure=True)
    async def find() -> str:
        await asyncio.sleep(4.0)
        return "a"

    plan = [
        pen.text('$1 = find()\n$2 = work(name="b", hint="', 1.0),  # nothing is known of $2 yet
        pen.text('x")\n$3 = work(name=$1, hint="', 1.0),
        pen.text('and so on", ', 10.0),
        pen.text(")\njoin()", 0.0),
    ]
    engine = lab.start(plan, "Answer: done", tools=[find, worker(3.0, 0.0)])

    await engine.run("Which?")

    # $3 has its name at 5, and works for three seconds of the seven until it is complete
    [_, third] = lab.told(events.PartialStarted)
    assert third.at == 5.0
    assert hidden(lab) == [1.0, 3.0]


async def test_nothing_is_hidden_by_what_was_of_no_use(lab: Any, pen: Any) -> None:
    turn = [*pen.written("work", '{"name": "a", "hint": "'), pen.call(0, '", "b": 1}', wait=10.0)]

    await lab.react(turn, tools=[worker(3.0, 0.0)])

    [retracted] = lab.told(events.PartialRetracted)
    assert retracted.seconds == pytest.approx(10.0)
    assert hidden(lab) == []
