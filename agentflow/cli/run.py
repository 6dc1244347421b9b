"""``agentflow run``: run a question, a plan or a workflow, and show how it goes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from agentflow import events
from agentflow.cli import codes, logs
from agentflow.cli.answer import AnswerWriter
from agentflow.cli.endpoint import FOOTER, NOTICE, Endpoint, reach
from agentflow.cli.failures import explained, failure_json
from agentflow.cli.interrupts import Interrupts
from agentflow.cli.jobs import Job, job_for
from agentflow.cli.keeping import caching, speculation
from agentflow.cli.knowledge import estimates, prices
from agentflow.cli.output import as_text, print_json, stdout_is_terminal
from agentflow.cli.progress import REDRAW, Progress
from agentflow.cli.screen import Screen, show
from agentflow.cli.serving import replicas, unanswered, unwell
from agentflow.cli.spending import passes, used
from agentflow.cli.summary import finished, summary
from agentflow.cli.tally import Tally
from agentflow.cli.targets import Question, Target, find
from agentflow.clock import now
from agentflow.engine import Engine
from agentflow.errors import DeadlineExceeded, DefinitionError, RunError
from agentflow.executor.backlog import Backlog
from agentflow.executor.run import Run
from agentflow.settings import ROUTINGS, Settings

if TYPE_CHECKING:
    from agentflow.executor.affinity.replica import ReplicaReport

Reader = Callable[[events.Event], None]


def command(options: Any) -> int:
    """Run what the options name; the exit code."""
    target = find(options.target, options.args)
    return asyncio.run(_run(target, options))


async def _run(target: Target, options: Any) -> int:
    screen = Screen(sys.stderr, quiet=options.quiet)
    logs.set_up(options, screen)
    settings = Settings.load(
        base_url=options.base_url,
        model=options.model,
        cache=options.cache,
        speculate=options.speculate,
        partial=options.partial,
    )
    _check_routing(options.routing, settings)
    with Interrupts(screen) as interrupts:
        try:
            async with _endpoint(target, settings) as endpoint:
                if endpoint.stand_in:
                    screen.paragraph(NOTICE)
                job = job_for(target, options, endpoint)
                async with _engine(job, endpoint, settings, options) as engine:
                    return await _Show(job, options, screen, endpoint).run(engine, interrupts)
        except asyncio.CancelledError:
            if interrupts.arrived is None:
                raise
            return interrupts.code  # it came before anything ran


def _check_routing(routing: str | None, settings: Settings) -> None:
    """Refuse to choose where there is no choice.

    Raises:
        DefinitionError: A routing is given, and not several endpoints.
    """
    if routing is not None and len(settings.base_urls) < 2:
        raise DefinitionError(
            "--routing chooses between several endpoints: give --base-url once for each of them, "
            "or leave --routing out"
        )


@asynccontextmanager
async def _endpoint(target: Target, settings: Settings) -> AsyncIterator[Endpoint]:
    """Where models are; only a question needs to know before it starts."""
    if isinstance(target, Question):
        async with reach(settings) as endpoint:
            yield endpoint
    else:
        yield Endpoint(settings)


def _engine(job: Job, endpoint: Endpoint, settings: Settings, options: Any) -> Engine:
    return Engine(
        tools=job.tools,
        model=endpoint.backend or endpoint.settings.model or None,
        base_url=endpoint.settings.base_urls,
        routing=options.routing or ROUTINGS[0],
        api_key=endpoint.settings.api_key,
        prices=prices(options),
        estimates=estimates(options),
        cache=caching(options, settings),
        speculation=speculation(options, settings),
        partial=settings.partial,
    )


class _Show:
    """One run on the command line, from its start to its exit code."""

    def __init__(self, job: Job, options: Any, screen: Screen, endpoint: Endpoint) -> None:
        self._job = job
        self._options = options
        self._screen = screen
        self._endpoint = endpoint
        self._tally = Tally()
        self._progress = Progress(screen, self._tally)
        self._replicas: list[ReplicaReport] = []

    async def run(self, engine: Engine, interrupts: Interrupts) -> int:
        """Run it and show it; the exit code."""
        backlog = Backlog(engine.limits.unread)
        engine.subscribe(backlog.put)
        run = engine.start(self._job.target, *self._job.args, **self._job.kwargs)
        interrupts.cancel = lambda: run.cancel(reason="interrupted")
        answer = AnswerWriter(sys.stdout, self._screen, run.id)
        try:
            await self._follow(run, backlog, answer)
        finally:
            self._screen.clear()
            if not run.done:
                run.cancel(reason="nobody reads its output any more")
            await run.ended()
        self._replicas = replicas(engine)
        try:
            value = await run
        except RunError as error:
            answer.close()
            if isinstance(error, DeadlineExceeded):
                error.__cause__ = unanswered(self._replicas)
            code = interrupts.code if interrupts.arrived else codes.code_of(error)
            self._failed(error, run, code)
            return code
        self._succeeded(value, run, answer)
        return codes.OK

    async def _follow(self, run: Run[Any], backlog: Backlog, answer: AnswerWriter) -> None:
        """Show the events until the last one of the run."""
        readers = self._readers(answer)
        while True:
            event = await self._next(backlog)
            for read in readers:
                read(event)
            self._progress.tick(event.at)
            if isinstance(event, events.TERMINAL) and event.run == run.id:
                return

    async def _next(self, backlog: Backlog) -> events.Event:
        while True:
            try:
                async with asyncio.timeout(REDRAW if self._screen.live else None):
                    return await backlog.get()
            except TimeoutError:
                self._progress.tick(now())

    def _readers(self, answer: AnswerWriter) -> list[Reader]:
        readers: list[Reader] = [self._tally.take, self._progress.take]
        if self._options.events:
            readers.append(lambda event: print_json(event.as_dict()))
        elif self._job.streams and not self._options.json:
            readers.append(answer.take)
        return readers

    def _succeeded(self, value: Any, run: Run[Any], answer: AnswerWriter) -> None:
        shown = self._job.shown(value)
        if self._options.json:
            key = "answer" if self._job.streams else "result"
            print_json({"ok": True, key: shown, "error": None, **self._account(run)})
        elif self._job.streams and not self._options.events:
            answer.finish(shown, self._footer())
        elif not self._options.events:
            show(as_text(shown))
        self._sum_up(run)

    def _footer(self) -> str:
        if not self._endpoint.stand_in:
            return ""
        return self._screen.wrapped(FOOTER) if stdout_is_terminal() else FOOTER

    def _failed(self, error: RunError, run: Run[Any], code: int) -> None:
        calls = {c.node: c for c in self._tally.calls.values() if c.run == run.id}
        if self._options.debug and error.__cause__ is not None:
            import traceback

            self._screen.paragraph("".join(traceback.format_exception(error.__cause__)).rstrip())
        for line in finished(self._tally, error.results, run.id):
            self._screen.line(line)
        self._sum_up(run)
        self._screen.insist(f"agentflow run: {explained(error, calls)}")
        if self._options.json:
            print_json({**failure_json(error, code, calls), **self._account(run)})

    def _account(self, run: Run[Any]) -> dict[str, Any]:
        """What the JSON of a run says besides how it ended."""
        return {
            "run": run.id,
            "stand_in": self._endpoint.stand_in,
            "seconds": round(self._tally.seconds, 6),
            "usage": self._tally.usage(),
            "prompts": self._tally.prompts.as_dict(self._replicas),
            "limits": used(run.ledger, self._tally.seconds),
            "allocation": self._tally.samples.as_dict(),
            "passes": passes(run),
            **self._tally.savings.as_dict(),
            "partial": self._tally.parts.as_dict(),
            "calls": [call.as_dict() for call in self._tally.calls.values()],
        }

    def _sum_up(self, run: Run[Any]) -> None:
        for line in (*summary(self._tally, run), *unwell(self._replicas)):
            self._screen.paragraph(line)
        if run.unfinished:
            names = ", ".join(run.unfinished)
            self._screen.paragraph(f"still being cleaned up: {names}")
