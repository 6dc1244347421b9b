"""The tool cache: what a tool gave before, and what another caller is asking it right now.

Only pure tools and tools that read. A result is good while nothing it read has been written:
every resource has an epoch, a write raises it when it starts and when it ends, and an entry
counts only if its epochs are still the current ones.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import structlog

from agentflow.caches.codec import Codec
from agentflow.caches.epochs import Epoch, Epochs
from agentflow.caches.failures import Failures
from agentflow.caches.flights import Bill, Flight, Flights, Left, Spawn
from agentflow.caches.keys import Keys
from agentflow.caches.memory import MemoryStore
from agentflow.caches.store import Entry, Store
from agentflow.clock import now, wall
from agentflow.errors import BudgetExceeded, RunError
from agentflow.tools.effects import Resource
from agentflow.tools.policy import Policy
from agentflow.tools.tool import Tool

JITTER = 0.1
"""The share of its lifetime by which an entry may end early."""

UNFAITHFUL = (
    "JSON does not give it back as it was, or it holds a secret; "
    "declare a return type that JSON gives back, and return no keys"
)

Make: TypeAlias = Callable[[], Awaitable[Any]]
Final: TypeAlias = Callable[[Exception], bool]


_log = structlog.get_logger("agentflow.caches")


class Reused:
    """How the results of one tool are kept, under one policy.

    Args:
        tool: A tool that is pure or reads.
        policy: Says for how long.
        keys: Names its calls.
    """

    __slots__ = ("codec", "effect", "keys", "name", "negative_ttl", "ttl", "within_run")

    def __init__(self, tool: Tool[..., Any], policy: Policy, keys: Keys) -> None:
        self.name = tool.name
        self.effect = tool.effect
        self.keys = keys
        self.codec = Codec(tool.signature)
        self.ttl, self.negative_ttl = policy.ttl, policy.negative_ttl
        self.within_run = tool.effect.kind == "reads" and policy.ttl is None


def reusable(tool: Tool[..., Any], policy: Policy) -> bool:
    """Whether results of a tool may be used again."""
    return tool.effect.kind in ("pure", "reads") and policy.ttl != 0


@dataclass(slots=True)
class Ask:
    """A call, as the cache knows it.

    Attributes:
        key: Of the tool, its version, the scope and the arguments.
        of: The tool.
        resources: What the call reads.
        ahead: Seconds of its work that were over before it was asked for.
    """

    key: str
    of: Reused
    resources: tuple[Resource, ...]
    ahead: float = 0.0


@dataclass(slots=True)
class Found:
    """A value, and where it came from.

    Attributes:
        value: It belongs to whoever asked.
        source: ``memory``, ``disk``, ``shared`` (a call that was under way), or ``call``.
        seconds: What the call took; for ``shared`` what was over when it was joined.
    """

    value: Any
    source: str
    seconds: float


@dataclass(slots=True)
class _Flown:
    """What a flight brought: the value for who began it, and its JSON for the others.

    Without JSON it is for one alone, the first who has not left; `given` when it has been had.
    """

    value: Any
    data: bytes | None
    source: str
    seconds: float
    given: bool = False


@dataclass(slots=True)
class CacheStats:
    """What a cache has done since it was made.

    Attributes:
        hits: How often a value was reused, by source.
        misses: Values that had to be made for who asked. Not counted: guesses, failures, and
            calls made because nobody could tell whether what is kept still holds.
        seconds_saved: What the calls took that were not made again.
    """

    hits: dict[str, int] = field(default_factory=dict)
    misses: int = 0
    seconds_saved: float = 0.0

    def note(self, found: Found) -> None:
        """Count a value that was asked for."""
        if found.source == "call":
            self.misses += 1
        else:
            self.hits[found.source] = self.hits.get(found.source, 0) + 1
            self.seconds_saved += found.seconds


class ToolCache:
    """Results of tools, shared by the runs of one engine.

    Args:
        memory: The first tier.
        disk: The second tier, or None.
        epochs: Of the resources; shared through the disk tier if there is one.
        spawn: Starts the tasks that make calls.
        chance: Jitter of lifetimes.

    Attributes:
        stats: What it has done.
        listening: Whether a write can make anything stale.
        heard: Called when it begins to listen: writes may be under way.
    """

    def __init__(
        self,
        memory: MemoryStore,
        disk: Store | None,
        epochs: Epochs,
        spawn: Spawn,
        chance: random.Random,
    ) -> None:
        self.memory = memory
        self.disk = disk
        self.epochs = epochs
        self.stats = CacheStats()
        self._flights = Flights(spawn, lambda flown: flown.source == "call")
        self._chance = chance
        self._failures = Failures()
        self._warned: set[str] = set()
        self.listening = disk is not None
        self.heard: Callable[[], None] = lambda: None

    async def aclose(self) -> None:
        """Write what is still to be written, and let go of files and threads."""
        await self.epochs.aclose()
        if self.disk is not None:
            await self.disk.aclose()

    def has(self, ask: Ask) -> bool:
        """Whether the value of a call is in memory, or on its way; no waiting."""
        epochs = self._epochs_now(ask.resources)
        if epochs is None:
            return False
        entry = self.memory.peek(ask.key)
        flying = self._flights.get((ask.key, epochs)) is not None
        return flying or (entry is not None and entry.epochs == epochs)

    def find(self, ask: Ask) -> Found | None:
        """The value of a call, if it is in memory and certainly still good; no waiting."""
        epochs = self._epochs_now(ask.resources)
        if epochs is None or (found := self._in_memory(ask, epochs)) is None:
            return None
        self.stats.note(found)
        return found

    async def kept(self, ask: Ask) -> Found | None:
        """The value of a call that is not to be made, if it is in memory or on disk."""
        epochs = await self.look(ask.resources)
        found: Found | None = None
        if epochs is not None and (found := self._in_memory(ask, epochs)) is None:
            flown = await self._on_disk(ask, epochs)
            found = None if flown is None else Found(flown.value, flown.source, flown.seconds)
        if found is not None:
            self.stats.note(found)
        return found

    async def obtain(
        self,
        ask: Ask,
        make: Make,
        *,
        bill: Bill | None = None,
        optional: bool = False,
        final: Final | None = None,
    ) -> Found:
        """The value of a call: kept, under way for somebody else, or from `make`.

        Args:
            ask: The call.
            make: Makes one attempt.
            bill: What the caller has set aside for the call; paid if it is made for it.
            optional: Nobody has asked for it yet; a failure of it is not shared.
            final: Whether the caller makes no other attempt after a failure; only such ones are
                remembered, none without it.

        Raises:
            Remembered: The call failed not long ago, and is not made.
            Exception: What the call raised, for whoever else waits for it too. Errors of a
                caller's own (its limits, its end) are not shared: the others call again.
        """
        while True:
            epochs = await self.look(ask.resources)
            if epochs is None:
                return await _made(make, bill)
            if (found := self._in_memory(ask, epochs)) is None:
                self._failures.check(ask.key, epochs, ask.of.negative_ttl)
                key, began = (ask.key, epochs), False
                if (flight := self._flights.get(key)) is None:
                    work, began = self._fly(ask, epochs, make, final), True
                    flight = self._flights.begin(key, work, ask.of.name, optional=optional)
                found = await self._landed(
                    ask, flight, None if began else make, bill, optional=optional
                )
            if found is not None:
                if not optional:
                    self.stats.note(found)
                return found

    async def _landed(
        self,
        ask: Ask,
        flight: Flight[_Flown],
        make: Make | None,
        bill: Bill | None,
        *,
        optional: bool,
    ) -> Found | None:
        """What a flight brought to one of those who wait for it; None if it has to call again.

        Whoever joined it may have to `make` the call after all; who began it has done so, and
        is the first to see its value. Where one guess has failed, another does not try again.
        """
        began, joined = make is None, now()
        try:
            flown = await flight.wait(bill)
        except Left:
            if began:
                flight.settle(bill)
                raise asyncio.CancelledError from None
            return None
        except Exception as error:
            own = flight.optional or isinstance(error, BudgetExceeded | RunError)
            if began or optional or not own:
                flight.settle(bill)
                raise
            return None
        if flown.data is None and flown.given and make is not None:
            return await _made(make, bill)
        flown.given = True
        flight.settle(bill)
        if began:
            return Found(flown.value, flown.source, flown.seconds)
        value = flown.value if flown.data is None else ask.of.codec.decode(flown.data)
        return Found(value, "shared", max(0.0, flown.seconds - (now() - joined)))

    async def _fly(self, ask: Ask, epochs: Epoch, make: Make, final: Final | None) -> _Flown:
        if (flown := await self._on_disk(ask, epochs)) is not None:
            return flown
        began = now()
        try:
            value = await make()
        except Exception as error:
            shared = not isinstance(error, BudgetExceeded | RunError)
            if ask.of.negative_ttl and shared and final is not None and final(error):
                self._failures.note(ask.key, epochs, error, ask.of.negative_ttl)
            raise
        self._failures.forget(ask.key)
        seconds = ask.ahead + now() - began
        data = ask.of.codec.encode(value)
        if data is None:
            self.warn(ask.of.name, UNFAITHFUL)
        elif await self.look(ask.resources) == epochs:
            self._keep(ask, Entry(data, seconds, self._expiry(ask.of.ttl), epochs, ask.of.name))
        return _Flown(value, data, "call", seconds)

    async def look(self, resources: Sequence[Resource]) -> Epoch | None:
        """The epochs of what a call reads; None while it is written, or if nobody can tell."""
        epochs = self._epochs_now(resources)
        return await self.epochs.look(resources) if epochs is None else epochs

    def _epochs_now(self, resources: Sequence[Resource]) -> Epoch | None:
        if not resources:
            return ()
        if not self.listening:
            self.listening = True
            self.heard()
        return self.epochs.now(resources)

    def _in_memory(self, ask: Ask, epochs: Epoch) -> Found | None:
        return self._read(ask, self.memory.get_now(ask.key), epochs, "memory")

    async def _on_disk(self, ask: Ask, epochs: Epoch) -> _Flown | None:
        if self.disk is None or ask.of.within_run:
            return None
        (entry,) = await self.disk.get([ask.key])
        found = self._read(ask, entry, epochs, "disk")
        if entry is None or found is None:
            return None
        self.memory.put(ask.key, entry)
        return _Flown(found.value, entry.value, found.source, found.seconds)

    def _read(self, ask: Ask, entry: Entry | None, epochs: Epoch, source: str) -> Found | None:
        if entry is None or entry.epochs != epochs:
            return None
        try:
            return Found(ask.of.codec.decode(entry.value), source, entry.cost)
        except ValueError:  # of another type than the tool declares now
            return None

    def _keep(self, ask: Ask, entry: Entry) -> None:
        self.memory.put(ask.key, entry)
        if self.disk is not None and not ask.of.within_run:
            self.disk.put(ask.key, entry)

    def _expiry(self, ttl: float | None) -> float | None:
        """Wall time at which a result is no longer used; early by chance, against stampedes."""
        return None if ttl is None else wall() + ttl * (1.0 - JITTER * self._chance.random())

    def warn(self, tool: str, why: str) -> None:
        """Say, once for each tool, why its results are not kept."""
        if tool not in self._warned:
            self._warned.add(tool)
            _log.warning("result not cached", tool=tool, why=why)


async def _made(make: Make, bill: Bill | None) -> Found:
    """A call that is neither kept nor shared."""
    began = now()
    try:
        value = await make()
        return Found(value, "call", now() - began)
    finally:
        if bill is not None:
            bill.pay()
