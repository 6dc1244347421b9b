"""The events of a run as server-sent events, for as long as the client is there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing, suppress
from dataclasses import asdict
from typing import Any, TypeVar

from fastapi import Response
from fastapi.encoders import jsonable_encoder
from problems import CLOSING, problem_of
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from agentflow import events

T = TypeVar("T")

HEARTBEAT = 15.0  # seconds between comments that keep proxies from closing a quiet stream
STALLED = 30.0  # seconds in which a client has to take what it is sent

CALL = ("run", "node", "tool", "element")
TOLD: Mapping[type[events.Event], tuple[str, ...]] = {
    events.RunStarted: ("run", "name", "parent"),
    events.NodeStarted: (*CALL, "attempt"),
    events.NodeRetrying: (*CALL, "attempt", "delay"),
    events.NodeReused: (*CALL, "source"),
    events.NodeFinished: CALL,
    events.NodeFailed: CALL,
    events.NodeSkipped: CALL,
    events.NodeCancelled: CALL,
    events.TextDelta: ("run", "node", "role", "text"),
    events.TextRetracted: ("run", "node"),
    events.ModelReplied: ("run", "node", "model", "prompt_tokens", "completion_tokens", "usd"),
    events.EventsDropped: ("run", "count"),
    events.RunFinished: ("run", "value"),
    events.RunPaused: ("run", "asks"),
    events.RunFailed: (),
    events.RunCancelled: (),
}
"""Events and their fields; what tools gave, and why they failed, is nobody's business.

A run that failed or was cancelled is an ``error`` with a `Problem`.
"""


def told(event: events.Event, run: str) -> tuple[str, dict[str, Any]] | None:
    """The name and the data of an event of `run`, or of one within it; None if it is not told."""
    if type(event) not in TOLD or (isinstance(event, events.TERMINAL) and event.run != run):
        return None
    if isinstance(event, events.RunFailed):
        return "error", asdict(problem_of(event.error))
    if isinstance(event, events.RunCancelled):
        return "error", asdict(CLOSING)  # who else would cancel a run that is read
    data = event.as_dict()  # without known secrets
    return data["event"], {name: data[name] for name in TOLD[type(event)]}


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives; when the client leaves first, it is cancelled and waited for.

    Raises:
        ClientDisconnect: The client has left.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_left(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events of a run, until it ends or the client leaves.

    Args:
        stream: Its events; closing it cancels the run.
        first: The first of them.
    """

    media_type = "text/event-stream"

    def __init__(self, first: events.Event, stream: AsyncGenerator[events.Event]) -> None:
        super().__init__(
            headers={"cache-control": "no-store, no-transform", "x-accel-buffering": "no"}
        )
        del self.headers["content-length"]
        self._run = first.run
        self._first = first
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        async with aclosing(self._stream):
            with suppress(ClientDisconnect, OSError):  # a TimeoutError is one
                await while_connected(receive, self._answer(send))

    async def _answer(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        beating = asyncio.create_task(self._beat(send))
        try:
            number = 0
            await self._tell(send, number, self._first)
            async for event in self._stream:
                number += 1
                await self._tell(send, number, event)
        finally:
            beating.cancel()
        await send(_body("", more=False))

    async def _tell(self, send: Send, number: int, event: events.Event) -> None:
        """Send an event, which JSON keeps on one line."""
        if (message := told(event, self._run)) is not None:
            name, fields = message
            data = json.dumps(fields, default=jsonable_encoder)
            async with asyncio.timeout(STALLED):
                await send(_body(f"id: {self._run}.{number}\nevent: {name}\ndata: {data}\n\n"))

    async def _beat(self, send: Send) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            await send(_body(": still here\n\n"))


def _body(text: str, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": text.encode(), "more_body": more}
