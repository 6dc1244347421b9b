"""What a tool read early is not taken for what its call would read, after others have written."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow import Engine, Late, Task, Tool, events, tool, workflow
from agentflow.executor.partial.part import Part
from agentflow.testing import run_virtual

HALVES = '{"key": "a", "hint": "', 'x"}'


class Shelf:
    """Numbers by key, and tools that read and change them."""

    def __init__(self, lab: Any = None, *, seconds: float = 0.0) -> None:
        numbers: Counter[str] = Counter()

        @tool(reads="shelf/{key}")
        async def look(key: str, hint: Late[str]) -> str:
            if lab is not None:
                lab.note(f"look {key}")
            n = numbers[key]
            return f"{n} {await hint}"

        @tool(reads="shelf")
        async def total(hint: Late[str]) -> str:
            n = sum(numbers.values())
            return f"{n} {await hint}"

        @tool(writes="shelf/{key}")
        async def put(key: str, n: int) -> str:
            await asyncio.sleep(seconds)
            numbers[key] = n
            return "done"

        @workflow
        async def change(key: str, n: int) -> str:
            return await put(key, n)

        self.change = change
        self.tools: list[Tool[..., Any]] = [look, total, put]


@pytest.mark.virtual
async def test_a_write_of_another_run_makes_it_stale(lab: Any, pen: Any) -> None:
    shelf = Shelf(lab)
    engine = lab.start(pen.written("look", *HALVES), "Done.", tools=shelf.tools)
    run = engine.start(Task("Which?", "react"))
    await asyncio.sleep(1.5)
    await engine.run(shelf.change, "a", 7)
    await run

    assert lab.results() == ["7 x"]
    assert lab.log == [("look a", 1.0), ("look a", 2.0)]
    assert [str(event.why) for event in lab.told(events.PartialRetracted)] == [
        "what it read has been written since"
    ]


@pytest.mark.virtual
async def test_so_does_one_that_is_under_way_meanwhile(lab: Any, pen: Any) -> None:
    shelf = Shelf(lab, seconds=1.0)
    engine = lab.start(pen.written("look", *HALVES), "Done.", tools=shelf.tools)
    run = engine.start(Task("Which?", "react"))
    await asyncio.sleep(0.5)
    await engine.run(shelf.change, "a", 7)
    await run

    assert lab.results() == ["7 x"]
    assert lab.log == [("look a", 1.0), ("look a", 2.0)]


@pytest.mark.virtual
async def test_a_write_of_something_else_does_not(lab: Any, pen: Any) -> None:
    shelf = Shelf(lab)
    engine = lab.start(pen.written("look", *HALVES), "Done.", tools=shelf.tools)
    run = engine.start(Task("Which?", "react"))
    await asyncio.sleep(1.5)
    await engine.run(shelf.change, "b", 7)
    await run

    assert lab.results() == ["0 x"]
    assert lab.log == [("look a", 1.0)]
    assert lab.told(events.PartialCommitted)


@pytest.mark.virtual
async def test_a_write_after_the_call_does_not(lab: Any, pen: Any) -> None:
    shelf = Shelf(lab)
    turn = [*pen.written("look", *HALVES), pen.text("And so on.", 5.0)]
    engine = lab.start(turn, "Done.", tools=shelf.tools)
    run = engine.start(Task("Which?", "react"))
    await asyncio.sleep(2.5)
    await engine.run(shelf.change, "a", 7)
    await run

    assert lab.results() == ["0 x"]


# Any writes, at any time


def results(seed: int, pen: Any, *, partial: bool) -> Any:
    return run_virtual(_results(seed, pen, partial=partial))


async def _results(seed: int, pen: Any, *, partial: bool) -> Any:
    """What reads in one turn give while other runs write between its chunks."""
    chance, shelf = random.Random(seed), Shelf()
    strokes = []
    for index in range(3):
        name = chance.choice(("look", "total"))
        key = f'"key": "{chance.choice("ab")}", ' if name == "look" else ""
        strokes.append(pen.call(index, "", name, wait=1.0))
        for piece in (f'{{{key}"hint": "', "x", '"}'):
            strokes.append(pen.call(index, piece, wait=1.0))
    author = pen.Author.of(strokes, "Done.")
    async with Engine(model=author, tools=shelf.tools, partial=partial) as engine:
        run = engine.start(Task("Which?", "react"))
        await asyncio.sleep(0.5)
        for number in range(len(strokes)):
            await asyncio.sleep(1.0)
            if chance.random() < 0.3:
                await engine.run(shelf.change, chance.choice("ab"), number)
        await run
    return author.requests[1]


@settings(max_examples=30)
@given(seed=st.integers(0, 1 << 32))
def test_whatever_others_write_reads_see_what_they_would(pen: Any, seed: int) -> None:
    assert results(seed, pen, partial=True) == results(seed, pen, partial=False)


def test_without_looking_at_the_epochs_they_would_not(
    pen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fresh(self: Part) -> bool:
        return True

    monkeypatch.setattr(Part, "_is_fresh", fresh)

    seeds = range(20)
    assert any(
        results(seed, pen, partial=True) != results(seed, pen, partial=False) for seed in seeds
    )
