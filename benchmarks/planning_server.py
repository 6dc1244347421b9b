"""A scripted model in a process of its own, which says afterwards what it sent when."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from planning_cases import ANSWER, CASES, END, Served

from agentflow.testing import ChatCall, ScriptedServer
from agentflow.testing.chat import Exchange
from agentflow.testing.replies import Pace, Reply

FIRST_TOKEN, PER_TOKEN = 0.3, 0.02
"""Seconds; the pace of the planner."""

JOINER_FIRST_TOKEN = 0.1
"""Seconds; the rest of its short answer comes at once."""

WHOLE = 1_000_000
"""Tokens in a chunk when the plan comes in one, at its end: not streaming."""

_ASKED = re.compile(r"case (\d+) in chunks of (\d+)")
_STREAM = re.compile(r"stream (\d+) tokens")


def question(case: int, chunk: int) -> str:
    """Asks for a plan, by its position in `CASES`, in chunks of so many tokens."""
    return f"case {case} in chunks of {chunk}"


def words(count: int) -> str:
    """Asks for so many tokens, one in a millisecond."""
    return f"stream {count} tokens"


def answer(call: ChatCall) -> Reply:
    """What the scripted model says."""
    asked, told = call.said_by("user"), call.said_by("system")
    plans = "the notation" in told
    if (match := _STREAM.search(asked)) and "from the observations" not in told:
        text = " word" * int(match[1])
        return Reply(f"Thought:{text}\n{END}" if plans else text, pace=Pace(per_token=0.001))
    if (match := _ASKED.search(asked)) and plans:
        case, chunk = CASES[int(match[1])], int(match[2])
        return Reply(case.plan, pace=Pace(FIRST_TOKEN, PER_TOKEN, chunk))
    return Reply(f"Answer: {ANSWER}", pace=Pace(JOINER_FIRST_TOKEN))


class Endpoint:
    """The server, as the measuring process sees it.

    Attributes:
        base_url: What clients are given.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.base_url: str = connection.recv()

    def served(self) -> list[Served]:
        """The requests since this was last asked, in the order they came."""
        self._connection.send("report")
        return [Served(**one) for one in self._connection.recv()]


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """A server in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(theirs,), daemon=True)
    process.start()
    try:
        yield Endpoint(ours)
    finally:
        ours.send("stop")
        process.join(5)


def _main(connection: Connection) -> None:
    with suppress(AttributeError, OSError):  # not everywhere, and not for everyone
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    asyncio.run(_serve(connection))


async def _serve(connection: Connection) -> None:
    stopped = asyncio.Event()
    async with ScriptedServer(answer) as server:
        connection.send(server.base_url)

        def order() -> None:
            if connection.recv() == "stop":
                stopped.set()
            else:
                connection.send([_record(exchange) for exchange in server.requests])
                server.requests.clear()

        asyncio.get_running_loop().add_reader(connection.fileno(), order)
        await stopped.wait()


def _record(exchange: Exchange) -> dict[str, Any]:
    assert exchange.ended is not None, "it is asked between runs"
    chunks = [(at, _text(data)) for at, data in exchange.sent]
    return {"started": exchange.started, "chunks": chunks, "ended": exchange.ended}


def _text(event: bytes) -> str:
    """The content in one event of a stream."""
    payload = event.removeprefix(b"data: ").strip()
    if not payload.startswith(b"{"):
        return ""
    choices = json.loads(payload)["choices"]
    return (choices[0]["delta"].get("content") or "") if choices else ""
