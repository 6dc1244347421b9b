"""The power is cut while a run is written: whatever is left of the log is a run to go on with.

SQLite's log grows by frames, one for each page that a commit changed, and the last of a commit says
so. What was not synced may be missing, so the log of a real run is cut after every frame and
inside of frames.
"""

from __future__ import annotations

import asyncio
import shutil
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import durability_program as program
from harness import Goal, table

from agentflow import Engine, Journal
from agentflow.errors import AgentflowError
from agentflow.executor.journal.history import Reading
from agentflow.executor.journal.store import JournalStore

HEADER, FRAME_HEADER = 32, 24
"""Bytes; see SQLite's file format, section 4.1."""

TORN = 30
"""Bytes of a frame that are there when it is torn."""


LOG = 500
"""Frames that are written: fewer than SQLite moves into the file by itself."""

GONE_ON = 20
"""Of how many commits one is gone on with."""

Records = dict[str, list[dict[str, Any]]]
"""The records of each run."""


@dataclass
class Cuts:
    """What came of it.

    Attributes:
        points: Places at which the log was cut.
        commits: In the log.
        resumed: How many runs were gone on with.
        broken: What was wrong.
    """

    points: int = 0
    commits: int = 0
    resumed: int = 0
    broken: list[str] = field(default_factory=list)


class Unhurried(program.Agreeable):
    """Everything is done, after a while."""

    async def ask(self, **message: Any) -> bool:
        """It is done, some milliseconds later."""
        await asyncio.sleep(message["step"] % 7 / 1000)
        return True


def measure(folder: Path, quick: bool) -> Cuts:
    """Run the program, cut its log everywhere, and go on with some of what is left."""
    asyncio.run(write(folder / "whole.db", folder / "taken.db"))
    return Cutter(folder, folder / "taken.db").cut(every=10 if quick else 1)


async def write(journal: Path, taken: Path, least: int = LOG) -> None:
    """Run the program until the log has some frames, and take the files.

    They are taken before they are closed, which would move the log into the file.
    """
    program.connected.set(Unhurried())
    log = Path(f"{journal}-wal")
    async with Engine(journal=Journal(journal), tools=program.TOOLS.values()) as engine:
        size = 0
        while size < least:
            await engine.run(program.program, "cut")
            size = len(frames(log.read_bytes()))
        shutil.copy(journal, taken)
        shutil.copy(log, f"{taken}-wal")


class Cutter:
    """Cuts the log of some runs.

    Args:
        folder: Where copies are made.
        taken: The files.
    """

    def __init__(self, folder: Path, taken: Path) -> None:
        self._copy = folder / "copy.db"
        self._file = taken.read_bytes()
        self._log = taken.with_name(f"{taken.name}-wal").read_bytes()
        self._whole = self._records(len(self._log))
        self._left = 0
        self.cuts = Cuts()

    def cut(self, every: int = 1) -> Cuts:
        """Cut after every frame, or after some, and inside of frames."""
        ends = frames(self._log)
        self.cuts.commits = sum(ends.values())
        for number, (end, _) in enumerate(ends.items()):
            if number % every == 0:
                self.one(end)
                self.one(end + TORN)
        for end in [end for end, commits in ends.items() if commits][:: GONE_ON * every]:
            self._go_on(end)
        return self.cuts

    def one(self, at: int) -> None:
        """Cut once, further on than before: the first records are left, and not fewer of them."""
        self.cuts.points += 1
        try:
            left = self._records(at)
        except AgentflowError as error:
            self.cuts.broken.append(f"cut at {at}: {error}")
            return
        count = sum(map(len, left.values()))
        first = all(self._whole[run][: len(kept)] == kept for run, kept in left.items())
        if not first or count < self._left:
            self.cuts.broken.append(f"cut at {at}: {count} records, not the first ones")
        self._left = count

    def _place(self, at: int) -> None:
        self._copy.write_bytes(self._file)
        self._copy.with_name("copy.db-wal").write_bytes(self._log[:at])

    def _records(self, at: int) -> Records:
        """The records in what is left, which has to be whole."""
        self._place(at)
        with closing(JournalStore(self._copy)) as store:
            if complaints := store.check():
                raise AgentflowError("; ".join(complaints))
            found = {row.id: list(store.records(row.id)) for row in store.runs()}
            for run, records in found.items():
                Reading(run, store.blob).read(records)
            return found

    def _go_on(self, at: int) -> None:
        """Go on with what is left of the last run in it."""
        self._place(at)
        try:
            value = asyncio.run(self._resumed())
        except AgentflowError as error:
            self.cuts.broken.append(f"cut at {at} and gone on with: {error!r}"[:300])
            return
        if value is not None:
            self.cuts.resumed += 1
            if value != program.SHAPE.expected:
                self.cuts.broken.append(f"cut at {at} and gone on with: {value}")

    async def _resumed(self) -> int | None:
        """The value of the last run; None if there is none to go on with."""
        program.connected.set(program.Agreeable())
        journal = Journal(self._copy)
        async with Engine(journal=journal, tools=program.TOOLS.values()) as engine:
            rows = await journal.ask(journal.store.runs)
            if not rows or rows[0].state == "finished":
                return None
            value: int = await engine.resume(rows[0].id, in_doubt="retry")
            return value


def frames(log: bytes) -> dict[int, bool]:
    """Where the frames of a log end, and whether a commit ends there; first where none is."""
    page = int.from_bytes(log[8:12], "big")
    ends = {HEADER: False}
    for start in range(HEADER, len(log), FRAME_HEADER + page):
        ends[start + FRAME_HEADER + page] = log[start + 4 : start + 8] != b"\0\0\0\0"
    return ends


def told(cuts: Cuts) -> str:
    """The table."""
    rows = [
        ("commits in the log", cuts.commits),
        ("places at which its log was cut", cuts.points),
        ("runs gone on with, to their value", cuts.resumed),
        ("inconsistent", len(cuts.broken)),
    ]
    lines = [table(("the power is cut", ""), rows)]
    return "\n".join([*lines, *(f"  {broken}" for broken in cuts.broken[:10])])


def goals(cuts: Cuts, quick: bool) -> list[Goal]:
    """Whatever is left is consistent."""
    return [
        Goal("places at which the power was cut", cuts.points, 50 if quick else 500, "", False),
        Goal("cuts that leave no consistent run", len(cuts.broken), 0, ""),
    ]
