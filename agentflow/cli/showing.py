"""Shows a run on the command line, from its start to its exit code."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from agentflow import events
from agentflow.cli import codes
from agentflow.cli.account.accounts import Account, account_of
from agentflow.cli.account.spending import passes, used
from agentflow.cli.account.tally import Tally
from agentflow.cli.answer import AnswerWriter
from agentflow.cli.endpoint import FOOTER, Endpoint
from agentflow.cli.failures import Calls, explained, failure_json
from agentflow.cli.interrupts import Interrupts
from agentflow.cli.jobs import Job
from agentflow.cli.journals import words_for
from agentflow.cli.listing import DENIED, asks_of
from agentflow.cli.output import as_text, counted, print_json, stdout_is_terminal
from agentflow.cli.progress import REDRAW, Progress
from agentflow.cli.rows import Row, heads
from agentflow.cli.screen import Screen, show
from agentflow.cli.serving import replicas, unanswered, unwell
from agentflow.cli.summary import finished, summary
from agentflow.clock import now
from agentflow.engine import Engine
from agentflow.errors import ApprovalDenied, DeadlineExceeded, JournalError, RunError, RunPaused
from agentflow.executor.backlog import Backlog
from agentflow.executor.run import Run
from agentflow.wording import root_cause

if TYPE_CHECKING:
    from agentflow.executor.affinity.replica import ReplicaReport

Reader = Callable[[events.Event], None]
Begin = Callable[[Engine], Awaitable[Run[Any]]]
"""Begins a run, or begins to go on with one."""


class Show:
    """One run on the command line, from its start to its exit code."""

    def __init__(self, job: Job, options: Any, screen: Screen, endpoint: Endpoint) -> None:
        self._name = f"agentflow {options.command}"
        self._job = job
        self._options = options
        self._screen = screen
        self._endpoint = endpoint
        self._tally = Tally()
        self._progress = Progress(screen, self._tally)
        self._replicas: list[ReplicaReport] = []
        self._journal = ""

    async def run(self, engine: Engine, begin: Begin, interrupts: Interrupts) -> int:
        """Run it and show it; the exit code."""
        backlog = Backlog(engine.limits.unread)
        engine.subscribe(backlog.put)
        if engine.journal is not None:
            self._journal = str(engine.journal.store.path)
        run = await begin(engine)
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
        shown, account = self._job.shown(value), account_of(self._tally, run)
        if self._options.json:
            key = "answer" if self._job.streams else "result"
            print_json({"ok": True, key: shown, "error": None, **self._account(run, account)})
        elif self._job.streams and not self._options.events:
            answer.finish(shown, self._footer())
        elif not self._options.events:
            show(as_text(shown))
        self._sum_up(run, account)

    def _footer(self) -> str:
        if not self._endpoint.stand_in:
            return ""
        return self._screen.wrapped(FOOTER) if stdout_is_terminal() else FOOTER

    def _failed(self, error: RunError, run: Run[Any], code: int) -> None:
        account = account_of(self._tally, run, error)
        calls = {c.node: c for c in self._tally.calls.values() if c.run == run.id}
        if self._options.debug and error.__cause__ is not None:
            import traceback

            self._screen.paragraph("".join(traceback.format_exception(error.__cause__)).rstrip())
        for line in finished(self._tally, error.results, run.id):
            self._screen.line(line)
        self._sum_up(run, account)
        resume = self._resume(run, error)
        for line in self._told(error, run, calls):
            self._screen.insist(line)
        if resume is not None:
            self._screen.paragraph(f"to go on: {resume}")
        elif isinstance(root_cause(error), ApprovalDenied):
            self._screen.paragraph(DENIED)
        if self._options.json:
            asks = error.asks if isinstance(error, RunPaused) else ()
            told = {**failure_json(error, code, calls), "resume": resume, "asks": list(asks)}
            print_json({**told, **self._account(run, account)})

    def _told(self, error: RunError, run: Run[Any], calls: Calls) -> Iterator[str]:
        if isinstance(error, RunPaused):
            yield f"{self._name}: {run.name} waits for {counted(len(error.asks), 'answer')}."
            yield from asks_of(run.id, error.asks, self._options)
        else:
            yield f"{self._name}: {explained(error, calls)}"

    def _resume(self, run: Run[Any], error: RunError) -> str | None:
        """The command that goes on with a run that is kept."""
        if not self._journal or isinstance(root_cause(error), JournalError | ApprovalDenied):
            return None  # it is not kept, or would end in the same way again
        return words_for("resume", run.id, self._options)

    def _account(self, run: Run[Any], account: Account) -> dict[str, Any]:
        """What the JSON of a run says besides how it ended."""
        return {
            "run": run.id,
            "journal": self._journal or None,
            "stand_in": self._endpoint.stand_in,
            "seconds": round(self._tally.seconds, 6),
            "usage": self._tally.usage(),
            "prompts": self._tally.prompts.as_dict(self._replicas),
            "limits": used(run.ledger),
            "allocation": self._tally.samples.as_dict(),
            "passes": passes(run),
            **self._tally.savings.as_dict(),
            "partial": self._tally.parts.as_dict(),
            **account.as_dict(),
            "calls": [call.as_dict() for call in self._tally.calls.values()],
        }

    def _sum_up(self, run: Run[Any], account: Account) -> None:
        rows = list(summary(self._tally, run, account))
        rows += [Row("replicas", line) for line in unwell(self._replicas)]
        for head, text in heads(rows):
            self._screen.row(head, text)
        if run.unfinished:
            names = ", ".join(run.unfinished)
            self._screen.paragraph(f"still being cleaned up: {names}")
