"""Every way to stop ends everything that runs: tasks, threads, processes and connections."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import pytest

from agentflow import Budget, Engine, Limits, llm, tool, workflow
from agentflow.errors import DeadlineExceeded, RunCancelled
from agentflow.events import TERMINAL, Event
from agentflow.testing import ScriptedServer
from agentflow.testing.replies import Fault
from agentflow.tools.builtin import http_tools, python_tool

GRACE = 0.2
"""Seconds that what is stopped has to end."""

DEADLINE = 1.0
"""Seconds after which runs end that are given a deadline: by then all has begun."""

PATIENT = 30.0
"""Seconds after which a test gives up."""

Flow: TypeAlias = Any

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks into /proc")


@pytest.fixture
def anyio_backend() -> str:
    """Real time: processes and threads have no other."""
    return "asyncio"


class World:
    """What the calls of a test do, and what they hold.

    Attributes:
        going: Set when the call that is to be stopped is under way.
        release: Lets end what does not end when it is told to.
        page: Port of a server whose answer breaks off in the middle, until the client goes.
        process: Port of a server that says nothing.
    """

    def __init__(self) -> None:
        self.going = asyncio.Event()
        self.release = threading.Event()
        self.page = 0
        self.process = 0
        self._loop = asyncio.get_running_loop()
        self._closed = asyncio.Condition()
        self._open = 0

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """Serve; at the end, wait until nobody is connected."""
        async with (
            await asyncio.start_server(self._half_a_page, "127.0.0.1") as page,
            await asyncio.start_server(self._until_closed, "127.0.0.1") as process,
        ):
            self.page, self.process = (s.sockets[0].getsockname()[1] for s in (page, process))
            yield
            async with self._closed:
                await self._closed.wait_for(lambda: self._open == 0)

    async def _half_a_page(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it")
        await self._until_closed(reader, writer)

    async def _until_closed(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._open += 1
        self.going.set()
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        async with self._closed:
            self._open -= 1
            self._closed.notify()

    # What tools do

    async def sleep(self, number: int = 0) -> None:
        self.going.set()
        await asyncio.Event().wait()

    async def ignore(self) -> None:
        self.going.set()
        waiting = asyncio.ensure_future(asyncio.to_thread(self.release.wait, PATIENT))
        while not waiting.done():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(waiting)

    def hang(self) -> None:
        self._loop.call_soon_threadsafe(self.going.set)
        self.release.wait(PATIENT)


PROGRAM = """
import os, socket
if os.fork() == 0:
    os.setsid()
connection = socket.create_connection(("127.0.0.1", {port}))
while True:
    connection.recv(1)
