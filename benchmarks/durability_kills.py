"""Runs that are killed again and again, gone on with, and counted by the world."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
import re
import signal
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, TypeAlias

import durability_program as program
from durability_effects import Counting
from durability_writer import Kind, Order, Said, start, warm
from harness import Goal, monotonic, table

from agentflow.errors import JournalError
from agentflow.executor.journal.store import JournalStore

LONGER = 1.2
"""Times as long as a whole run takes: the latest moment at which a process is killed."""

PATIENCE = 30.0
"""Seconds after which a process that says nothing hangs."""

KILLS = 3
"""Of one run, at most."""

KINDS: tuple[Kind, ...] = ("workflow", "plan", "workflow", "task")
"""What is run, in turn."""

Verdict: TypeAlias = Literal["approve", "deny", "done"]

_STEP = re.compile(r"step=(\d+)")


@dataclass
class Tally:
    """What came of it.

    Attributes:
        runs: How many came to their end.
        kills: How many processes died of them.
        early: Kills before the journal knew the run.
        untold: Kills after the run's end was kept, before anybody was told.
        resumed: How many times a run was gone on with.
        lost: Calls that were made again although their result had been seen.
        doubled: Calls that may write, and were made more than once.
        missing: Calls that were never made.
        keys: Calls that were made with more than one idempotency key.
        repeated: Idempotent calls that were made again with the same key, and not done again.
        asked: Calls in doubt, of which somebody was asked.
        failures: What else went wrong.
        seconds: Of every session, from its start to its end.
    """

    runs: int = 0
    kills: int = 0
    early: int = 0
    untold: int = 0
    resumed: int = 0
    lost: int = 0
    doubled: int = 0
    missing: int = 0
    keys: int = 0
    repeated: int = 0
    asked: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class Killer:
    """Starts runs, kills them, and goes on with them.

    Args:
        world: Counts what they do.
        journal: The file that keeps them.
        seed: Of the chance that chooses moments.

    Attributes:
        tally: What came of it.
    """

    def __init__(self, world: Counting, journal: Path, seed: int = 0) -> None:
        self._world = world
        self._journal = journal
        self._chance = random.Random(seed)
        self._numbers = itertools.count()
        self._moments: dict[Kind, float] = {}
        self.tally = Tally()

    def kill(self, kills: int) -> None:
        """Kill so many processes."""
        asyncio.run(warm())
        while self.tally.kills < kills:
            self._run(next(self._numbers))

    def _run(self, number: int) -> None:
        """Bring a run to its end, however often it is killed; the first of a kind is not."""
        label, known, kind = f"r{number}", "", KINDS[number % len(KINDS)]
        kills = self._chance.randint(1, KILLS) if kind in self._moments else 0
        for session in itertools.count(1):
            fatal, self.tally.resumed = kills > 0, self.tally.resumed + bool(known)
            order = self._order(label, kind, known, session, fatal)
            known, said = self._session(order, fatal)
            self._world.settle()
            if said is None:
                kills -= 1
                self.tally.kills += 1
                state = self._state(known)
                if not state:
                    label, known = self._forgotten(label), ""
                elif state == "finished":
                    self.tally.untold += 1
                    self._count(label)
                    return
            elif said.what == "paused":
                self._answer(known, label, said.data)
            else:
                self._ended(label, said)
                self._moments.setdefault(kind, LONGER * self.tally.seconds[-1])
                return

    def _order(self, label: str, kind: Kind, known: str, session: int, fatal: bool) -> Order:
        """What a process is to do; half of those that are to die do so at some piece of work."""
        fuse = {"works": 0, "done": False}
        if fatal and self._chance.random() < 0.5:
            works = self._chance.randint(1, len(program.SHAPE.needs) // session)
            fuse = {"works": works, "done": self._chance.random() < 0.5}
        return Order(label, kind, known, session, self._journal, self._world.port, fuse)

    def _session(self, order: Order, fatal: bool) -> tuple[str, Said | None]:
        """A process, until its end: the id of its run, and what it said last unless it died."""
        began = monotonic()
        process, ears = start(order)
        by_time = fatal and not order.fuse["works"]
        patience = self._chance.uniform(0.0, self._moments[order.kind]) if by_time else PATIENCE
        heard = listen(ears, began + patience)
        if late := monotonic() >= began + patience:
            process.kill()
        process.join()
        heard += listen(ears, math.inf)
        ears.close()
        self.tally.seconds.append(monotonic() - began)
        run = next((one.data for one in heard if one.what == "began"), order.run)
        if heard and heard[-1].what != "began":
            return run, heard[-1]
        if late and not by_time:
            return run, Said("failed", "the process hung")
        if process.exitcode != -signal.SIGKILL:
            return run, Said("failed", f"the process ended with {process.exitcode}")
        return run, None

    def _state(self, run: str) -> str:
        """What the journal says of a run; empty if it knows nothing of it."""
        with suppress(JournalError), closing(JournalStore(self._journal)) as store:
            return store.run(run).state if run else ""
        return ""

    def _forgotten(self, label: str) -> str:
        """The journal knows nothing of a run: nothing may have come of it. Gives a new label."""
        self.tally.early += 1
        for work in self._world.report(label):
            if work["kind"] != "read" or work["seen"] is not None:
                self.tally.lost += 1
        return f"{label}'"

    def _answer(self, run: str, label: str, asks: list[Mapping[str, Any]]) -> None:
        """Answer what a run asks: whether a call was made, which the world knows."""
        with closing(JournalStore(self._journal)) as store:
            for ask in asks:
                self.tally.asked += 1
                found = _STEP.search(ask["call"])
                assert found, ask
                verdict, value = self._verdict(label, int(found[1]))
                store.answer(run, ask["question"], verdict, value, "the killer")

    def _verdict(self, label: str, step: int) -> tuple[Verdict, str | None]:
        if not self._world.ask(do="done", run=label, step=step):
            return "approve", None
        return "done", json.dumps({"run": label, "step": step, "value": program.VALUES[step]})

    def _ended(self, label: str, said: Said) -> None:
        """A run is over, or cannot go on."""
        if said != Said("finished", program.SHAPE.expected):
            self.tally.failures.append(f"{label} {said.what}: {said.data}"[:300])
        self._count(label)

    def _count(self, label: str) -> None:
        """Count what a run did."""
        self.tally.runs += 1
        works = self._world.report(label)
        self.tally.missing += len(program.SHAPE.needs) - len(works)
        for work in works:
            self.tally.lost += work["lost"]
            self.tally.repeated += work["repeated"]
            if work["kind"] != "read":
                self.tally.doubled += work["executions"] - 1
                self.tally.keys += work["keys"] > 1


def listen(ears: Connection, until: float) -> list[Said]:
    """What a process says until a moment, or its end."""
    heard = []
    with suppress(EOFError):
        while ears.poll(None if until == math.inf else max(0.0, until - monotonic())):
            heard.append(ears.recv())
    return heard


def told(tally: Tally) -> str:
    """The table."""
    seconds = sorted(tally.seconds)
    rows = [
        ("processes killed", tally.kills),
        ("of them before the run was kept", tally.early),
        ("of them when its end was kept, and not told", tally.untold),
        ("times a run was gone on with", tally.resumed),
        ("runs that came to their end", tally.runs),
        ("calls made again whose result had been seen", tally.lost),
        ("writes and undeclared calls made more than once", tally.doubled),
        ("calls never made", tally.missing),
        ("calls made with different keys", tally.keys),
        ("idempotent writes repeated with their key", tally.repeated),
        ("calls in doubt that somebody was asked about", tally.asked),
        ("failures", len(tally.failures)),
        ("median seconds of a process", seconds[len(seconds) // 2]),
    ]
    lines = [table(("killed with SIGKILL at random moments", ""), rows)]
    return "\n".join([*lines, *(f"  {failure}" for failure in tally.failures[:10])])


def goals(tally: Tally, kills: int) -> list[Goal]:
    """Nothing lost, nothing doubled."""
    return [
        Goal("processes killed", tally.kills, kills, "", at_most=False),
        Goal("finished work lost", tally.lost, 0, "calls"),
        Goal("effects doubled", tally.doubled + tally.keys, 0, "calls"),
        Goal("effects missing", tally.missing, 0, "calls"),
        Goal("failures to go on", len(tally.failures), 0, "runs"),
    ]


def results(tally: Tally) -> dict[str, Any]:
    """For the JSON object."""
    return {name: value for name, value in vars(tally).items() if name != "seconds"}
