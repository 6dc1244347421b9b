"""Nothing remains of what began and was not called: whatever ends the turn, and whenever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from agentflow import Budget, Commit, Engine, Late, Stream, Task, Tool, Warm, tool
from agentflow.testing import VirtualLoop, run_virtual


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
            self.open.remove("connected")
            await self.working("disconnect", 0.01)

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


class Counting(VirtualLoop):
    """Counts its steps, and does something at one of them."""

    steps = 0
    due: tuple[int, Callable[[], object]] | None = None

    def _run_once(self) -> None:
        self.steps += 1
        if self.due is not None and self.steps == self.due[0]:
            self.call_soon(self.due[1])
        super()._run_once()  # type: ignore[misc]  # asyncio's own, and not in typeshed


def begin(bench: Bench, pen: Any, strategy: Any, deadline: float | None = None) -> Any:
    """A run of the task, its engine and its model."""
    strokes = in_turns(pen) if strategy == "react" else in_a_plan(pen)
    author = pen.Author.of(strokes, "Done.", "Done.", "Done.")
    engine = Engine(model=author, tools=bench.tools)
    task = Task("Which?", strategy, budget=Budget(usd=50, deadline=deadline))
    return engine.start(task), engine, author


async def over(bench: Bench, pen: Any, run: Any, engine: Engine, author: Any) -> None:
    """Wait for the end of a run, and check that nothing is left of it."""
    await run.ended()
    assert bench.open == []
    assert not await engine.aclose()
    pen.audit(engine)
    assert len(author.closed) == len(author.requests)


async def ended_at_step(bench: Bench, pen: Any, strategy: str, how: str, step: int) -> bool:
    """End a run at a step of its loop; whether it was over by then."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Counting)
    run, engine, author = begin(bench, pen, strategy)
    closing: list[asyncio.Task[list[str]]] = []

    def end() -> None:
        if how == "cancelled":
            run.cancel()
        elif how == "without its calls":
            for node in range(len(CALLS)):
                with suppress(LookupError):  # it is not called yet
                    run.cancel(node)
        else:
            closing.append(loop.create_task(engine.aclose()))

    loop.due = (loop.steps + step, end)
    await over(bench, pen, run, engine, author)
    await asyncio.gather(*closing)
    return loop.steps < loop.due[0]


@pytest.mark.parametrize("strategy", ["react", "plan"])
@pytest.mark.parametrize("how", ["cancelled", "closed", "without its calls"])
def test_nothing_remains_at_whichever_step_a_run_is_ended(
    pen: Any, strategy: str, how: str
) -> None:
    step, cut = 0, 0
    is_over = False
    while not is_over:
        step += 1
        bench = Bench()
        with asyncio.Runner(loop_factory=Counting) as runner:
            is_over = runner.run(ended_at_step(bench, pen, strategy, how, step))
        cut += len(bench.cut)
    assert step > 50 and cut > 20


async def out_of_time(bench: Bench, pen: Any, strategy: str, deadline: float) -> None:
    run, engine, author = begin(bench, pen, strategy, deadline)
    await over(bench, pen, run, engine, author)


@pytest.mark.parametrize("strategy", ["react", "plan"])
def test_nothing_remains_whenever_a_run_is_out_of_time(pen: Any, strategy: str) -> None:
    cut = 0
    for step in range(40):
        bench = Bench()
        run_virtual(out_of_time(bench, pen, strategy, 0.013 + 0.1 * step))
        cut += len(bench.cut)
    assert cut > 10
