"""``agentflow resume``: go on with a run that broke off, was paused, was cancelled or failed."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from agentflow.cli import logs
from agentflow.cli.asking import answerer
from agentflow.cli.endpoint import NOTICE, Endpoint
from agentflow.cli.interrupts import Interrupts
from agentflow.cli.jobs import Job, job_for
from agentflow.cli.journals import file_of, open_journal
from agentflow.cli.recipe import answered_by, options_of, target_of
from agentflow.cli.run import endpoint_of, engine_of, settings_of
from agentflow.cli.screen import Screen
from agentflow.cli.session import kept
from agentflow.cli.showing import Begin, Show
from agentflow.cli.targets import Question, Target
from agentflow.cli.toolset import load, toolbox
from agentflow.engine import Engine
from agentflow.executor.journal.journal import Journal
from agentflow.executor.journal.rows import RunRow
from agentflow.executor.run import Run


def command(options: Any) -> int:
    """Go on with the run that the options name; the exit code."""
    return asyncio.run(_resume(options))


async def _resume(given: Any) -> int:
    screen = Screen(sys.stderr, quiet=given.quiet)
    logs.set_up(given, screen)
    with Interrupts(screen) as interrupts:
        try:
            journal = await open_journal(file_of(given), create=False)
            try:
                row = await journal.ask(journal.store.run, given.run)
                return await _go_on(row, journal, given, screen, interrupts)
            finally:
                await journal.aclose()
        except asyncio.CancelledError:
            if interrupts.arrived is None:
                raise
            return interrupts.code


async def _go_on(
    row: RunRow, journal: Journal, given: Any, screen: Screen, interrupts: Interrupts
) -> int:
    options = options_of(row, given)
    target = target_of(row, options)
    settings = answered_by(row, settings_of(options), options)
    asked = Question("") if row.kind == "task" else target
    async with endpoint_of(asked, settings) as endpoint:
        if endpoint.stand_in:
            screen.paragraph(NOTICE)
        job = job_of(row, target, options, endpoint)
        asks = answerer(options, screen, waits=True)
        async with engine_of(job, endpoint, journal, asks, options) as engine:
            with kept(job.session, options.session):
                begin = _reopening(row.id, job, given)
                return await Show(job, options, screen, endpoint).run(engine, begin, interrupts)


def job_of(row: RunRow, target: Target | None, options: Any, endpoint: Endpoint) -> Job:
    """What goes on; the run of a program is found again by the engine."""
    if target is not None:
        return job_for(target, options, endpoint)
    found = None
    if row.kind == "workflow":
        found = load(str(row.target.get("file") or row.target.get("module")))
        for part in str(row.target.get("name")).split("."):
            found = getattr(found, part, None)
        found = found if row.target.get("module") == "__main__" else None  # by its own name
    return Job(found, tools=tuple(toolbox(options).values()), streams=row.kind == "task")


def _reopening(run: str, job: Job, given: Any) -> Begin:
    async def begin(engine: Engine) -> Run[Any]:
        return await engine.reopen(
            run, job.target, args=job.args, kwargs=job.kwargs, in_doubt=given.in_doubt
        )

    return begin
