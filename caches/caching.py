"""What a user says about the cache of an engine."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from agentflow.caches.epochs import Epochs
from agentflow.caches.flights import Spawn
from agentflow.caches.memory import MemoryStore
from agentflow.caches.store import Store
from agentflow.caches.tool_cache import ToolCache
from agentflow.errors import DefinitionError

MIB = 1 << 20

Scope: TypeAlias = str | Callable[[], str]
"""Whose results they are, such as a tenant; a function is called where the call is made."""


@dataclass(frozen=True, slots=True)
class Caching:
    """How an engine keeps the results of its tools.

    Attributes:
        memory: Bytes of the memory tier.
        quota: The share of them that the results of one tool may take; None for all.
        directory: Where the disk tier is, which several processes may share; None for no disk
            tier. It must be on a local disk.
        disk: Bytes of the disk tier, about.
        store: A `Store` of one's own as the second tier, in place of a directory. Processes that
            share it do not hear of each other's writes, so they share results of pure tools only.
            It is closed with the engine.
        scope: Whose results they are: what one tenant, or one set of credentials, was told, no
            other is. A text, or a function that reads it where the call is made, such as the
            ``get`` of a context variable.
    """

    memory: int = 64 * MIB
    quota: float | None = None
    directory: str | Path | None = None
    disk: int = 1024 * MIB
    scope: Scope = ""
    store: Store | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            DefinitionError: There are two second tiers.
        """
        if self.store is not None and self.directory is not None:
            raise DefinitionError("a cache has one second tier: a directory or a store, not both")

    def build(self, spawn: Spawn, chance: random.Random) -> ToolCache:
        """The cache.

        Args:
            spawn: Starts the tasks that make calls.
            chance: Jitter of lifetimes.
        """
        memory = MemoryStore(self.memory, quota=self.quota)
        if self.directory is None:
            return ToolCache(memory, self.store, Epochs(), spawn, chance)
        from agentflow.caches.diskstore import DiskStore  # sqlite3 is slow to import
        from agentflow.caches.shared_epochs import SharedEpochs

        folder = Path(self.directory).expanduser()
        disk = DiskStore(folder, limit_bytes=self.disk)
        return ToolCache(memory, disk, Epochs(SharedEpochs(folder)), spawn, chance)
