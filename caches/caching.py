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
from agentflow.caches.store import SMALLEST_DISK, Store
from agentflow.caches.tool_cache import ToolCache
from agentflow.errors import DefinitionError

MIB = 1 << 20

Scope: TypeAlias = str | Callable[[], str]
"""Whose results they are, such as a tenant; a function is called where the call is made."""


_METHODS = ("get", "put", "delete", "clear", "flush", "aclose", "stats")


@dataclass(frozen=True, slots=True)
class Caching:
    """How an engine keeps the results of its tools.

    Attributes:
        memory: Bytes of the memory tier.
        quota: The share of them that the results of one tool may take; None for all.
        directory: Where the disk tier is, which several processes may share; None or an empty
            text for no disk tier. It must be on a local disk.
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
            DefinitionError: A size, the quota, the directory, the scope or the store is nothing
                that can be used, or there are two second tiers.
        """
        self._check_sizes()
        if not isinstance(self.directory, str | Path | None):
            raise DefinitionError(
                f"a cache is True, False, a directory or a Caching, not {self.directory!r}"
            )
        if self.directory == "":
            object.__setattr__(self, "directory", None)
        if not (isinstance(self.scope, str) or callable(self.scope)):
            raise DefinitionError(
                f"{_named('scope', self.scope)}: a text, or a function without arguments"
            )
        if self.store is None:
            return
        if self.directory is not None:
            raise DefinitionError("a cache has one second tier: a directory or a store, not both")
        lacking = [name for name in _METHODS if not callable(getattr(self.store, name, None))]
        if lacking or isinstance(self.store, type):
            why = f"it lacks {', '.join(lacking)}" if lacking else "it is a class: make one of it"
            raise DefinitionError(f"{_named('store', self.store)}: {why}")

    def _check_sizes(self) -> None:
        for name, least in (("memory", 1), ("disk", SMALLEST_DISK)):
            size = getattr(self, name)
            if isinstance(size, bool) or not isinstance(size, int) or size < least:
                raise DefinitionError(f"{_named(name, size)}: a number of bytes, {least} or more")
        quota = self.quota
        if quota is None:
            return
        if isinstance(quota, bool) or not isinstance(quota, int | float) or not 0 < quota <= 1:
            raise DefinitionError(f"{_named('quota', quota)}: a share of memory, above 0, up to 1")

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


def _named(name: str, value: object) -> str:
    return f"Caching({name}={value!r})"
