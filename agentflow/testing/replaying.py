"""A recorded run, run again against what came of it: nothing is called, everything is compared."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from agentflow.budgets.budget import Budget
from agentflow.engine import Engine
from agentflow.errors import AgentflowError, HistoryMismatch, JournalError, RunError
from agentflow.executor.journal.history import History, Reading
from agentflow.executor.journal.portable import RecordedRun, load
from agentflow.executor.run import Run
from agentflow.resuming import Before, revived, with_arguments
from agentflow.starting import Target
from agentflow.testing.clock import run_virtual
from agentflow.tools.tool import Tool

LONG = 1e6
"""Virtual seconds that a program may take between its calls."""

WHILE = 60.0
"""Virtual seconds after which a run that waits for what was not recorded will not go on."""

SHOWN = 400
"""Characters that are shown of what differs."""

_ADDRESS = re.compile(r"\bat 0x[0-9A-Fa-f]+")


class ReplayDiffers(AgentflowError, AssertionError):
    """A program does not do again what it did.

    Attributes:
        place: Which call, counted from 1, is the first that differs.
        then: What was recorded in its place.
        now: What happened there this time.
    """

    def __init__(self, message: str, *, place: int = 0, then: str = "", now: str = "") -> None:
        self.place = place
        self.then = then
        self.now = now
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay saw; all of it is as it was recorded.

    Attributes:
        run: Id of the run.
        calls: The calls of its plans, in the order they were made.
        commits: How calls ended, in the order they did, as JSON.
        whole: Whether the run came to the same end; one that was broken off, or stopped from
            outside, was followed as far as it is recorded.
    """

    run: str
    calls: tuple[str, ...]
    commits: tuple[str, ...]
    whole: bool


def replay(
    source: str | Path | RecordedRun,
    target: Any = None,
    *,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    tools: Iterable[Tool[..., Any]] = (),
) -> Replayed:
    """Run a recorded run again: its decisions are taken anew, from the outcomes that it had.

    No tool is called and no model asked; time is virtual. The same calls have to be made in the
    same order, and to end in the same order with the same results, byte for byte.

    Args:
        source: A file that ``agentflow runs export`` wrote, or a run read from a journal.
        target: The workflow, `Plan` or `Task`; by default the run's own, found by its name.
        args: For the target, where the recorded ones are not to be used.
        kwargs: Likewise.
        tools: That the run may call, if it is a plan or a task.

    Raises:
        ReplayDiffers: Something is not as it was.
        JournalError: The file cannot be read.
        DefinitionError: The program is not found.
    """
    recorded = source if isinstance(source, RecordedRun) else load(source)
    return run_virtual(_replay(recorded, target, args, kwargs, tuple(tools)))


async def _replay(
    recorded: RecordedRun,
    target: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    tools: tuple[Tool[..., Any], ...],
) -> Replayed:
    row, paper = recorded.row, _Paper()
    then = Reading(row.id, _no_blob, whole=True).read(recorded.records)
    async with Engine(tools=tools, model=_Nobody(), cache=False) as engine:
        given = Target(target, args, kwargs or {})
        if target is None:
            found = revived(row.target, engine.tools, engine.plan)
            given = Target(found.what, args or found.args, kwargs or found.kwargs)
        elif not args and not kwargs:
            given = with_arguments(given, row.target)
        run = engine.rerun(given, Before(row, then, live=False, budget=Budget()), paper)
        unkept = await _followed(run)
        again, whole = list(paper.records), run.done
        if whole and isinstance(error := await _error(run), HistoryMismatch):
            raise ReplayDiffers(str(error)) from None
    now = Reading(row.id, paper.blobs.__getitem__, whole=True).read(again)
    end = None if unkept else _end(row.id, recorded.records)
    if unkept or then.mended:
        return _as_far(row.id, then, now)
    calls = _same("call", _calls(then), _calls(now), beyond=end is None)
    commits = _same("commit", _commits(then), _commits(now))
    if end is not None:
        _same("end", [end], [_end(row.id, again) or "nothing: it waits for what was not recorded"])
    return Replayed(row.id, tuple(calls), tuple(commits), whole)


