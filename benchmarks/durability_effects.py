"""The world in which `durability.py` counts: a server in a process of its own.

It does what it is asked to, and counts how often: executions, not keys. A process that says so when
it connects is killed: just before some piece of work is done, or when it is done and nobody has
been told.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

Message: TypeAlias = dict[str, Any]

DELAY = 0.004
"""Seconds that a piece of work takes at most."""


@dataclass
class Work:
    """What is known of a step of a run.

    Attributes:
        kind: ``read``, ``idempotent``, ``write`` or ``undeclared``.
        executions: How often it was done.
        keys: The idempotency keys that it was done with.
        repeated: How often it was asked for with a key that had been seen, and not done.
        seen: The session in which its result was known to be kept, or None.
        lost: How often it was done in a later session than that.
    """

    kind: str
    executions: int = 0
    keys: set[str] = field(default_factory=set)
    repeated: int = 0
    seen: int | None = None
    lost: int = 0


@dataclass
class Fuse:
    """When a process is killed.

    Attributes:
        works: At which piece of its work; 0 for never.
        done: Whether that piece is done.
    """

    works: int = 0
    done: bool = False


class World:
    """What was done, and by whom it is asked for."""

    def __init__(self) -> None:
        self._works: dict[tuple[str, int], Work] = {}
        self._processes = 0
        self._chance = random.Random(0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection until it ends, and finish what it has asked for."""
        client = Client(self, writer)
        with suppress(ConnectionError):
            async for line in reader:
                client.take(json.loads(line))
        await asyncio.gather(*client.tasks)
        client.leave()
        writer.close()

    def entered(self, processes: int) -> None:
        """Processes came, or left (if negative)."""
        self._processes += processes

    async def delay(self) -> None:
        """A piece of work takes its time."""
        await asyncio.sleep(self._chance.uniform(0.0, DELAY))

    def do(self, session: int, asked: Message) -> None:
        """Do a piece of work."""
        work = self._works.setdefault((asked["run"], asked["step"]), Work(asked["kind"]))
        if asked["kind"] == "idempotent" and asked["key"] in work.keys:
            work.repeated += 1
            return
        work.executions += 1
        work.keys.add(asked["key"])
        if work.seen is not None and work.seen < session:
            work.lost += 1

    def seen(self, session: int, asked: Message) -> None:
        """Somebody saw a result, so it is kept."""
        work = self._works.get((asked["run"], asked["step"]))
        if work is not None and work.seen is None:
            work.seen = session

    def done(self, asked: Message) -> bool:
        """Whether a step has been done."""
        return (asked["run"], asked["step"]) in self._works

    def report(self, run: str) -> list[Message] | None:
        """What was done for a run, which is then forgotten; None while a process is connected."""
        if self._processes:
            return None
        mine = [place for place in self._works if place[0] == run]
        works = [(step, self._works.pop((run, step))) for run, step in sorted(mine)]
        return [{**vars(work), "step": step, "keys": len(work.keys)} for step, work in works]


class Client:
    """A connection to the world: of a process that runs something, or of whoever counts."""

    def __init__(self, world: World, writer: asyncio.StreamWriter) -> None:
        self._world = world
        self._writer = writer
        self._session = 0
        self._pid = 0
        self._fuse = Fuse()
        self.tasks: set[asyncio.Task[None]] = set()

    def take(self, asked: Message) -> None:
        """Do what a message asks for."""
        match asked["do"]:
            case "hello":
                self._session, self._pid = asked["session"], asked["pid"]
                self._fuse = Fuse(**asked["fuse"])
                self._world.entered(1)
            case "work":
                task = asyncio.get_running_loop().create_task(self._work(asked))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            case "seen":
                self._world.seen(self._session, asked)
            case "done":
                self._answer(asked, self._world.done(asked))
            case "report":
                self._answer(asked, self._world.report(asked["run"]))

    def leave(self) -> None:
        """The connection has ended."""
        if self._pid:
            self._world.entered(-1)

    async def _work(self, asked: Message) -> None:
        await self._world.delay()
        self._fuse.works -= 1
        fatal = self._fuse.works == 0
        if not fatal or self._fuse.done:
            self._world.do(self._session, asked)
        if fatal:
            os.kill(self._pid, signal.SIGKILL)
        else:
            self._answer(asked, True)

    def _answer(self, asked: Message, answer: Any) -> None:
        if not self._writer.is_closing():
            line = json.dumps({"id": asked["id"], "answer": answer})
            self._writer.write(line.encode() + b"\n")


class Counting:
    """The world, as whoever counts sees it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._lines = self._socket.makefile("rb")

    def settle(self) -> None:
        """Wait until every process has gone and what it asked for is done."""
        while self.ask(do="report", run="") is None:
            time.sleep(0.002)

    def report(self, run: str) -> list[Message]:
        """What was done for a run, which the world then forgets."""
        self.settle()
        works: list[Message] = self.ask(do="report", run=run)
        return works

    def ask(self, **message: Any) -> Any:
        """Ask something, and wait for the answer."""
        self._socket.sendall(json.dumps({"id": 0, **message}).encode() + b"\n")
        return json.loads(self._lines.readline())["answer"]

    def close(self) -> None:
        """Leave."""
        self._lines.close()
        self._socket.close()


@contextmanager
def world() -> Iterator[Counting]:
    """A server in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        with closing(Counting(ours.recv())) as counting:
            yield counting
    finally:
        ours.close()
        process.join(5)


def _main(connection: Connection) -> None:
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(connection))


async def _serve(connection: Connection) -> None:
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(connection.fileno(), gone.set)
    server = await asyncio.start_server(World().serve, "127.0.0.1", 0)
    connection.send(server.sockets[0].getsockname()[1])
    await gone.wait()
    server.close()
