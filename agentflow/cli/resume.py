"""``agentflow resume``: go on with a run that broke off, was paused, was cancelled or failed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from agentflow.budgets.budget import Budget
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
from agentflow.resuming import recorded_budget


def command(options: Any, screen: Screen) -> int:
    """Go on with the run that the options name; the exit code."""
    return asyncio.run(_resume(options, screen))


async def _resume(given: Any, screen: Screen) -> int:
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
                begin = _reopening(row, job, given)
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


def _reopening(row: RunRow, job: Job, given: Any) -> Begin:
    async def begin(engine: Engine) -> Run[Any]:
        return await engine.reopen(
            row.id,
            job.target,
            args=job.args,
            kwargs=job.kwargs,
            in_doubt=given.in_doubt,
            budget=_budget(row, given),
        )

    return begin


def _budget(row: RunRow, given: Any) -> Budget | None:
    """The limits that a run had last, each in place of which another is given now."""
    limits = {"usd": given.budget, "tokens": given.budget_tokens, "deadline": given.deadline}
    others = {name: limit for name, limit in limits.items() if limit is not None}
    last = recorded_budget(row.target)
    return replace(last or Budget(), **others) if others else last
