"""Readers of files that lie on a disk, where anybody may have changed them."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sqlite3
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

from structlog.testing import capture_logs

from agentflow.budgets.estimate_records import Outcome
from agentflow.budgets.estimates import Estimates
from agentflow.caches import envelope as layout
from agentflow.caches.codec import Codec
from agentflow.caches.diskstore import DiskStore
from agentflow.caches.speculation.predictor import Predictor
from agentflow.caches.speculation.trail import Trail
from agentflow.caches.store import Entry
from agentflow.errors import DefinitionError, JournalError
from agentflow.executor.journal import portable, rows
from agentflow.executor.journal.rows import Batch
from agentflow.executor.journal.store import JournalStore
from agentflow.settings import Settings
from agentflow.tools.signature import Signature
from tests.fuzz.target import NESTED, TEXTS, Target, text

ENVIRONMENT = ("OPENAI_BASE_URL", "OPENAI_API_KEY", "AGENTFLOW_MODEL", "AGENTFLOW_CACHE")


_FOLDER = TemporaryDirectory(prefix="fuzz-")


def folder() -> Path:
    """Where the files are, as long as the process lives."""
    return Path(_FOLDER.name)


@cache
def _codec() -> Codec:
    async def give() -> list[str]:
        raise AssertionError

    return Codec(Signature(give, "give"))


def envelope(data: bytes, chance: random.Random) -> None:
    """An entry of the cache on disk: as it lies there, and with a digest that is right."""
    header, _, value = data.partition(b"\n")
    digest = layout._digest("key", header, value)
    head = layout._HEAD.pack(layout._MAGIC, digest, len(header), len(value))
    for packed in (data, head + header + value):
        with suppress(layout.Damaged):
            _codec().decode(layout.unpack("key", packed).value)


def estimates(data: bytes, chance: random.Random) -> None:
    """The file of estimates; one that is broken is set aside, with a warning."""
    path = folder() / "estimates.json"
    path.write_bytes(data)
    with capture_logs():
        known = Estimates(path)
        known.success("k", "m")
        known.outcomes("k", "m")


def predictor(data: bytes, chance: random.Random) -> None:
    """What speculation has learnt; whatever cannot be used, the caller begins anew."""
    loaded = Predictor.load(json.loads(data))
    loaded.candidates(Trail("shop"), 3)


def record(data: bytes, chance: random.Random) -> None:
    """A row of the journal."""
    list(rows.unpack(data, crc32(data)))


def recorded(data: bytes, chance: random.Random) -> None:
    """A run that was exported."""
    path = folder() / "run.jsonl"
    path.write_bytes(data)
    portable.load(path)


def journal(data: bytes, chance: random.Random) -> None:
    """A journal: what can be read of it is, and the rest is named."""
    path = folder() / "journal.db"
    path.write_bytes(data)
    store = JournalStore(path)
    try:
        store.open(create=False)
        store.check()
        for row in store.runs():
            with suppress(JournalError):
                list(store.records(row.id))
        store.write(Batch(lines={"b": ["{}"]}, runs={"b": dict(RUN, name="b")}))
    finally:
        store.close()
        _remove(path)


def disk(data: bytes, chance: random.Random) -> None:
    """The cache on disk: what cannot be read of it is missed."""
    place = folder() / "cache"
    place.mkdir(exist_ok=True)
    for path in place.rglob("cache.db"):
        path.write_bytes(data)
    with capture_logs():
        asyncio.run(_looked_up(place))


async def _looked_up(place: Path) -> list[Entry | None]:
    store = DiskStore(place, limit_bytes=4 << 20)
    try:
        found = await store.get(["key", "other"])
        store.put("key", Entry(b"1"))
        await store.flush()
        return found
    finally:
        await store.aclose()


def pyproject(data: bytes, chance: random.Random) -> None:
    """Settings, of a file and of the environment."""
    (folder() / "pyproject.toml").write_bytes(data)
    given = dict(line.partition("=")[::2] for line in text(data).replace("\0", "").split("\n"))
    Settings.load(environ={name: given.get(name, "") for name in ENVIRONMENT}, folder=folder())


def _remove(path: Path) -> None:
    for other in path.parent.glob(f"{path.name}*"):
        if other.is_file():
            other.unlink()


# What they are known to read

RUN = {"name": "brief", "kind": "workflow", "target": {"module": "m"}, "began": 1.0}
ENTRY = layout.pack("key", Entry(b'["a"]', cost=1.5, expires=2e9, epochs=(1, 2), tool="search"))
HEADER = b'{"cost": 1, "expires": 2.5, "epochs": [1], "tool": "t"}\n["a"]'
HUGE = HEADER.replace(b'"cost": 1', b'"cost": ' + b"9" * 400)
SETTINGS = b'[tool.agentflow]\nbase_url = "http://127.0.0.1/v1"\nmodel = "m"\ncache = "c"\n'
RECORDS = b'{"event": "session", "n": 1}\n{"event": "run_started", "run": "a"}'


def _estimates() -> bytes:
    path = folder() / "known.json"
    known = Estimates(path)
    for number in range(4):
        known.note("k", "m", Outcome(number % 2 == 0, 1.5 + number, 100, 50))
    known.ran("flow", True, 0.01)
    known.save()
    return path.read_bytes()


def _huge(data: bytes) -> bytes:
    """The same, with a number that no float can hold in place of the last one."""
    *_, last = re.finditer(rb"(?<=[\[, ])\d+(?:\.\d+)?", data)
    return data[: last.start()] + b"9" * 400 + data[last.end() :]


def _predictor() -> bytes:
    taught = Predictor()
    for n in range(3):
        trail = Trail("shop")
        trail.said(f"I am user_{n}")
        taught.learn(trail)
        trail.called("profile", {"user": f"user_{n}"}, {"orders": [f"{n}a"]})
        taught.learn(trail)
    return json.dumps(taught.dump()).encode()


def _journal() -> tuple[bytes, bytes]:
    """A journal of one run, and that run by itself."""
    path = folder() / "made.db"
    store = JournalStore(path)
    lines = RECORDS.decode().split("\n")
    store.write(Batch(lines={"a-1": lines}, runs={"a-1": dict(RUN, state="finished")}))
    with open(folder() / "made.jsonl", "w+", encoding="utf-8") as file:
        portable.export(store, "a-1", file)
        file.seek(0)
        alone = file.read().encode()
    store.close()
    with closing(sqlite3.connect(path)) as one:
        one.execute("pragma wal_checkpoint(truncate)")
    return path.read_bytes(), alone


def _disk() -> bytes:
    place = folder() / "cache"
    asyncio.run(_looked_up(place))
    return next(place.rglob("cache.db")).read_bytes()


def file_targets() -> list[Target]:
    """The readers of files."""
    whole, alone = _journal()
    known, taught = _estimates(), _predictor()
    return [
        Target("cache entry", envelope, [ENTRY, HEADER, HUGE], (ValueError,), NESTED),
        Target("cache", disk, [_disk()], texts=20),
        Target("estimates", estimates, [known, _huge(known)], (), NESTED),
        Target("predictor", predictor, [taught, _huge(taught)], (ValueError, RecursionError), NESTED, 200),
        Target("record", record, [RECORDS], (ValueError,), NESTED),
        Target("recorded run", recorded, [alone], (JournalError,), NESTED),
        Target("journal", journal, [whole], (JournalError,), texts=100),
        Target("settings", pyproject, [SETTINGS, b"OPENAI_BASE_URL=a,b"], (DefinitionError,), TEXTS),
    ]  # fmt: skip
