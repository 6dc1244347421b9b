"""``agentflow cache``: what is kept on disk, and how to get rid of it or at it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentflow.caches.database import identity, remove_aside
from agentflow.caches.disk import FILE
from agentflow.caches.diskstore import DiskStore
from agentflow.caches.shared_epochs import SharedEpochs
from agentflow.caches.store import Entry, StoreStats
from agentflow.cli import codes
from agentflow.cli.keeping import LEARNT, directory
from agentflow.cli.output import counted, duration, print_json, size
from agentflow.cli.screen import Screen, show
from agentflow.settings import Settings

PATIENCE = 60.0
"""Seconds to wait for the disk."""


@dataclass(slots=True)
class Kept:
    """What is kept of one tool.

    Attributes:
        results: How many results.
        bytes: Of their values.
        seconds: What it took to obtain them.
    """

    results: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def add(self, entry: Entry) -> None:
        """Count one more result."""
        self.results += 1
        self.bytes += len(entry.value)
        self.seconds += entry.cost

    def as_dict(self) -> dict[str, Any]:
        """The counts as plain data."""
        seconds = round(self.seconds, 6)
        return {"results": self.results, "bytes": self.bytes, "seconds": seconds}


def command(options: Any, screen: Screen) -> int:
    """Do to the cache what the options ask for; the exit code."""
    folder = directory(Settings.load(cache=options.dir))
    return asyncio.run(_ACTIONS[options.action](folder, options, screen))


async def _stats(folder: Path, options: Any, screen: Screen) -> int:
    tools: dict[str, Kept] = {}
    held = StoreStats(entries=0, bytes=0, limit=0)
    async with _opened(folder) as store:
        async for _, entry in _entries(store):
            tools.setdefault(entry.tool, Kept()).add(entry)
        if store is not None:
            held = await store.measured()
    total = sum(kept.results for kept in tools.values())
    if options.json:
        told = {name: kept.as_dict() for name, kept in sorted(tools.items())}
        shared = {"directory": str(folder), "results": total, "bytes_on_disk": held.bytes}
        print_json({"ok": not held.lost, **shared, "tools": told})
    elif total:
        print(f"{folder}: {counted(total, 'result')}, {size(held.bytes)} on disk")
        show("\n".join(_table(tools)))
    else:
        print(f"{folder}: no results are kept there")
    return _code(not held.lost, screen)


async def _clear(folder: Path, options: Any, screen: Screen) -> int:
    """Remove what is kept, and have every process that shares it read anew."""
    before = identity(_database(folder))
    async with _opened(folder) as store:
        if store is not None:
            await store.clear()
    found = before is not None
    cleared = not found or identity(_database(folder)) != before
    if found:
        epochs = SharedEpochs(folder, patience=PATIENCE)
        cleared = await epochs.rise([()]) and cleared
        await epochs.aclose()
    for name in ("values", "epochs"):
        remove_aside(folder / name)
    (folder / LEARNT).unlink(missing_ok=True)
    if options.json:
        print_json({"ok": cleared, "directory": str(folder)})
    elif cleared:
        print(f"{folder}: nothing is kept there{' any more' if found else ''}")
    if not cleared:
        screen.insist(f"agentflow cache: {folder} could not be cleared altogether; try again")
    return codes.OK if cleared else codes.FAILED


async def _export(folder: Path, options: Any, screen: Screen) -> int:
    async with _opened(folder) as store:
        async for key, entry in _entries(store):
            print_json(
                {
                    "key": key,
                    "tool": entry.tool,
                    "value": json.loads(entry.value),
                    "cost": entry.cost,
                    "expires": entry.expires,
                }
            )
        complete = store is None or not store.stats().lost
    return _code(complete, screen)


_ACTIONS = {"stats": _stats, "clear": _clear, "export": _export}


@asynccontextmanager
async def _opened(folder: Path) -> AsyncIterator[DiskStore | None]:
    """The store in a folder; None if there is none, for looking makes none."""
    if identity(_database(folder)) is None:
        yield None
        return
    store = DiskStore(folder, patience=PATIENCE)
    try:
        yield store
    finally:
        await store.aclose()


def _database(folder: Path) -> Path:
    return folder / "values" / FILE


async def _entries(store: DiskStore | None) -> AsyncIterator[tuple[str, Entry]]:
    if store is not None:
        async for key, entry in store.export():
            yield key, entry


def _table(tools: dict[str, Kept]) -> Iterator[str]:
    width = max(4, *map(len, tools))
    yield f"{'tool':<{width}}  {'results':>9}  {'values':>10}  {'took':>12}"
    for name, kept in sorted(tools.items(), key=lambda item: -item[1].seconds):
        numbers = f"{kept.results:>9,}  {size(kept.bytes):>10}  {duration(kept.seconds):>12}"
        yield f"{name:<{width}}  {numbers}"


def _code(complete: bool, screen: Screen) -> int:
    if complete:
        return codes.OK
    screen.insist("agentflow cache: some of it could not be read; see above")
    return codes.FAILED
