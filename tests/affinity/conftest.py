"""Pools over modelled replicas in the same process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Self

import pytest

from agentflow import _http
from agentflow.executor.affinity.pool import Pool
from agentflow.testing import ModelledReplica, Serving

SERVING = Serving(prefill=10_000.0, step=0.01, capacity=100_000)


class Hosts:
    """An HTTP client's transport that reaches replicas by the host in the URL."""

    def __init__(self) -> None:
        self.replicas: dict[str, ModelledReplica] = {}

    async def handle_async_request(self, request: Any) -> Any:
        transport = self.replicas[request.url.host].transport()
        return await transport.handle_async_request(request)

    async def aclose(self) -> None:
        """Nothing to close."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        return None


class World:
    """Replicas ``a``, ``b``, ... and pools over them."""

    def __init__(self) -> None:
        self.hosts = Hosts()
        self.http = _http.client(transport=self.hosts)
        self.pools: list[Pool] = []

    def __getitem__(self, name: str) -> ModelledReplica:
        return self.hosts.replicas[name]

    def replica(self, name: str, serving: Serving = SERVING, *args: Any, **options: Any) -> str:
        """One more replica; its base URL."""
        self.hosts.replicas[name] = ModelledReplica(serving, *args, **options)
        return f"http://{name}/v1"

    def pool(self, names: str = "ab", **options: Any) -> Pool:
        """A pool over replicas with these names, made if they are new."""
        urls = [
            f"http://{name}/v1" if name in self.hosts.replicas else self.replica(name)
            for name in names
        ]
        self.pools.append(Pool(urls, "modelled", http=self.http, **options))
        return self.pools[-1]

    def served(self) -> dict[str, int]:
        """How many chat requests each replica was sent."""
        return {name: len(replica.requests) for name, replica in self.hosts.replicas.items()}

    async def aclose(self) -> None:
        for pool in self.pools:
            await pool.aclose()
        for replica in self.hosts.replicas.values():
            await replica.aclose()
        await self.http.aclose()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.aclose()


@pytest.fixture(scope="session")
def make_world() -> type[World]:
    """Makes a world inside a loop of the test's own."""
    return World
