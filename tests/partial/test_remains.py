"""Nothing remains of what began and was not called: whatever ends the turn, and whenever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentflow import Budget, Commit, Engine, Late, Stream, Task, Tool, Warm, tool
from agentflow.testing import run_virtual

pytestmark = pytest.mark.virtual


class Bench:
    """Tools of every kind that count what they have open, and what they have done."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.cut: list[str] = []
        self.done: list[str] = []
        self.tools: list[Tool[..., Any]] = [
            tool(reads="r/{key}", limit=1, usd=0.1)(self.read),
            tool(pure=True, rate=2)(self.follow),
            tool(writes="r/{key}")(self.write),
            tool()(self.tell),
        ]
        self.tools[2].warm(self.connect)
        self.tools[3].warm(self.connect)

    async def working(self, what: str, seconds: float = 0.3) -> None:
        """Work that takes a moment to clean up after it was cut off."""
        self.open.append(what)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cut.append(what)
            await asyncio.sleep(0.05)
            raise
        finally:
            self.open.remove(what)

    async def connect(self) -> AsyncIterator[str]:
        await self.working("connect")
        self.open.append("connected")
        try:
            yield "connection"
        finally:
            await self.working("disconnect", 0.01)
            self.open.remove("connected")

    async def read(self, key: str, hint: Late[str]) -> str:
        self.open.append("read")
        try:
            await self.working("read on")
            return f"{key} {await hint}"
        finally:
            self.open.remove("read")

    async def follow(self, text: Stream[str]) -> int:
        lines = 0
        async for _ in text.lines():
            await self.working("follow")
            lines += 1
        return lines

    async def write(self, key: str, text: Stream[str], *, link: Warm[str], commit: Commit) -> str:
        await self.working("prepare")
        await commit()
        self.done.append(f"{key} {await text.whole()}")
        return link

    async def tell(self, text: Late[str], *, link: Warm[str], commit: Commit) -> str:
        await commit()
        self.done.append(await text)
        return link


CALLS = (
    ("write", '{"key": "x", "text": "one\\ntwo"}'),
    ("read", '{"key": "x", "hint": "a"}'),
    ("read", '{"key": "y", "hint": "b"}'),
    ("follow", '{"text": "one\\ntwo\\nthree\\n"}'),
    ("tell", '{"text": "all of it"}'),
)

PLAN = """$1 = read(key="x", hint="a")
$2 = write(key="x", text="${1} and\\ntwo")
$3 = follow(text="one\\ntwo\\nthree\\n") if $1
$4 = read(key="y", hint="b")
$5 = tell(text="${4}")
join()"""


def in_turns(pen: Any) -> list[Any]:
    """The calls in one turn, written slowly."""
    out = []
    for index, (name, arguments) in enumerate(CALLS):
        out.append(pen.call(index, "", name, wait=0.1))
        out += [pen.call(index, arguments[at : at + 8], wait=0.1) for at in range(0, 40, 8)]
    return out


def in_a_plan(pen: Any) -> list[Any]:
    return [pen.text(PLAN[at : at + 8], 0.1) for at in range(0, len(PLAN), 8)]


async def ended(bench: Bench, pen: Any, strategy: Any, how: str, when: float) -> None:
    """End a run of a task early, and check that nothing is left of it."""
    strokes = in_turns(pen) if strategy == "react" else in_a_plan(pen)
    author = pen.Author.of(strokes, "Done.", "Done.", "Done.")
    engine = Engine(model=author, tools=bench.tools)
    deadline = when if how == "out of time" else None
    run = engine.start(Task("Which?", strategy, budget=Budget(usd=50, deadline=deadline)))
    await asyncio.sleep(when)
    if how == "cancelled":
        run.cancel()
    elif how == "closed":
        await engine.aclose()
    await run.ended()
    assert bench.open == []
    assert not await engine.aclose()
    pen.audit(engine)
    assert len(author.closed) == len(author.requests)


@pytest.mark.parametrize("strategy", ["react", "plan"])
@pytest.mark.parametrize("how", ["cancelled", "closed", "out of time"])
def test_nothing_remains_whenever_a_run_is_ended(pen: Any, strategy: Any, how: str) -> None:
    cut = 0
    for step in range(110):
        bench = Bench()
        run_virtual(ended(bench, pen, strategy, how, 0.013 + 0.05 * step))
        cut += len(bench.cut)
    assert cut > 10
