"""Kills the process of an engine at some event, as far as a journal and a world can tell."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agentflow import events
from agentflow.errors import CallInDoubt, JournalError
from tests.chaos.cases import Case, Pass, Switches
from tests.chaos.play import Player, Report, perform
from tests.chaos.programs import AREAS


@dataclass(frozen=True)
class Remains:
    """What a killed process leaves: what it had committed, and what it had done to the world."""

    ids: dict[str, str]
    cells: dict[tuple[str, str], str]
    wrote: Counter[str]


class Victim(Player):
    """Plays a case whose process is killed at an event; what it does after that is not counted.

    Args:
        case: What a seed has decided.
        folder: Where its journal is, and the copy of it that survives.
        at: At which event.

    Attributes:
        remains: What it leaves, or None if it came to its end before.
    """

    def __init__(self, case: Case, folder: Path, at: int) -> None:
        super().__init__(case, folder)
        self.remains: Remains | None = None
        self._file = folder / "journal.db"
        self._kept = folder / "kept" / "journal.db"
        self._at = at

    def befall(self, event: events.Event) -> None:
        super().befall(event)
        if self.remains is None and self.audit.seen >= self._at and self._file.exists():
            self._kept.parent.mkdir()
            with (
                closing(sqlite3.connect(self._file)) as one,
                closing(sqlite3.connect(self._kept)) as other,
            ):
                one.backup(other)
            world = self.world
            self.remains = Remains(dict(self.ids), dict(world.cells), Counter(world.wrote))


class Heir(Player):
    """Goes on with the runs of a process that was killed.

    Args:
        case: Their programs.
        folder: Where what is left of their journal is.
        remains: What else is left.
        undisturbed: They come to what they would have come to.

    Attributes:
        undisturbed: As given.
        doubted: Passes of which a write may have been made or not, and was not made again.
    """

    def __init__(self, case: Case, folder: Path, remains: Remains, *, undisturbed: bool) -> None:
        super().__init__(case, folder)
        self._remains = remains
        self._owners = {id: owner for owner, id in remains.ids.items()}
        self.undisturbed = self.world.honest = undisturbed
        self.doubted: set[str] = set()
        self.world.cells.update(remains.cells)
        self.world.doubtful |= {f"{one.owner}/{area}" for one in case.passes for area in AREAS}

    def befall(self, event: events.Event) -> None:
        if isinstance(event, events.RunStarted) and event.parent is not None:
            self._owners[event.run] = self._owners[event.parent]
        if isinstance(event, events.NodeFailed) and isinstance(event.error, CallInDoubt):
            self.doubted.add(self._owners[event.run])

    def check_results(self) -> None:
        """See that every run came to its end that no doubt has kept from it."""
        for one in self.case.passes if self.undisturbed else ():
            if one.owner not in self.results and one.owner not in self.doubted:
                self.world.wrong.append(f"{one.owner} did not go on")

    async def value(self, one: Pass) -> Any:
        """Go on with the run of a pass, if it had not come to its end."""
        target, options = self.target(one)
        self.world.may_write = lambda _tag: True  # a reply that asked for it was written down
        try:
            return await self.engine.resume(
                self._remains.ids[one.owner], target, kwargs=options, in_doubt="fail"
            )
        except JournalError as error:
            if "has finished" in str(error) or "no run" in str(error):
                return None
            raise


def killed(case: Case, folder: Path) -> list[str]:
    """Kill a case at some event, and go on with it: what is wrong with what came of it."""
    at = random.Random(case.seed).randrange(1, 30)
    passes = tuple(replace(one, way="start") for one in case.passes)
    blows = tuple(blow for blow in case.blows if blow.kind != "ruin")  # the journal is to be read
    on = replace(case.switches, journal=True)
    case = replace(case, passes=passes, switches=on, blows=blows)
    victim = Victim(case, folder, at)
    before = perform(victim)
    if victim.remains is None or before.wrong:
        return before.wrong
    known = tuple(one for one in passes if one.owner in victim.remains.ids)
    rest = replace(case, mood="calm", passes=known, switches=Switches(journal=True), blows=())
    heir = Heir(rest, folder / "kept", victim.remains, undisturbed=case.mood != "hostile")
    after = perform(heir)
    differing = _compared(case, heir, after) if heir.undisturbed else []
    return [*after.wrong, *differing, *_doubled(victim, heir)]


def _doubled(victim: Victim, heir: Heir) -> list[str]:
    assert victim.remains is not None
    both = victim.remains.wrote + heir.world.wrote
    repeatable = victim.world.repeatable | heir.world.repeatable
    return [
        f"{tag} was written {times} times, before and after"
        for tag, times in both.items()
        if times > 1 and tag not in repeatable
    ]


def _compared(case: Case, heir: Heir, after: Report) -> list[str]:
    """Where what came of it is not what comes of it undisturbed."""
    undisturbed = perform(Player(case.calm())).results
    return [
        f"{owner} gave {value} and undisturbed {undisturbed.get(owner)}"
        for owner, value in after.results.items()
        if not (value is None or owner in heir.doubted or value == undisturbed.get(owner))
    ]
