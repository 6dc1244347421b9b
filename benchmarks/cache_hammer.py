"""Processes that hammer one disk tier while one of them is killed every second.

Run as a program, this is one of the processes: it stores values that follow from their keys,
notes in a file what was acknowledged, and reads keys of all. Started by `cache.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import aclosing, closing, suppress
from pathlib import Path
from typing import Any

from harness import Goal, table

from agentflow.caches.diskstore import DiskStore
from agentflow.caches.store import Entry

PROCESSES = 8
BATCH = 8
BYTES = 2_000


def entry(key: str) -> Entry:
    """What a key's value has to be."""
    pattern = f"{key};".encode()
    return Entry((pattern * (BYTES // len(pattern) + 1))[:BYTES], 1.0, tool="hammer")


def wrong_among(keys: list[str], found: list[Entry | None]) -> int:
    """How many values are not those of their keys; a miss is none."""
    pairs = zip(keys, found, strict=True)
    return sum(one is not None and one != entry(key) for key, one in pairs)


async def hammer(folder: Path, name: str, seconds: float) -> None:
    """Store and read for some seconds; write down what happened."""
    chance = random.Random(name)
    acknowledged = os.open(folder / f"{name}.acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    stores: list[float] = []
    reads: list[float] = []
    wrong = 0
    end = time.perf_counter() + seconds
    async with aclosing(DiskStore(folder / "cache")) as store:
        for n in itertools.count():
            if time.perf_counter() > end:
                break
            keys = [f"{name} {n} {i}" for i in range(BATCH)]
            lost = store.stats().lost
            began = time.perf_counter()
            for key in keys:
                store.put(key, entry(key))
            await store.flush()
            stores.append(time.perf_counter() - began)
            if store.stats().lost == lost:
                os.write(acknowledged, f"{n}\n".encode())
            for _ in range(4):
                others = known_keys(folder, chance)
                began = time.perf_counter()
                found = await store.get(others)
                reads.append(time.perf_counter() - began)
                wrong += wrong_among(others, found)
        lost = store.stats().lost
    report = {"stores": stores, "reads": reads, "wrong": wrong, "lost": lost}
    (folder / f"{name}.report").write_text(json.dumps(report))


def known_keys(folder: Path, chance: random.Random) -> list[str]:
    """Some keys that a process has acknowledged."""
    files = list(folder.glob("*.acknowledged"))
    path = chance.choice(files)
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, chance.randrange(size + 1) - 64))
        lines = file.read(128).split(b"\n")[1:-1]
    return [f"{path.stem} {line.decode()} {chance.randrange(BATCH)}" for line in lines[:BATCH]]


def start(folder: Path, name: str, seconds: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, str(folder), name, str(seconds)]
    return subprocess.Popen(command)


def measure(quick: bool) -> dict[str, Any]:
    """Hammer, kill, and count what is missing or wrong."""
    seconds = 8.0 if quick else 30.0
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        killed = run(folder, seconds)
        reports = [json.loads(path.read_text()) for path in folder.glob("*.report")]
        found = asyncio.run(verify(folder))
        with closing(sqlite3.connect(folder / "cache" / "values" / "cache.db")) as con:
            [(integrity,)] = con.execute("PRAGMA integrity_check").fetchall()
        aside = [path.name for path in (folder / "cache").glob("values.damaged-*")]
    stores = sorted(itertools.chain(*(report["stores"] for report in reports)))
    reads = sorted(itertools.chain(*(report["reads"] for report in reports)))
    return {
        "seconds": seconds,
        "killed": killed,
        "integrity": integrity if not aside else "put aside",
        "wrong": sum(report["wrong"] for report in reports) + found["wrong"],
        "given_up": sum(report["lost"] for report in reports),
        "stores_per_second": len(stores) * BATCH / seconds,
        "reads_per_second": len(reads) / seconds,
        **{f"store_ms_{name}": value for name, value in percentiles(stores).items()},
        **{f"read_ms_{name}": value for name, value in percentiles(reads).items()},
        "acknowledged": found["acknowledged"],
        "missing": found["missing"],
    }


def run(folder: Path, seconds: float) -> int:
    """Keep the processes going, and kill one every second; gives how many were killed."""
    chance = random.Random(0)
    names = (f"p{n}" for n in itertools.count())
    end = time.perf_counter() + seconds
    running = [start(folder, next(names), seconds) for _ in range(PROCESSES)]
    killed = 0
    while (left := end - time.perf_counter()) > 1.5:
        time.sleep(1.0)
        victim = running.pop(chance.randrange(len(running)))
        with suppress(ProcessLookupError):
            victim.send_signal(signal.SIGKILL)
        killed += victim.wait() == -signal.SIGKILL
        running.append(start(folder, next(names), max(0.5, left - 1.0)))
    for process in running:
        process.wait()
    return killed


async def verify(folder: Path) -> dict[str, int]:
    """Read back everything that was acknowledged."""
    missing = wrong = acknowledged = 0
    async with aclosing(DiskStore(folder / "cache", patience=60)) as store:
        for path in folder.glob("*.acknowledged"):
            for line in path.read_bytes().split(b"\n")[:-1]:
                keys = [f"{path.stem} {line.decode()} {i}" for i in range(BATCH)]
                found = await store.get(keys)
                acknowledged += len(keys)
                missing += found.count(None)
                wrong += wrong_among(keys, found)
    return {"missing": missing, "wrong": wrong, "acknowledged": acknowledged}


def percentiles(times: list[float]) -> dict[str, float]:
    """Of sorted seconds, in milliseconds."""
    return {
        "p50": 1e3 * times[len(times) // 2],
        "p99": 1e3 * times[len(times) * 99 // 100],
        "max": 1e3 * times[-1],
    }


def show(found: dict[str, Any]) -> str:
    """The table."""
    rows = [
        (f"{BATCH} stores and a flush", found["stores_per_second"] / BATCH,
         *(found[f"store_ms_{name}"] for name in ("p50", "p99", "max"))),
        (f"a read of up to {BATCH} keys", found["reads_per_second"],
         *(found[f"read_ms_{name}"] for name in ("p50", "p99", "max"))),
    ]  # fmt: skip
    return (
        f"{PROCESSES} processes for {found['seconds']:.0f} s, values of {BYTES} bytes; "
        f"{found['killed']} killed, integrity {found['integrity']},\n"
        f"{found['acknowledged']:,} stores acknowledged, {found['missing']} of them missing, "
        f"{found['wrong']} values wrong, {found['given_up']} stores or reads given up\n\n"
        + table(("in the survivors", "a second", "p50 ms", "p99 ms", "max ms"), rows)
    )


def goals(found: dict[str, Any]) -> list[Goal]:
    """Nothing lost that was acknowledged, nothing corrupt."""
    damage = found["wrong"] + (found["integrity"] != "ok")
    return [
        Goal("acknowledged stores missing after the kills", found["missing"], 0, "entries"),
        Goal("wrong values and damaged files", damage, 0, ""),
        Goal("processes killed", found["killed"], found["seconds"] - 3, "", at_most=False),
    ]


if __name__ == "__main__":
    asyncio.run(hammer(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
