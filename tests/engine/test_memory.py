"""Memory of an engine that lives long: nothing it keeps grows with the number of its runs."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias
from weakref import ref

import pytest

from agentflow import Budget, Caching, Engine, Limits, _http, llm, tool, workflow
from agentflow.caches.speculation.foresight import Foresight
from agentflow.caches.tool_cache import ToolCache
from agentflow.errors import RunError
from agentflow.executor.affinity.pool import Pool
from agentflow.executor.affinity.replica import ReplicaSpec
from agentflow.executor.calls import hedging
from agentflow.executor.models.client import OpenAIBackend
from agentflow.executor.run import Run
from agentflow.executor.services import Services
from agentflow.testing import Call, ScriptedServer
from agentflow.testing.chat import ChatCall
from agentflow.testing.replies import Answer

RUNS = 20
"""Runs of each batch; whatever is kept of every run is found in that many places."""

SMALL = Caching(memory=64 << 10)  # full after a few runs

CONTAINERS = (dict, list, set, deque, OrderedDict)

OURS = (Engine, Services, Run, ToolCache, Foresight)

Do: TypeAlias = Callable[[Engine, int], Awaitable[object]]


@tool
async def echo(number: int) -> int:
    return number


@tool(pure=True)
async def computed(number: int) -> str:
    return f"{number:06}" * 400


@tool(reads="shelf/{number}")
async def looked_up(number: int) -> str:
    return f"{number:06}" * 400


@tool(writes="shelf/{number}")
async def put(number: int) -> int:
    return number


@tool(reads="shelf", ttl=0, hedge=True, timeout=5)
async def hedged(number: int) -> int:
    return number


@tool
async def broken(number: int) -> int:
    raise ValueError(number)


@tool
def threaded(number: int) -> int:
    return number


@tool
async def slow(number: int) -> int:
    await asyncio.sleep(60)
    return number


@tool
async def stubborn(number: int) -> int:
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
            return number


@llm
async def judged(number: int) -> str:
    """Say something about {number}."""
    raise NotImplementedError


@llm(model=["tiny", "large"])
async def tried(number: int) -> str:
    """Say something about {number}."""
    raise NotImplementedError


@workflow
async def nested(number: int) -> list[int]:
    return await echo.map([number, number + 1])


@workflow
async def calls(number: int) -> list[object]:
    return [echo(number), computed(number), hedged(1), threaded(number), nested(number)]


@workflow
async def shelf(number: int) -> list[object]:
    return [looked_up(number), put(number % 7), looked_up(number)]


@workflow
async def fails(number: int) -> int:
    return await broken(number)


@workflow
async def never_ends(number: int) -> int:
    return await slow(number)


@workflow
async def hangs(number: int) -> int:
    return await stubborn(number)


@workflow
async def judges(number: int) -> str:
    return await judged(number)


@workflow(budget=Budget(tokens=100_000, deadline=600))
async def tries(number: int) -> str:
    return await tried(number)


def says(call: ChatCall) -> Answer:
    """A model that calls a tool once, plans once, and answers."""
    if call.tools:
        asked = call.messages[-1]["role"] != "tool"
        return Call("echo", {"number": call.number}) if asked else "done"
    if "Observations" in str(call.messages):
        return "ANSWER: done"
    if "Question" in str(call.messages):
        return f"$1 = echo(number={call.number})\njoin()"
    return "something"


async def streamed(engine: Engine, number: int) -> None:
    async for _ in engine.stream(calls, number):
        pass


async def left_early(engine: Engine, number: int) -> None:
    stream = engine.stream(never_ends, number)
    await anext(stream)
    await stream.aclose()


async def cancelled(engine: Engine, number: int) -> None:
    run = engine.start(never_ends, number)
    await asyncio.sleep(0.1)
    run.cancel()
    await run.ended()


async def planned(engine: Engine, number: int) -> None:
    await engine.run(engine.plan(f"$1 = echo(number={number})\nreturn $1"))


async def with_a_tool_of_its_own(engine: Engine, number: int) -> None:
    @tool
    async def own(number: int) -> int:
        return number

    await engine.run(engine.plan("$1 = own(number=1)\nreturn $1", tools=[own]), tools=[own])


KINDS: dict[str, Do] = {
    "workflow": lambda engine, number: engine.run(calls, number),
    "cached": lambda engine, number: engine.run(shelf, number),
    "failing": lambda engine, number: engine.run(fails, number),
    "past its deadline": lambda engine, number: engine.run(
        engine.plan("$1 = slow(number=1)"), deadline=0.1
    ),
    "abandoned": lambda engine, number: engine.run(
        engine.plan("$1 = stubborn(number=1)"), deadline=0.1
    ),
    "cancelled": cancelled,
    "plan": planned,
    "tools of its own": with_a_tool_of_its_own,
    "stream": streamed,
    "stream left early": left_early,
    "tenant": lambda engine, number: engine.tenant("t", Budget(usd=9)).run(calls, number),
    "react": lambda engine, number: engine.run(f"What is {number}?", strategy="react"),
    "task": lambda engine, number: engine.run(f"What is {number}?"),
    "llm": lambda engine, number: engine.run(judges, number),
    "samples": lambda engine, number: engine.run(tries, number),
}

POOLED = ("cached", "cancelled", "react", "task", "samples")
"""What is also tried with a pool of models, and guesses."""

JOURNALLED = ("workflow", "failing", "cancelled", "react", "task")
"""What is also tried with a journal."""


class Setting:
    """An engine with scripted models, behind one server or a pool of two, perhaps with a journal."""

    def __init__(self, *, pool: bool = False, journal: Path | bool = False) -> None:
        self._journal = journal
        self._server = ScriptedServer(says)
        self._https: list[Any] = []
        self._pool = pool

    def _http(self) -> Any:
        self._https.append(_http.client(transport=self._server.transport()))
        return self._https[-1]

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        if self._pool:
            replicas = [ReplicaSpec("http://a/v1"), ReplicaSpec("http://b/v1")]
            model: Any = Pool(replicas, "tiny", http=self._http())
        else:
            model = OpenAIBackend("http://a/v1", "tiny", http=self._http())
        large = OpenAIBackend("http://large/v1", "large", http=self._http())
        await large.connect()  # which imports much, in a thread
        async with Engine(
            tools=[echo, slow, stubborn],
            model=model,
            models={"tiny": model, "large": large},
            cache=SMALL,
            speculation=self._pool,
            limits=Limits(grace=0.1),
            seed=7,
            journal=self._journal,
        ) as made:
            yield made
        for http in self._https:
            await http.aclose()

    def forget(self) -> None:
        """What the server remembers of its requests is not the engine's."""
        self._server.requests.clear()


