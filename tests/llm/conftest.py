"""An engine whose models are scripts, without sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from agentflow import _http, events
from agentflow.budgets.prices import Prices
from agentflow.engine import Engine
from agentflow.executor.models.client import OpenAIBackend
from agentflow.executor.models.retry import RetryPolicy
from agentflow.testing import ScriptedServer


class Scripted:
    """An engine, and the servers behind its models by name; ``tiny`` is the default."""

    def __init__(self, servers: dict[str, ScriptedServer], prices: dict[str, Any] | None) -> None:
        self.servers = servers
        self.events: list[events.Event] = []
        self._https = {name: _http.client(transport=s.transport()) for name, s in servers.items()}
        models = {
            name: OpenAIBackend(
                f"http://{name}/v1",
                name,
                http=http,
                prices=Prices(prices),
                retry=RetryPolicy(max_retries=0),
            )
            for name, http in self._https.items()
        }
        self.engine = Engine(model=models["tiny"], models=models, subscribers=[self.events.append])

    def bodies(self, name: str = "tiny") -> list[Any]:
        """The bodies of the requests that a model got."""
        return [request.body for request in self.servers[name].requests]

    def messages(self, number: int, name: str = "tiny") -> list[tuple[str, str]]:
        """The messages of a request: role and content."""
        return [(m["role"], m["content"]) for m in self.bodies(name)[number]["messages"]]

    async def aclose(self) -> None:
        await self.engine.aclose()
        for name, http in self._https.items():
            assert self.servers[name].active == 0
            await http.aclose()


Make = Callable[..., Scripted]


@pytest.fixture
async def scripted() -> AsyncIterator[Make]:
    """Makes a `Scripted` from a script for ``tiny``, and for other models by name."""
    made: list[Scripted] = []

    def make(*script: Any, prices: Any = None, pace: Any = None, **others: Any) -> Scripted:
        options = {} if pace is None else {"pace": pace}
        scripts = {"tiny": script, **others}
        servers = {name: ScriptedServer(list(s), **options) for name, s in scripts.items()}
        made.append(Scripted(servers, prices))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()