"""


def sleeps(world: World) -> Flow:
    sleep = tool(world.sleep)

    @workflow
    async def flow() -> None:
        await sleep()

    return flow


def is_nested(world: World) -> Flow:
    inner = sleeps(world)

    @workflow
    async def flow() -> None:
        await inner()

    return flow


def is_a_map(world: World) -> Flow:
    sleep = tool(world.sleep)

    @workflow
    async def flow() -> None:
        await sleep.map(list(range(100)))

    return flow


def writes(world: World) -> Flow:
    sleep = tool(writes="shelf")(world.sleep)

    @workflow
    async def flow() -> None:
        await sleep()

    return flow


def is_deaf(world: World) -> Flow:
    ignore = tool(world.ignore)

    @workflow
    async def flow() -> None:
        await ignore()

    return flow


def hangs_in_a_thread(world: World) -> Flow:
    hang = tool(world.hang)

    @workflow
    async def flow() -> None:
        await hang()

    return flow


def runs_a_program(world: World) -> Flow:
    python = python_tool(timeout=PATIENT)

    @workflow
    async def flow() -> None:
        await python(PROGRAM.replace("{port}", str(world.process)))

    return flow


def fetches_a_page(world: World) -> Flow:
    [http_get] = http_tools(allow_private=True)

    @workflow
    async def flow() -> None:
        await http_get(f"http://127.0.0.1:{world.page}/")

    return flow


@llm
async def say(text: str) -> str:
    """Say something about {text}."""
    raise NotImplementedError


def asks_a_model(world: World) -> Flow:
    @workflow
    async def flow() -> None:
        await say("it")

    return flow


def does_it_itself(world: World) -> Flow:
    @workflow
    async def flow() -> None:
        await world.sleep()

    return flow


KINDS = (
    *(sleeps, is_nested, is_a_map, writes, is_deaf, hangs_in_a_thread),
    *(runs_a_program, fetches_a_page, asks_a_model, does_it_itself),
)

STUBBORN: dict[Any, list[str]] = {is_deaf: ["ignore"], hangs_in_a_thread: ["agentflow-1"]}
"""What cannot be ended, and under which name it is given up on."""


# The ways to stop a run that is going


async def cancelled(engine: Engine, flow: Flow, world: World) -> None:
    run = engine.start(flow)
    await world.going.wait()
    run.cancel()
    with pytest.raises(RunCancelled):
        await run
    await run.ended()


async def awaited_by_a_task_that_is_cancelled(engine: Engine, flow: Flow, world: World) -> None:
    task = asyncio.ensure_future(engine.run(flow))
    await world.going.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def in_a_scope_that_is_cancelled(engine: Engine, flow: Flow, world: World) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(engine.run, flow)
        await world.going.wait()
        group.cancel_scope.cancel()


async def past_its_deadline(engine: Engine, flow: Flow, world: World) -> None:
    flow.budget = Budget(deadline=DEADLINE)
    run = engine.start(flow)
    with pytest.raises(DeadlineExceeded):
        await run
    assert world.going.is_set()
    await run.ended()


async def streamed_to_a_reader_that_leaves(engine: Engine, flow: Flow, world: World) -> None:
    stream = engine.stream(flow)
    await anext(stream)
    await world.going.wait()
    await stream.aclose()


async def of_an_engine_that_is_closed(engine: Engine, flow: Flow, world: World) -> None:
    run = engine.start(flow)
    await world.going.wait()
    await engine.aclose()
    assert run.done


async def told_to_by_two_at_once(engine: Engine, flow: Flow, world: World) -> None:
    run = engine.start(flow)
    first, second = (asyncio.ensure_future(run.result()) for _ in range(2))
    await world.going.wait()
    first.cancel()
    second.cancel()
    run.cancel()
    await asyncio.wait([first, second])
    await run.ended()


Way: TypeAlias = Callable[[Engine, Flow, World], Awaitable[None]]

WAYS: tuple[Way, ...] = (
    *(cancelled, awaited_by_a_task_that_is_cancelled, in_a_scope_that_is_cancelled),
    *(past_its_deadline, streamed_to_a_reader_that_leaves),
    *(of_an_engine_that_is_closed, told_to_by_two_at_once),
)


def tasks() -> set[asyncio.Task[Any]]:
    """Tasks but those of the servers, which end when they notice that their clients are gone."""
    return {
        task
        for task in asyncio.all_tasks()
        if not getattr(task.get_coro(), "__qualname__", "").startswith(
            ("World.", "LocalServer.", "HttpConnection.")
        )
    }


def children() -> set[str]:
    """Processes that we are the parent of."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if stat.read_text("utf-8", "replace").rpartition(")")[2].split()[1] == str(os.getpid()):
                found.add(stat.parent.name)
    return found


def descriptors() -> set[str]:
    return {
        f"{each.name} {os.readlink(each)}"
        for each in Path("/proc/self/fd").iterdir()
        if each.is_symlink()
    }


def ours() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("agentflow-")}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("stop", WAYS, ids=lambda way: way.__name__)
async def test_nothing_is_left_of_a_run(
    stop: Way, kind: Callable[[World], Flow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    world = World()
    told: list[Event] = []

    def model(_call: Any) -> Fault:
        world.going.set()
        return Fault.stall("Half of ", "it", after=1)

    async with asyncio.timeout(PATIENT), world.served(), ScriptedServer(model) as server:
        before, there = (tasks(), children(), descriptors()), ours()
        engine = Engine(
            model="m",
            base_url=server.base_url,
            subscribers=[told.append],
            limits=Limits(grace=GRACE),
        )
        await stop(engine, kind(world), world)
        left = await engine.aclose()
        await _gone(server)

        assert [each.partition(" ")[0] for each in left] == STUBBORN.get(kind, [])
        assert len(tasks() - before[0]) == (kind is is_deaf)
        world.release.set()
        for thread in ours() - there:
            await asyncio.to_thread(thread.join, PATIENT)
        assert not ours() - there
        if rest := tasks() - before[0]:
            await asyncio.wait(rest)
        assert children() == before[1]
        while descriptors() != before[2]:  # the server's end of a connection goes a little later
            await asyncio.sleep(0)
    assert list(tmp_path.iterdir()) == []
    assert len([e for e in told if isinstance(e, TERMINAL)]) == len({e.run for e in told})


async def _gone(server: ScriptedServer) -> None:
    """Wait until the server has noticed that its client is gone."""
    while server.active:
        await asyncio.sleep(0)
