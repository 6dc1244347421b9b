"""``agentflow run``: run a question, a plan or a workflow, and show how it goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from agentflow.cli.asking import answerer
from agentflow.cli.endpoint import NOTICE, Endpoint, reach
from agentflow.cli.interrupts import Interrupts
from agentflow.cli.jobs import Job, job_for
from agentflow.cli.journals import for_run
from agentflow.cli.keeping import caching, speculation
from agentflow.cli.knowledge import estimates, prices
from agentflow.cli.recipe import recipe
from agentflow.cli.screen import Screen
from agentflow.cli.session import kept
from agentflow.cli.showing import Begin, Show
from agentflow.cli.targets import Question, Target, find
from agentflow.engine import Engine
from agentflow.errors import DefinitionError
from agentflow.executor.journal.journal import Journal
from agentflow.executor.run import Run
from agentflow.resuming import described
from agentflow.settings import ROUTINGS, Settings
from agentflow.starting import Target as Described
from agentflow.tools.approval import Answerer


def command(options: Any, screen: Screen) -> int:
    """Run what the options name; the exit code."""
    target = find(options.target, options.args)
    return asyncio.run(_run(target, options, screen))


async def _run(target: Target, options: Any, screen: Screen) -> int:
    settings = settings_of(options)
    with Interrupts(screen) as interrupts:
        try:
            async with endpoint_of(target, settings) as endpoint:
                if endpoint.stand_in:
                    screen.paragraph(NOTICE)
                job = job_for(target, options, endpoint)
                journal = await for_run(options, settings, screen)
                asks = answerer(options, screen, waits=journal is not None)
                try:
                    engine = engine_of(job, endpoint, journal, asks, options)
                except Exception:
                    if journal is not None:
                        await journal.aclose()
                    raise
                async with engine:
                    with kept(job.session, options.session):
                        begin = _beginning(job, endpoint, options)
                        show = Show(job, options, screen, endpoint)
                        return await show.run(engine, begin, interrupts)
        except asyncio.CancelledError:
            if interrupts.arrived is None:
                raise
            return interrupts.code  # it came before anything ran


def settings_of(options: Any) -> Settings:
    """What the options of a run and the environment come to.

    Raises:
        DefinitionError: A routing is given, and not several endpoints.
    """
    settings = Settings.load(
        base_url=options.base_url,
        model=options.model,
        cache=options.cache,
        journal=options.journal,
        speculate=options.speculate,
        partial=options.partial,
    )
    if options.routing is not None and len(settings.base_urls) < 2:
        raise DefinitionError(
            "--routing chooses between several endpoints: give --base-url once for each of them, "
            "or leave --routing out"
        )
    return settings


@asynccontextmanager
async def endpoint_of(target: Target | None, settings: Settings) -> AsyncIterator[Endpoint]:
    """Where models are; only a question needs to know before it starts."""
    if isinstance(target, Question):
        async with reach(settings) as endpoint:
            yield endpoint
    else:
        yield Endpoint(settings)


def engine_of(
    job: Job, endpoint: Endpoint, journal: Journal | None, asks: Answerer | None, options: Any
) -> Engine:
    """The engine for a job."""
    settings = endpoint.settings
    return Engine(
        tools=job.tools,
        model=endpoint.backend or settings.model or None,
        base_url=settings.base_urls,
        routing=options.routing or ROUTINGS[0],
        api_key=settings.api_key,
        prices=prices(options),
        estimates=estimates(options),
        cache=caching(options, settings),
        speculation=speculation(options, settings),
        partial=settings.partial,
        journal=journal or False,
        approve=asks,
    )


def _beginning(job: Job, endpoint: Endpoint, options: Any) -> Begin:
    async def begin(engine: Engine) -> Run[Any]:
        run = engine.start(job.target, *job.args, **job.kwargs)
        if engine.journal is not None:  # in the same commit as the rest of the run's row
            target = described(Described(job.target, job.args, job.kwargs))
            how = recipe(options, endpoint.settings, stand_in=endpoint.stand_in)
            engine.journal.update(run.id, target={**target, "cli": asdict(how)})
        return run

    return begin
