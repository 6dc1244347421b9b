"""What a user gives an engine, and what breaks: a store, a source of guesses, a subscriber."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

from agentflow import events
from agentflow.caches.memory import MemoryStore
from agentflow.caches.speculation.candidates import Candidate
from agentflow.caches.speculation.trail import Trail
from agentflow.caches.store import Entry
from tests.chaos.faults import Fate
from tests.chaos.programs import Maker, placed


class BrokenReader(Exception):
    """Raised by a subscriber."""


class FailingStore(MemoryStore):
    """A second tier of the cache that dies."""

    fate: Fate

    async def get(self, keys: Sequence[str]) -> list[Entry | None]:
        match self.fate.of_store():
            case "raises":
                raise OSError("the disk is gone")
            case "hangs":
                await asyncio.sleep(5.0)
            case "forgets":
                return [None] * len(keys)
        return await super().get(keys)

    def put(self, key: str, entry: Entry) -> None:
        match self.fate.of_store():
            case "raises":
                raise OSError("the disk is gone")
            case "is full":
                return
        super().put(key, entry)


class Whims:
    """Guesses at calls such as programs make, writes too, and at nonsense.

    Args:
        seed: Of its chance.
        calls: What it guesses at; by default such calls as the first pass may make.
    """

    def __init__(self, seed: int, calls: Sequence[tuple[str, Mapping[str, Any]]] = ()) -> None:
        self._chance = random.Random(~seed)
        self._calls = list(calls) or self._likely()
        self._calls += [("nothing", {}), ("get", {"area": 1}), ("double", {"n": "z" * 1000})]

    def _likely(self) -> list[tuple[str, Mapping[str, Any]]]:
        maker = Maker(self._chance, limits=False)
        calls = [maker.call("ab") for _ in range(10)]
        return [(call.tool, placed(call, "p0")) for call in calls]

    def candidates(self, trail: Trail, limit: int) -> Sequence[Candidate]:
        chance = self._chance
        return [
            Candidate(name, dict(arguments), chance.random(), chance.random(), "a whim")
            for name, arguments in chance.choices(self._calls, k=chance.randrange(limit + 1))
        ]

    def learn(self, trail: Trail) -> None: ...

    def close(self, trail: Trail) -> None: ...


def shocked(event: events.Event) -> None:
    """A subscriber that breaks."""
    raise BrokenReader
