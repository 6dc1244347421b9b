"""Events for a reader that is slow: what it misses is summed up, and nothing grows without end."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from agentflow.events import (
    Event,
    EventsDropped,
    NodeFinished,
    NodeStarted,
    RunFinished,
    RunStarted,
    TextDelta,
    TextRetracted,
)
from agentflow.executor import backlog as module
from agentflow.executor.backlog import Backlog


def node(number: int, at: float = 0.0, run: str = "r") -> NodeStarted:
    return NodeStarted(run, at, number, "search", None)


def text(piece: str, role: str = "answer", at: float = 0.0, of: int | None = None) -> TextDelta:
    return TextDelta("r", at, piece, role, of)


async def taken(backlog: Backlog) -> list[Event]:
    """Everything up to the end of the run ``r``."""
    found = [await backlog.get()]
    while not (isinstance(found[-1], RunFinished) and found[-1].run == "r"):
        found.append(await backlog.get())
    return found


async def told(limit: int, *events: Event) -> list[Event]:
    """What a reader finds who begins to read when all is over."""
    backlog = Backlog(limit)
    for event in events:
        backlog.put(event)
    return await taken(backlog)


async def test_a_reader_that_keeps_up_gets_every_event_as_it_is() -> None:
    backlog = Backlog(1)
    sent = [RunStarted("r", 0.0, "flow"), node(0), text("a"), text("b"), RunFinished("r", 1.0, 7)]
    found = []
    for event in sent:
        backlog.put(event)
        found.append(await backlog.get())

    assert found == sent
    assert all(a is b for a, b in zip(found, sent, strict=True))


async def test_a_reader_waits_for_the_next_event() -> None:
    backlog = Backlog(1)
    reader = asyncio.create_task(backlog.get())
    await asyncio.sleep(0)
    assert not reader.done()

    backlog.put(node(0))

    assert await reader == node(0)


async def test_as_many_events_as_the_limit_wait_as_they_are() -> None:
    sent = [RunStarted("r", 0.0, "flow"), node(0), RunFinished("r", 1.0, 7)]

    assert await told(3, *sent) == sent


async def test_what_is_beyond_the_limit_is_counted_where_the_first_is_missing() -> None:
    start, end = RunStarted("r", 0.0, "flow"), RunFinished("r", 9.0, 7)
    found = await told(
        2, start, node(0), node(1, 5.0), NodeFinished("r", 6.0, 1, "s", None, 1), end
    )

    assert found == [
        start,
        node(0),
        EventsDropped("r", 5.0, 2, {"node_started": 1, "node_finished": 1}),
        end,
    ]


async def test_how_runs_begin_and_end_is_never_left_out() -> None:
    start, end = RunStarted("r", 0.0, "flow"), RunFinished("r", 9.0, 7)
    inner = RunStarted("s", 2.0, "inner", "r", 0)
    found = await told(1, start, inner, node(0, 3.0, "s"), RunFinished("s", 4.0, 1), end)

    assert found == [
        start,
        inner,
        EventsDropped("r", 3.0, 1, {"node_started": 1}),
        RunFinished("s", 4.0, 1),
        end,
    ]


async def test_the_pieces_of_a_reply_become_one() -> None:
    start, end = RunStarted("r", 0.0, "flow"), RunFinished("r", 9.0, 7)
    pieces = [text("a", at=1.0), text("x", "thought", 2.0), text("b", at=3.0), text("n", of=4)]

    assert await told(3, start, node(0), node(1), *pieces, end) == [
        start,
        node(0),
        node(1),
        text("ab", at=1.0),
        text("x", "thought", 2.0),
        text("n", of=4),
        end,
    ]


async def test_the_events_that_were_sent_are_not_changed() -> None:
    first = text("a")
    await told(1, RunStarted("r", 0.0, "flow"), first, text("b"), RunFinished("r", 9.0, 7))

    assert first == text("a")


async def test_what_follows_a_retraction_is_another_reply() -> None:
    start, end = RunStarted("r", 0.0, "flow"), RunFinished("r", 9.0, 7)
    void = TextRetracted("r", 2.0)
    other = text("o", of=1)
    pieces = [text("a"), other, void, text("b"), text("p", of=1)]
    found = await told(2, start, node(0), *pieces, end)

    assert found == [start, node(0), text("a"), text("op", of=1), void, text("b"), end]


async def test_a_reader_that_has_caught_up_gets_events_as_they_are_again() -> None:
    backlog = Backlog(2)
    for number in range(5):
        backlog.put(node(number))
    first = [await backlog.get() for _ in range(3)]
    backlog.put(node(5))
    backlog.put(RunFinished("r", 9.0, 7))

    assert first == [node(0), node(1), EventsDropped("r", 0.0, 3, {"node_started": 3})]
    assert await taken(backlog) == [node(5), RunFinished("r", 9.0, 7)]


async def test_the_text_that_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TEXT", 4)
    start, end = RunStarted("r", 0.0, "flow"), RunFinished("r", 9.0, 7)
    found = await told(1, start, text("abc"), text("de"), text("f"), end)

    assert found == [start, text("abc"), EventsDropped("r", 0.0, 2, {"text_delta": 2}), end]


async def test_the_replies_that_are_kept_apart_are_bounded() -> None:
    start, end = RunStarted("r", 0.0, "flow"), RunFinished("r", 9.0, 7)
    found = await told(2, start, *(text("a", of=number) for number in range(5)), end)

    assert found == [
        start,
        text("a", of=0),
        text("a", of=1),
        text("a", of=2),
        EventsDropped("r", 0.0, 2, {"text_delta": 2}),
        end,
    ]


async def test_a_reader_that_never_reads_costs_no_more_for_all_that_comes() -> None:
    backlog = Backlog(100)
    piece, event = text("some text "), node(0)
    tracemalloc.start()
    try:
        for _ in range(100_000):
            backlog.put(piece)
            backlog.put(event)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held < 10 * module.TEXT
