"""``agentflow replay``: decide again what a run decided, on what its calls gave then."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agentflow.cli import codes
from agentflow.cli.endpoint import Endpoint
from agentflow.cli.failures import explained, failure_json
from agentflow.cli.journals import file_of, reading
from agentflow.cli.output import counted, print_json
from agentflow.cli.recipe import options_of, target_of
from agentflow.cli.resume import job_of
from agentflow.cli.screen import Screen, show
from agentflow.errors import JournalError
from agentflow.executor.journal.portable import RecordedRun, export, load
from agentflow.settings import Settings
from agentflow.testing.replaying import ReplayDiffers, Replayed, replay


def command(options: Any, screen: Screen) -> int:
    """Replay the run that the options name; the exit code."""
    recorded = _recorded(options)
    try:
        replayed = _replayed(recorded, options)
    except ReplayDiffers as error:
        screen.insist(
            f"agentflow replay: run {recorded.row.id} goes another way. {explained(error)}"
        )
        if options.json:
            first = {"place": error.place, "then": error.then, "now": error.now}
            print_json({**failure_json(error, codes.FAILED), "first": first})
        return codes.FAILED
    _tell(replayed, options)
    return codes.OK


def _recorded(options: Any) -> RecordedRun:
    """The run, from an exported file or from the journal."""
    if os.path.isfile(options.run):
        return load(options.run)
    if not (journal := file_of(options)).exists():
        raise JournalError(
            f"{options.run!r} is no file, and no runs are kept yet", path=str(journal)
        )
    with reading(options) as store, TemporaryDirectory() as folder:
        path = Path(folder) / "run.jsonl"
        with path.open("w", encoding="utf-8") as file:
            export(store, options.run, file)
        return load(path)


def _replayed(recorded: RecordedRun, given: Any) -> Replayed:
    """What came of it; the process is in the folder of the run meanwhile."""
    here = os.getcwd()
    try:
        options = options_of(recorded.row, given)
        job = job_of(recorded.row, target_of(recorded.row, options), options, Endpoint(Settings()))
        return replay(recorded, job.target, args=job.args, kwargs=job.kwargs, tools=job.tools)
    finally:
        with suppress(OSError):
            os.chdir(here)


def _tell(replayed: Replayed, options: Any) -> None:
    calls, commits = len(replayed.calls), len(replayed.commits)
    if options.json:
        told = {"calls": calls, "commits": commits, "whole": replayed.whole}
        print_json({"ok": True, "run": replayed.run, **told})
        return
    end = "and came to the same end" if replayed.whole else "as far as it is recorded"
    results = counted(commits, "result")
    show(f"run {replayed.run}: the same {counted(calls, 'call')}, the same {results}, {end}")
