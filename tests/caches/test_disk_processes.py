"""One disk tier under several processes, some of which are killed, and limits of the system."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from typing import Any

from agentflow.caches.diskstore import DiskStore
from agentflow.caches.store import Entry

HEAD = """
import asyncio, itertools, os, resource, sys
from contextlib import aclosing
from pathlib import Path
from agentflow.caches.diskstore import DiskStore
from agentflow.caches.store import Entry

folder, name = Path(sys.argv[1]), sys.argv[2]

def entry(key):
    return Entry(key.encode() * 300, 1.0)

def disk(folder):
    return DiskStore(folder, patience=60)
"""

WRITES_FOR_EVER = """
async def main():
    store = disk(folder)
    for n in itertools.count():
        keys = [f"{name} {n} {i}" for i in range(5)]
        for key in keys:
            store.put(key, entry(key))
        await store.flush()
        if not store.stats().lost:
            print(*keys, sep="\\n", flush=True)

asyncio.run(main())
"""

WRITES_100 = """
async def main():
    async with aclosing(disk(folder)) as store:
        for n in range(100):
            store.put(f"{name} {n}", entry(f"{name} {n}"))
            if n % 10 == 0:
                await store.flush()
                await store.get([f"{other} {n}" for other in "abc"])
    print(store.stats().lost)

asyncio.run(main())
"""

GIVEN_AWAY = """
async def main():
    async with aclosing(disk(folder)) as store:
        store.put("old", entry("old"))

asyncio.run(main())
if os.getuid() == 0:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65534, 65534)
"""

READS_ONLY = """
if os.getuid() == 0:  # who may write everywhere
    os.setuid(65534)
for path in folder.rglob("*"):
    path.chmod(0o500 if path.is_dir() else 0o400)

async def main():
    async with aclosing(disk(folder)) as store:
        for _ in range(3):
            store.put("new", entry("new"))
            await store.flush()
            print(await store.get(["new"]))

asyncio.run(main())
"""

FILLS_THE_DISK = """
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

async def main():
    async with aclosing(disk(folder)) as store:
        before = [f"before {n}" for n in range(20)]
        for key in before:
            store.put(key, entry(key))
        await store.flush()
        kept = await store.get(before)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
        for n in range(40):
            store.put(f"small {n}", Entry(b"x" * 20_000))
            store.put(f"large {n}", Entry(b"x" * 500_000))
            await store.flush()
        assert store.stats().lost > 20, store.stats()
        files = [path for path in folder.rglob("*.val")]
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        print(len(kept) - kept.count(None), len(files))

asyncio.run(main())
"""


def disk(folder: Path, **options: Any) -> DiskStore:
    """A store that bears a busy machine."""
    return DiskStore(folder, patience=60, **options)


def start(script: str, folder: Path, name: str = "a") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HEAD + script, str(folder), name]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


def outcome(process: subprocess.Popen[str]) -> str:
    """What a process printed; it has to end well."""
    out, err = process.communicate(timeout=50)
    assert process.returncode == 0, err
    return out


def acknowledged(name: str, folder: Path) -> list[str]:
    """What a process reports as written until it is killed, without warning."""
    with start(WRITES_FOR_EVER, folder, name) as process:
        try:
            assert process.stdout is not None
            lines = [*islice(process.stdout, 100)]
            process.kill()
            lines += process.stdout
        finally:
            process.kill()
    return [line.rstrip("\n") for line in lines if line.endswith("\n")]


async def test_several_processes_share_a_store(tmp_path: Path) -> None:
    processes = [start(WRITES_100, tmp_path / "cache", name) for name in "abc"]
    lost = [outcome(process) for process in processes]
    keys = [f"{name} {n}" for name in "abc" for n in range(100)]

    async with aclosing(disk(tmp_path / "cache")) as store:
        found = await store.get(keys)

    assert lost == ["0\n"] * 3
    assert found == [Entry(key.encode() * 300, 1.0) for key in keys]


async def test_what_was_acknowledged_survives_the_death_of_its_process(tmp_path: Path) -> None:
    keys = [key for name in "abc" for key in acknowledged(name, tmp_path / "cache")]

    async with aclosing(disk(tmp_path / "cache")) as store:
        found = await store.get(keys)
        store.put("after", Entry(b"1"))
        await store.flush()
        counts = store.stats()

    assert found == [Entry(key.encode() * 300, 1.0) for key in keys]
    assert counts.lost == 0
    assert counts.entries >= len(keys) + 1


def test_a_store_that_cannot_be_written_is_all_misses_and_one_warning() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to other users
        Path(folder).chmod(0o755)
        cache = Path(folder, "cache")
        outcome(start(GIVEN_AWAY, cache))
        process = start(READS_ONLY, cache)
        out, err = process.communicate(timeout=50)

    assert out.count("[None]\n") == 3, err
    assert out.count("everything is a miss") == 1


async def test_a_full_disk_loses_what_does_not_fit_and_nothing_else(tmp_path: Path) -> None:
    process = start(FILLS_THE_DISK, tmp_path / "cache")
    out, err = process.communicate(timeout=50)
    async with aclosing(disk(tmp_path / "cache")) as store:
        store.put("after", Entry(b"1"))
        await store.flush()
        found = await store.get(["before 0", "after"])

    assert process.returncode == 0, err
    assert out.endswith("\n20 0\n")  # all that was there before; no value file is left over
    assert out.count("everything is a miss") == 1
    assert found == [Entry(b"before 0" * 300, 1.0), Entry(b"1")]