def _as_far(run: str, then: History, now: History) -> Replayed:
    """Compare a run that cannot be followed to its end, or not in its order, as far as it can.

    It has calls whose values were not kept, or what it had failed for was tried again.
    """
    calls, commits = _calls(now), _commits(now)
    _same("call", [call for call in calls if call in set(_calls(then))], calls)
    _same("commit", [end for end in commits if end in set(_commits(then))], commits)
    return Replayed(run, tuple(calls), tuple(commits), whole=False)


async def _followed(run: Run[Any]) -> str:
    """Wait until the run has ended, or will not go on; the call it cannot be followed beyond."""
    assert run.notes is not None and run.notes.recall is not None
    over, stuck = asyncio.ensure_future(run.ended()), run.notes.recall.stuck
    await asyncio.wait([over, stuck], timeout=LONG, return_when=asyncio.FIRST_COMPLETED)
    if not over.done():
        await asyncio.wait([over], timeout=WHILE)
    return run.notes.recall.unkept


async def _error(run: Run[Any]) -> RunError | None:
    try:
        await run
    except RunError as error:
        return error
    return None


def _calls(history: History) -> list[str]:
    return [f"{step}  {made.line}" for step, made in history.made.items()]


def _commits(history: History) -> list[str]:
    """How calls ended by themselves; what was cancelled was not committed."""
    return [
        f"{end.step}  {end.value.decode() if end.error is None else json.dumps(dict(end.error))}"
        for end in history.outcomes.values()
        if not (end.nested or end.cancelled)
    ]


def _end(run: str, records: Iterable[Mapping[str, Any]]) -> str | None:
    """How the outermost run ended by itself; None if it did not.

    What JSON has no form for stands there as its `repr`: of an object, often, its type and an
    address, which is another one each time.
    """
    end: str | None = None
    stopped = False
    for record in records:
        if record.get("event") in ("session", "stopping"):
            end, stopped = None, record["event"] == "stopping"
        elif record.get("run") == run and record.get("event") == "run_finished":
            end = f"value {json.dumps(record['value'])}"
        elif record.get("run") == run and record.get("event") == "run_failed" and not stopped:
            end = f"error {json.dumps(record['error'])}"
    return None if end is None else _ADDRESS.sub("at 0x...", end)


def _same(kind: str, then: list[str], now: list[str], *, beyond: bool = False) -> list[str]:
    """What happened, if it is what was recorded, or goes `beyond` it.

    Raises:
        ReplayDiffers: It is not.
    """
    now = now[: len(then)] if beyond else now
    for place, (old, new) in enumerate(zip_longest(then, now, fillvalue="nothing"), 1):
        if old != new:
            told = f"  then: {old[:SHOWN]}\n  now:  {new[:SHOWN]}"
            raise ReplayDiffers(
                f"{kind} {place} is not as it was recorded:\n{told}",
                place=place,
                then=old,
                now=new,
            )
    return now


def _no_blob(digest: str) -> bytes:
    raise JournalError(f"the value {digest} is not in the file: export the run again", path="")


class _Paper:
    """Keeps records in memory."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.blobs: dict[str, bytes] = {}

    def append(self, _run: str, record: str) -> None:
        """Add a record."""
        self.records.append(json.loads(record))

    def update(self, run: str, **columns: Any) -> None:
        """Nothing is listed."""

    def keep_blob(self, _run: str, data: bytes) -> str:
        """Keep a large value."""
        name = str(len(self.blobs))
        self.blobs[name] = data
        return name

    def durable(self) -> asyncio.Future[None]:
        """Memory is as durable as a replay needs."""
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


class _Nobody:
    """A model that is never asked: its replies are recorded."""

    name = "recorded"

    def stream(self, request: Any) -> Any:
        """Nobody answers."""
        raise ReplayDiffers(f"a model was asked what it was not asked then: {request.messages}")

    async def complete(self, request: Any, on_delta: Any = None) -> Any:
        """Nobody answers."""
        self.stream(request)
