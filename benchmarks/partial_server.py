"""A model in a process of its own that says what it is told to, and what it sent when."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Protocol

from agentflow.testing import ChatCall, ScriptedServer
from agentflow.testing.chat import Exchange
from agentflow.testing.replies import Reply

ANSWER = "Done."
"""What the model says to the results of a tool."""


class Endpoint(Protocol):
    """A server whose model says what it is told to.

    Attributes:
        base_url: What clients are given.
    """

    base_url: str

    def say(self, reply: Reply) -> None:
        """What the model says from now on to whoever has not called a tool yet."""
        ...

    def served(self) -> list[Exchange]:
        """The requests since this was last asked, all of them at their end."""
        ...


class Told:
    """A model that says what it was told to, and then `ANSWER`.

    Attributes:
        reply: What it was told.
    """

    def __init__(self) -> None:
        self.reply = Reply(ANSWER)

    def __call__(self, call: ChatCall) -> Reply:
        return Reply(ANSWER) if call.said_by("tool") else self.reply


class Remote:
    """The server in its process, as the measuring one sees it: an `Endpoint`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.base_url: str = connection.recv()

    def say(self, reply: Reply) -> None:
        """Tell the model."""
        self._connection.send(reply)
        self._connection.recv()

    def served(self) -> list[Exchange]:
        """Ask for the requests."""
        self._connection.send(None)
        served: list[Exchange] = self._connection.recv()
        return served


@contextmanager
def endpoint() -> Iterator[Remote]:
    """A server in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Remote(ours)
    finally:
        ours.close()
        process.join(5)


def _main(connection: Connection) -> None:
    with suppress(AttributeError, OSError):  # not everywhere, and not for everyone
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    asyncio.run(_serve(connection))


async def _serve(connection: Connection) -> None:
    told, ordered = Told(), asyncio.Event()
    async with ScriptedServer(told) as server:
        connection.send(server.base_url)
        asyncio.get_running_loop().add_reader(connection.fileno(), ordered.set)
        with suppress(EOFError):  # the measuring process has closed its end
            while await ordered.wait():
                ordered.clear()
                while connection.poll():
                    if (order := connection.recv()) is not None:
                        told.reply = order
                        connection.send(True)
                    else:
                        connection.send(await _at_their_end(server))


async def _at_their_end(server: ScriptedServer) -> list[Exchange]:
    """The requests so far, which are forgotten."""
    while server.active:
        await asyncio.sleep(0.001)
    served = server.requests[:]
    server.requests.clear()
    return served
