"""An engine with partial execution and one without, at the same endpoint and listened in on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import dropwhile
from typing import Any

from partial_wire import Listener, Written

from agentflow import Engine, Task, Tool
from agentflow.clock import now
from agentflow.errors import AnswerInvalid, RunFailed
from agentflow.executor.models.client import OpenAIBackend


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
        base_url: Of their model.
        tools: Of both.
        backend: Asks the model.
        name: Of the model.
        **http: Anything that an HTTP client takes.

    Attributes:
        model: What both ask.
    """

    def __init__(
        self,
        base_url: str,
        tools: Iterable[Tool[..., Any]],
        *,
        backend: Callable[..., OpenAIBackend] = OpenAIBackend,
        name: str = "scripted",
        **http: Any,
    ) -> None:
        self._listener = Listener(**http)
        self.model = backend(base_url, name, http=self._listener.client)
        tools = list(tools)
        self._engines = {
            partial: Engine(model=self.model, tools=tools, partial=partial)
            for partial in (True, False)
        }

    async def turn(self, *, partial: bool, question: str = "Go on.", **task: Any) -> Turn:
        """Have the model say something, and do what it says; `task` are fields of `Task`."""
        self._listener.heard.clear()
        try:
            await self._engines[partial].run(Task(question, **task))
        except RunFailed as error:  # what the model says in the end is not looked at
            if not isinstance(error.__cause__, AnswerInvalid):
                raise
        over = now()
        first, *further = dropwhile(lambda one: not one.chunks, self._listener.heard)
        written = first.written
        return Turn(written, (further[0].asked if further else over) - written.began)

    async def aclose(self) -> None:
        """Close everything."""
        for engine in self._engines.values():
            await engine.aclose()
        await self.model.aclose()
        await self._listener.client.aclose()
