"""Whatever many runs do at once, a read that begins after a write has ended sees what it wrote."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from agentflow import Engine, tool, workflow
from agentflow.caches.caching import Caching
from agentflow.caches.epochs import Epochs
from agentflow.caches.flights import Spawn
from agentflow.caches.tool_cache import ToolCache
from agentflow.errors import RunError
from agentflow.testing import run_virtual

KEYS = ("x", "y")


class Storm:
    """Readers and writers of a few versions, in runs that overlap, fail and are cancelled."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.version = dict.fromkeys(KEYS, 0)
        self.settled = dict.fromkeys(KEYS, 0)  # versions of writes that have ended
        self.calls = self.asked = self.stale = 0

        @tool(reads="store/{key}", ttl=1000)
        async def look(key: str) -> int:
            self.calls += 1
            await self.pause()
            seen = self.version[key]
            await self.pause()
            return seen

        @tool(writes="store/{key}", idempotent=True, retries=1, backoff=1, timeout=15)
        async def put(key: str) -> None:
            await self.pause()
            self.version[key] += 1
            await self.pause()
            if self.chance.random() < 0.3:
                raise OSError("half done")

        @workflow
        async def read(key: str) -> int:
            return await look(key)

        @workflow
        async def write(key: str) -> None:
            await put(key)

        self.read, self.write = read, write

    async def pause(self) -> None:
        await asyncio.sleep(self.chance.choice((0, 0.5, 1, 2, 5, 10)))

    async def reader(self, engine: Engine, key: str) -> None:
        least = self.settled[key]
        value = await asyncio.wait_for(engine.run(self.read, key), self.chance.choice((3, 60)))
        self.asked += 1
        self.stale += not least <= value <= self.version[key]

    async def writer(self, engine: Engine, key: str) -> None:
        try:
            await asyncio.wait_for(engine.run(self.write, key), self.chance.choice((3, 60)))
        finally:
            self.settled[key] = self.version[key]

    async def actor(self, engine: Engine) -> None:
        act: Callable[..., Awaitable[Any]]
        for _ in range(25):
            act = self.reader if self.chance.random() < 0.8 else self.writer
            with suppress(RunError, TimeoutError):
                await act(engine, self.chance.choice(KEYS))
            await self.pause()

    async def blow(self, cache: Caching | bool) -> None:
        async with Engine(cache=cache) as engine:
            await asyncio.gather(*(self.actor(engine) for _ in range(4)))


@pytest.mark.parametrize("seed", range(12))
def test_no_read_is_older_than_the_last_write_before_it(seed: int) -> None:
    storm = Storm(seed)
    run_virtual(storm.blow(cache=True))
    assert storm.stale == 0
    assert storm.calls < storm.asked


class Deaf(Epochs):
    """Hears of no write."""

    def begin(self, resources: Any) -> None: ...

    def end(self, resources: Any) -> None: ...

    async def raised(self, resources: Any) -> None: ...


class WithoutEpochs(Caching):
    """A cache that takes what it has for what there is."""

    def build(self, spawn: Spawn, chance: random.Random) -> ToolCache:
        cache = super().build(spawn, chance)
        cache.epochs = Deaf()
        return cache


def test_without_epochs_many_are() -> None:
    storm = Storm(0)
    run_virtual(storm.blow(WithoutEpochs()))
    assert storm.stale > 10
