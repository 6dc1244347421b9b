"""Thousands of runs through one engine, in a process of its own: what it holds meanwhile.

    python benchmarks/soak_subject.py plain|kept|traced --runs 1000

Prints one JSON object. ``plain`` has no journal, ``kept`` has one, and ``traced``, too; it also
counts Python's own allocations, which takes time, so that its latencies are none.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import sys
import threading
import time
import tracemalloc
from array import array
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import soak_server
import soak_work
from harness import monotonic

from agentflow import AgentflowError, Caching, Engine
from agentflow.errors import DependencyFailed
from agentflow.events import TERMINAL
from agentflow.wording import root_cause

AT_ONCE = 200
TENANTS = 50
SAMPLES = 100
"""Looks at what the process holds, evenly spread over the runs."""

FAULTS = 0.01
"""Of the calls of tools, of the model's replies, and of the runs whose reader goes away."""

LINES = 12
"""Of the code whose allocations grew most, how many are told."""

EXPLAINED = (
    "Broken", "CallTimeout", "ResultError", "TruncatedReply", "BadReply", "BackendBusy",
    "BackendError", "BackendUnreachable", "NoReplica",
)  # fmt: skip
"""What the faults that are made can come to."""


@dataclass(frozen=True)
class Sample:
    """What the process held after so many runs.

    Attributes:
        runs: How many had ended.
        rss: Bytes of memory.
        blocks: Of memory that Python had allocated.
        traced: Bytes that Python had allocated, or 0 where this is not counted.
        descriptors: Open files and sockets.
        threads: Of Python.
        tasks: Of the loop.
        cpu: Seconds of work so far.
        pace: Seconds of work that a fixed computation took: what the machine is like now.
    """

    runs: int
    rss: int
    blocks: int
    traced: int
    descriptors: int
    threads: int
    tasks: int
    cpu: float
    pace: float


@dataclass
class Tally:
    """What came of the runs.

    Attributes:
        ended: How many ended how: ``answered``, ``abandoned``, or the error that failed them.
        wrong: Answers that were not what they had to be.
        unexplained: Failures that no fault explains.
        samples: What the process held meanwhile.
        grown: Bytes by line of code that are held at the end and were not after a tenth.
    """

    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    grown: dict[str, int] = field(default_factory=dict)


class Soak:
    """The runs.

    Args:
        engine: Runs them.
        runs: How many there are.
        at_once: How many of them run at any time.

    Attributes:
        tally: What came of them.
        seconds: How long each took, in the order they ended.
    """

    def __init__(self, engine: Engine, runs: int, at_once: int = AT_ONCE) -> None:
        self._engine = engine
        self._at_once = at_once
        self._numbers = iter(range(runs + at_once))  # as many at once until the last one counts
        self._every = max(1, runs // SAMPLES)
        self._chance = random.Random(1)
        self._early: dict[str, int] = {}
        self._ended = 0
        self.tally = Tally()
        self.seconds = array("d", bytes(8 * runs))  # all of it now: what it holds is flat

    async def run(self) -> None:
        """Run all."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._at_once):
                group.create_task(self._work())

    async def _work(self) -> None:
        for number in self._numbers:
            began = monotonic()
            ended = await self._one(number)
            self.tally.ended[ended] += 1
            if self._ended < len(self.seconds):
                self._note(monotonic() - began)

    def _note(self, seconds: float) -> None:
        """A run that counts has ended."""
        self.seconds[self._ended] = seconds
        self._ended += 1
        if self._ended % self._every == 0:
            self.tally.samples.append(look(self._ended))
        if tracemalloc.is_tracing():
            if self._ended == len(self.seconds) // 10:
                self._early = held_by_line()
            elif self._ended == len(self.seconds):
                self.tally.grown = grown(self._early, held_by_line())

    async def _one(self, number: int) -> str:
        """Run one; how it ended."""
        what, fields, expected = soak_work.target(self._engine, number)
        if self._chance.random() < FAULTS:
            await self._leave(what, fields, after=self._chance.randrange(1, 12))
            return "abandoned"
        tenant = self._engine.tenant(f"customer {number % TENANTS}")
        try:
            answer = await tenant.run(what, **fields)
        except AgentflowError as error:
            cause = first_cause(error)
            if type(cause).__name__ not in EXPLAINED:
                self.tally.unexplained.append(f"{number}: {cause!r}"[:300])
            return type(cause).__name__
        if answer != expected:
            self.tally.wrong.append(f"{number}: {answer!r}, not {expected!r}"[:300])
        return "answered"

    async def _leave(self, what: Any, fields: dict[str, Any], after: int) -> None:
        """Read some events of a run, and go."""
        async for event in self._engine.stream(what, **fields):
            after -= 1
            if not after or isinstance(event, TERMINAL):
                break


def first_cause(error: BaseException) -> BaseException:
    """What failed first, also where what needed it is what failed the run."""
    cause = root_cause(error)
    while isinstance(cause, DependencyFailed) and cause.__cause__ is not None:
        cause = root_cause(cause.__cause__)
    return cause


def look(runs: int) -> Sample:
    """What the process holds now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        runs,
        pages * os.sysconf("SC_PAGE_SIZE"),
        sys.getallocatedblocks(),
        tracemalloc.get_traced_memory()[0],
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
        len(asyncio.all_tasks()),
        time.process_time(),
        pace(),
    )


