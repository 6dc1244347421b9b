"""A laboratory on virtual time: a scripted model, tools that note what they do, one engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from agentflow import _http, events
from agentflow.budgets.prices import Prices
from agentflow.engine import Engine
from agentflow.errors import RunFailed
from agentflow.executor.models.client import OpenAIBackend
from agentflow.executor.services import Limits
from agentflow.executor.strategies.task import Task
from agentflow.testing import ScriptedServer, Timeline
from agentflow.testing.chat import Exchange
from agentflow.testing.replies import Pace
from agentflow.tools.tool import Tool, tool

URL = "http://scripted/v1"


class Lab:
    """Runs tasks against a script.

    Attributes:
        timeline: When tools started and ended.
        made: Every call that was made, as text, in the order they started.
        events: What subscribers were told.
        stock: What the tools read and write.
    """

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.made: list[str] = []
        self.events: list[events.Event] = []
        self.stock: dict[str, str] = {"a": "apple", "b": "banana"}
        self.takes: dict[str, float] = {}
        self.tools: list[Tool[..., Any]] = self._tools()
        self.server = ScriptedServer([])
        self.engine: Engine
        self._open: list[Any] = []

    def _tools(self) -> list[Tool[..., Any]]:
        @tool(reads="web")
        async def search(query: str, k: int = 3) -> list[str]:
            """Search the web."""
            await self.work(f"search {query}")
            return [f"{query} {n}" for n in range(k)]

        @tool(pure=True)
        async def upper(text: str) -> str:
            """Write in capitals."""
            await self.work(f"upper {text}")
            return text.upper()

        @tool(reads="stock")
        async def look(key: str) -> str:
            """What is in stock under a key."""
            await self.work(f"look {key}")
            return self.stock[key]

        @tool(writes="stock")
        async def put(key: str, value: str) -> str:
            """Change what is in stock."""
            await self.work(f"put {key} {value}")
            self.stock[key] = value
            return "done"

        @tool
        async def shout(text: str) -> str:
            """Nobody knows what this does."""
            await self.work(f"shout {text}")
            return f"{text}!"

        return [search, upper, look, put, shout]

    async def work(self, what: str) -> None:
        """Note a call; it takes as long as `takes` says for its tool or for itself."""
        self.made.append(what)
        with self.timeline.span(what):
            await asyncio.sleep(self.takes.get(what, self.takes.get(what.split()[0], 0.0)))

    async def prepare(
        self,
        script: Any,
        *,
        pace: Pace = Pace(),
        limits: Limits | None = None,
        prices: dict[str, Any] | None = None,
        tools: Sequence[Tool[..., Any]] | None = None,
        **backend: Any,
    ) -> Engine:
        """Write the model's script."""
        self.server = ScriptedServer(script, pace=pace)
        http = _http.client(transport=self.server.transport())
        model = OpenAIBackend(URL, "tiny", http=http, prices=Prices(prices), **backend)
        await model.connect()  # in a thread, which would take time from the test's
        self.engine = Engine(
            model=model,
            tools=self.tools if tools is None else tools,
            limits=limits,
            subscribers=[self.events.append],
        )
        self._open += [self.engine, http]
        return self.engine

    async def run(self, *script: Any, **options: Any) -> Any:
        """The answer to a question, by a model with this script."""
        named = ("pace", "limits", "prices", "tools", "retry", "timeouts", "limiter")
        engine = await self.prepare(
            list(script), **{name: options.pop(name) for name in named if name in options}
        )
        return await engine.run(Task(options.pop("question", "Which?"), **options))

    async def fails(self, *script: Any, **options: Any) -> RunFailed:
        """The failure that ends a task."""
        with pytest.raises(RunFailed) as caught:
            await self.run(*script, **options)
        return caught.value

    async def aclose(self) -> None:
        """Close, and check that nothing is left."""
        for owner in self._open:
            left = await owner.aclose()
            assert not left, left
        assert self.server.active == 0
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not [task for task in others if "run " in task.get_name()]

    # What became of it

    def asked(self, number: int) -> str:
        """What the last message of a request said."""
        content: str = self.server.requests[number].body["messages"][-1]["content"]
        return content

    def told(self, kind: type[events.Event]) -> list[Any]:
        """The events of a kind."""
        return [event for event in self.events if type(event) is kind]

    def said(self, role: str) -> list[str]:
        """The pieces of text that were told in a role."""
        return [event.text for event in self.told(events.TextDelta) if event.role == role]

    def started(self, what: str) -> float:
        """When a call started."""
        return self.timeline.at(f"{what} started")

    def ended(self, what: str) -> float:
        """When a call ended."""
        return self.timeline.at(f"{what} ended")


def sent_at(exchange: Exchange, text: str) -> float:
    """When the server had sent `text`, to its last character, as part of its answer."""
    so_far = ""
    for at, data in exchange.sent:
        if data.startswith(b"data: {"):
            choices = json.loads(data[6:])["choices"]
            so_far += (choices[0]["delta"].get("content") or "") if choices else ""
        if text in so_far:
            return at
    raise AssertionError(f"{text!r} was never sent: {so_far!r}")


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    made = Lab()
    yield made
    await made.aclose()


@pytest.fixture
def when() -> Any:
    """See `sent_at`."""
    return sent_at
