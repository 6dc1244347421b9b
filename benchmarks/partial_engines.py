"""An engine with partial execution and one without, at the same endpoint and listened in on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from partial_server import Endpoint
from partial_wire import Listener, Written

from agentflow import Engine, Task, Tool
from agentflow.clock import now
from agentflow.executor.models.client import OpenAIBackend
from agentflow.testing.replies import Reply


@dataclass(frozen=True)
class Turn:
    """A reply of the model that called tools, and what followed.

    Attributes:
        written: The reply, as it reached the client.
        latency: Seconds from its first token until the results had been taken in: until the next
            request, or the answer where the reply says what that is.
    """

    written: Written
    latency: float


class Engines:
    """The two engines.

    Args:
        server: Says what it is told to.
        tools: Of both.
        **http: Anything that an HTTP client takes.
    """

    def __init__(self, server: Endpoint, tools: Iterable[Tool[..., Any]], **http: Any) -> None:
        self._server = server
        self._listener = Listener(**http)
        self.model = OpenAIBackend(server.base_url, "scripted", http=self._listener.client)
        tools = list(tools)
        self._engines = {
            partial: Engine(model=self.model, tools=tools, partial=partial)
            for partial in (True, False)
        }

    async def turn(self, reply: Reply, *, partial: bool, **task: Any) -> Turn:
        """Have the model say this, and do what it says; `task` are fields of `Task`."""
        self._server.say(reply)
        self._listener.heard.clear()
        await self._engines[partial].run(Task("Go on.", **task))
        over = now()
        first, *further = self._listener.heard
        written = first.written
        return Turn(written, (further[0].asked if further else over) - written.began)

    async def aclose(self) -> None:
        """Close everything."""
        for engine in self._engines.values():
            await engine.aclose()
        await self.model.aclose()
        await self._listener.client.aclose()