def held() -> tuple[Counter[str], int]:
    """Objects by type, and how many items all containers have together."""
    gc.collect()
    found = gc.get_objects()
    items = sum(len(each) for each in found if type(each) in CONTAINERS and not of_sqlite(each))
    objects = Counter(type(each).__qualname__ for each in found if not isinstance(each, ref))
    return objects, items


def of_sqlite(container: Any) -> bool:
    """Whether it is a connection's list of its cursors, which it prunes after two hundred."""
    return type(container) is list and bool(container) and isinstance(container[0], ref)


@pytest.mark.parametrize(
    ("kind", "beside"),
    [
        *((kind, "nothing") for kind in KINDS),
        *((kind, "pool") for kind in POOLED),
        *((kind, "journal") for kind in JOURNALLED),
    ],
)
async def test_nothing_is_kept_of_a_run_that_is_over(
    kind: str, beside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hedging, "WINDOW", 16)
    pool, journal = beside == "pool", tmp_path / "journal.db" if beside == "journal" else False
    setting, do = Setting(pool=pool, journal=journal), KINDS[kind]

    async def batch(first: int) -> None:
        for number in range(first, first + RUNS):
            with suppress(RunError):
                await do(engine, number % 40 if pool else number)  # it remembers 2,048 calls
        await asyncio.sleep(60)  # virtual: what was given up on has ended too
        setting.forget()

    async with setting.engine() as engine:
        for first in range(0, 6 * RUNS, RUNS):  # until what is bounded is full
            await batch(first)
        held()  # looking makes some objects too
        objects, items = held()
        await batch(6 * RUNS)
        more_objects, more_items = held()

    grown = {what: n for what, n in (more_objects - objects).items() if n > RUNS // 3}
    assert grown == {}
    assert more_items - items < RUNS // 3


def ours() -> list[str]:
    """What belongs to engines, whosever they are."""
    gc.collect()
    return sorted(type(each).__name__ for each in gc.get_objects() if isinstance(each, OURS))


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_is_kept_of_an_engine_that_is_closed(kind: str) -> None:
    before = ours()
    async with Setting().engine() as engine:
        with suppress(RunError):
            await KINDS[kind](engine, 1)
    await asyncio.sleep(60)  # virtual: what was given up on has ended too
    del engine

    assert ours() == before
