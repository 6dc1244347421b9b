"""A model that writes at the pace of a script, on virtual time, and a laboratory around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from agentflow import Engine, Task, Tool, events
from agentflow.budgets.prices import FREE, Prices
from agentflow.executor.models.base import ChatRequest, Delta, Message, Reply, Usage
from agentflow.executor.models.collect import Collected
from agentflow.tools.toolbox import Toolbox

AT_ONCE = -1.0
"""The wait for a stroke that comes in one packet with the one before."""


@dataclass(frozen=True)
class Stroke:
    """One chunk of a reply, as the API sends it, and how long it lets itself be waited for."""

    delta: dict[str, Any]
    wait: float = 0.0
    finish: str | None = None
    error: Exception | None = None


def text(piece: str, wait: float = 0.0) -> Stroke:
    """More text."""
    return Stroke({"content": piece}, wait)


def call(index: int, arguments: str, name: str = "", wait: float = 0.0) -> Stroke:
    """More of a call; with its name where it begins."""
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    piece: dict[str, Any] = {"index": index, "function": function}
    if name:
        piece["id"] = f"id{index}"
    return Stroke({"tool_calls": [piece]}, wait)


def written(tool: str, *pieces: str, index: int = 0, wait: float = 1.0) -> list[Stroke]:
    """One call, whose arguments come in these pieces; its name comes first and at once."""
    return [call(index, "", tool), *(call(index, piece, wait=wait) for piece in pieces)]


Script = Callable[[ChatRequest], Iterable[Stroke]]


class Author:
    """A model that writes what a script says.

    Attributes:
        requests: The messages of every request.
        strokes: How many chunks of each reply were read.
        closed: When each reply was over, on the loop's clock, however it ended.
    """

    name = "author"
    prices = Prices({"author": FREE})

    def __init__(self, script: Script) -> None:
        self._script = script
        self.requests: list[list[Message]] = []
        self.strokes: list[int] = []
        self.closed: list[float] = []

    @classmethod
    def of(cls, *replies: Sequence[Stroke] | str) -> Author:
        """An author of these replies, in order."""
        rest: Iterator[Sequence[Stroke] | str] = iter(replies)

        def script(request: ChatRequest) -> Iterable[Stroke]:
            reply = next(rest)
            return [text(reply)] if isinstance(reply, str) else reply

        return cls(script)

    @asynccontextmanager
    async def stream(self, request: ChatRequest) -> AsyncIterator[Writing]:
        self.requests.append([dict(message) for message in request.messages])
        number = len(self.requests) - 1
        self.strokes.append(0)
        try:
            yield Writing(self, number, request, self._script(request))
        finally:
            self.closed.append(asyncio.get_running_loop().time())
            for _ in range(3):  # closing a connection takes a moment
                await asyncio.sleep(0)

    async def complete(
        self, request: ChatRequest, on_delta: Callable[[Delta], object] | None = None
    ) -> Reply:
        async with self.stream(request) as writing:
            async for delta in writing:
                if on_delta is not None:
                    on_delta(delta)
            return writing.reply


class Writing:
    """A reply while it is written."""

    def __init__(
        self, author: Author, number: int, request: ChatRequest, strokes: Iterable[Stroke]
    ) -> None:
        self._author = author
        self._number = number
        self._strokes = strokes
        self._collected = Collected(request)
        self._whole = False

    async def __aiter__(self) -> AsyncIterator[Delta]:
        for stroke in self._strokes:
            if stroke.wait != AT_ONCE:
                await asyncio.sleep(stroke.wait)
            if stroke.error is not None:
                raise stroke.error
            self._author.strokes[self._number] += 1
            choice = {"index": 0, "delta": stroke.delta, "finish_reason": stroke.finish}
            for delta in self._collected.add({"choices": [choice]}):
                yield delta
        self._whole = True

    @property
    def usage(self) -> Usage:
        return self._collected.usage()

    @property
    def reply(self) -> Reply:
        if not self._whole:
            raise RuntimeError("the reply has not been read to its end")
        self._collected.finish_reason = self._collected.finish_reason or "stop"
        return self._collected.reply(self.usage, None, 1)


class Lab:
    """An engine with an author, and what happened in it.

    At the end nothing may be left: no task, no place at a gate, no reservation, no warm-up.

    Attributes:
        events: What subscribers were told.
        log: What tools noted, and when.
        author: The model.
    """

    def __init__(self) -> None:
        self.events: list[events.Event] = []
        self.log: list[tuple[str, float]] = []
        self.author: Author
        self.engine: Engine
        self._tools: list[Tool[..., Any]] = []

    def start(
        self, *replies: Sequence[Stroke] | str, tools: Iterable[Tool[..., Any]], **options: Any
    ) -> Engine:
        """An engine whose model writes these replies."""
        self.author = Author.of(*replies)
        self._tools = list(tools)
        self.engine = Engine(
            model=self.author, tools=self._tools, subscribers=[self.events.append], **options
        )
        return self.engine

    async def react(
        self, *replies: Sequence[Stroke] | str, tools: Iterable[Tool[..., Any]], **options: Any
    ) -> Any:
        """The answer of a model that writes these turns, and then ``Done.``"""
        engine = self.start(*replies, "Done.", tools=tools, **options)
        return await engine.run(Task("Which?", strategy="react"))

    def note(self, what: str) -> None:
        """Note what happens, and when."""
        self.log.append((what, asyncio.get_running_loop().time()))

    def at(self, what: str) -> float:
        """When something was noted, for the first time."""
        return next(at for noted, at in self.log if noted == what)

    @property
    def notes(self) -> list[str]:
        """What was noted, in order."""
        return [what for what, _ in self.log]

    def told(self, kind: type[events.Event]) -> list[Any]:
        """The events of a kind."""
        return [event for event in self.events if type(event) is kind]

    def results(self, number: int = 1) -> list[str]:
        """What a request told of the calls of the turn before."""
        messages = self.author.requests[number]
        latest = max(n for n, message in enumerate(messages) if message["role"] == "assistant")
        return [message["content"] for message in messages[latest + 1 :]]

    async def aclose(self) -> None:
        """Close the engine, and check that nothing is left."""
        assert not await self.engine.aclose()
        audit(self.engine)


def audit(engine: Engine) -> None:
    """Nothing of any call is left: no task, no place at a gate, no money set aside."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not [task for task in others if "part of run" in task.get_name()], others
    assert engine.ledger.reserved.usd == 0
    tools: Toolbox = engine.tools
    for made in tools.values():
        gate = engine.services.call(made, None).gate
        assert (gate.free, gate.guests, gate.leaving) == (gate.limit, [], []), made.name


class Pen:
    """What tests write replies with."""

    Author = Author
    Stroke = Stroke
    text = staticmethod(text)
    call = staticmethod(call)
    written = staticmethod(written)
    audit = staticmethod(audit)


@pytest.fixture(scope="session")
def pen() -> type[Pen]:
    """See `Pen`."""
    return Pen


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    made = Lab()
    yield made
    await made.aclose()