def pace() -> float:
    """Seconds of work of a fixed computation, which needs memory as runs do."""
    began = time.thread_time()
    names = {number: str(number) for number in range(30_000)}
    sum(len(names[number * 7_919 % len(names)]) for number in names)
    return time.thread_time() - began


def held_by_line() -> dict[str, int]:
    """Bytes that Python holds, by the line of code that asked for them."""
    gc.collect()
    found: dict[str, int] = {}
    for one in tracemalloc.take_snapshot().statistics("lineno"):
        [frame] = one.traceback
        if frame.filename not in (__file__, tracemalloc.__file__):  # this very list
            where = "/".join(frame.filename.split(os.sep)[-3:])
            found[f"{where}:{frame.lineno}"] = one.size
    return found


def grown(early: dict[str, int], late: dict[str, int]) -> dict[str, int]:
    """The lines that hold most of what is held in addition."""
    more = {line: size - early.get(line, 0) for line, size in late.items()}
    most = sorted(more, key=lambda line: more[line], reverse=True)[:LINES]
    return {line: more[line] for line in most if more[line] > 0}


async def soak(runs: int, journal: Path | None) -> dict[str, Any]:
    """Run all; what came of them, and what is left when the engine is closed."""
    soak_work.faults.share = FAULTS
    with soak_server.endpoints(FAULTS, 2) as urls:
        before = look(0)
        async with engine(urls, journal) as one:
            work = Soak(one, runs)
            await work.run()
        await asyncio.sleep(soak_work.HANG + 0.5)  # threads that were given up end then
        await asyncio.get_running_loop().shutdown_default_executor()
        gc.collect()
        after = look(runs)
    return {
        **vars(work.tally),
        "samples": [asdict(sample) for sample in work.tally.samples],
        "seconds": list(work.seconds),
        "struck": dict(soak_work.faults.struck),
        "journal_bytes": journal.stat().st_size if journal else 0,
        "left": {
            name: getattr(after, name) - getattr(before, name)
            for name in ("descriptors", "threads", "tasks")
        },
    }


def engine(urls: list[str], journal: Path | None) -> Engine:
    """An engine with everything on; its cache is full before the second tenth begins."""
    return Engine(
        base_url=urls,
        model="scripted",
        tools=soak_work.TOOLS,
        cache=Caching(memory=1 << 20),
        speculation=True,
        journal=journal or False,
        seed=1,
    )


def main() -> None:
    """Read the command line, run all, and print the object."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("kind", choices=("plain", "kept", "traced"))
    options.add_argument("--runs", type=int, default=10_000)
    given = options.parse_args()
    if given.kind == "traced":
        tracemalloc.start()
    with TemporaryDirectory() as folder:
        journal = None if given.kind == "plain" else Path(folder) / "journal.db"
        print(json.dumps(asyncio.run(soak(given.runs, journal))))


if __name__ == "__main__":
    main()
