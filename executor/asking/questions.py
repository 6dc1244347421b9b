"""What one outermost run asks somebody, and waits for.

Calls that wait for answers hold up nobody else. When nothing else of the run goes on either, and
it has a journal, it is set aside: it ends with `RunPaused`, and asks again when it is resumed.
"""

from __future__ import annotations

import asyncio
import inspect
import shlex
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from agentflow import events
from agentflow.budgets.ledger import NOTHING
from agentflow.errors import DefinitionError, JournalError
from agentflow.executor.asking import answering
from agentflow.executor.calls.bound import Tracked
from agentflow.tools.approval import Answer, Question, read_answer
from agentflow.wording import described

if TYPE_CHECKING:
    from agentflow.executor.journal.journal import Journal
    from agentflow.executor.run import Run

MOMENT = 0.25
"""Seconds for which nothing else of a run goes on before it is set aside."""

POLL = 1.0
"""Seconds between two looks for answers that another process gave."""

BY_CALLBACK = "Engine(approve=...)"

_log = structlog.get_logger("agentflow.executor")


@dataclass(slots=True, eq=False)
class _Open:
    """A question that nobody has answered yet.

    Attributes:
        question: What is asked.
        run: Whose call it is about: the outermost run, or one nested in it.
        slot: The call.
        answered: Done when there is an answer.
        deciding: Asks the engine's callback, or None.
    """

    question: Question
    run: Run[Any]
    slot: int
    answered: asyncio.Future[Answer]
    deciding: asyncio.Task[Any] | None = None

    def settle(self, answer: Answer) -> None:
        """There is an answer, unless there was one."""
        if not self.answered.done():
            self.answered.set_result(answer)

    def fail(self, error: Exception) -> None:
        """There will be no answer, unless there was one."""
        if not self.answered.done():
            self.answered.set_exception(error)


class Questions:
    """Asks for one outermost run and the runs nested in it.

    Args:
        run: The outermost run.
    """

    def __init__(self, run: Run[Any]) -> None:
        self._run = run
        self._open: dict[str, _Open] = {}
        self._nudge = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._paused = False
        self._waited = 0.0  # seconds in which nothing else went on, until they are written down

    @property
    def _journal(self) -> Journal | None:
        return self._run.host.journal if self._run.notes is not None else None

    async def ask(self, run: Run[Any], slot: int, question: Question) -> Answer:
        """Ask about a call, and wait for the answer.

        Args:
            run: Whose call it is.
            slot: The call.
            question: What is asked.

        Raises:
            DefinitionError: There is nobody to ask.
            JournalError: The question cannot be written down.
        """
        answer = await self.known(question)
        if answer is None:
            answer = await self._asked(_Open(question, run, slot, run.driver.loop.create_future()))
        told = run.driver.state.where(slot)
        said = (question.id, answer.verdict, answer.why, answer.by)
        at = run.now()
        event = events.QuestionAnswered(run.id, at, told[0], question.tool, told[1], *said)
        run.audience.tell_of_call(event)
        return answer

    async def known(self, question: Question) -> Answer | None:
        """The answer that was given before, or None."""
        if self._journal is None or self._run.notes is None or self._run.notes.recall is None:
            return None
        found = await self._journal.ask(self._journal.store.answers, self._run.id)
        stored = found.get(question.id)
        return None if stored is None else answering.read(stored)

    async def _asked(self, entry: _Open) -> Answer:
        question, run = entry.question, entry.run
        if self._journal is None and self._run.host.answerer is None:
            raise _unanswered(question, "there is nobody to ask: give Engine(approve=...), or")
        self._open[question.id] = entry
        run.driver.waiting.add(entry.slot)
        node, element = run.driver.state.where(entry.slot)
        told = (question.id, question.kind, question.call, question.why)
        event = events.QuestionAsked(run.id, run.now(), node, question.tool, element, *told)
        run.audience.tell_of_call(event)
        try:
            self._list()
            if run.notes is not None:
                await run.notes.book.durable()
            self._attend(entry)
            return await entry.answered
        finally:
            self._close(entry)

    def _attend(self, entry: _Open) -> None:
        """See to it that somebody answers."""
        host = self._run.host
        host.asking[self._run.id] = self
        spawn = host.services.spawn
        if host.answerer is not None:
            name = f"asking about {entry.question.tool} (run {self._run.id})"
            entry.deciding = spawn(self._decide(entry), name)
        self._nudge.set()
        if self._watch is None:
            self._watch = spawn(self._watching(), f"questions of run {self._run.id}")

    def _close(self, entry: _Open) -> None:
        del self._open[entry.question.id]
        entry.run.driver.waiting.discard(entry.slot)
        if entry.deciding is not None:
            entry.deciding.cancel()
        if self._waited and self._run.notes is not None:
            self._run.notes.waited(self._waited)
            self._waited = 0.0
        if not self._paused:
            self._list()
        if not self._open:
            self._run.host.asking.pop(self._run.id, None)
            if self._watch is not None:
                self._watch.cancel()
                self._watch = None

    def _list(self) -> None:
        """Have lists of runs show what is asked."""
        if self._run.notes is not None:
            self._run.notes.book.update(asks=self.listed())

    def listed(self) -> list[dict[str, Any]]:
        """What is asked, as lists of runs show it."""
        return [entry.question.listed() for entry in self._open.values()]

    # Answers

    def answer(self, question: str | None, given: Answer) -> None:
        """Somebody answers, without a journal.

        Raises:
            LookupError: It is not asked, or there are several questions.
            DefinitionError: It is no answer to the question.
        """
        ask = answering.pick(self.listed(), question, self._run.id)
        answering.check(ask, given)
        self._open[ask["question"]].settle(answering.stated(given))
        self._nudge.set()

    def nudge(self) -> None:
        """There may be an answer in the journal."""
        self._nudge.set()

    async def _decide(self, entry: _Open) -> None:
        """Ask the engine's callback; it is as if somebody had answered in the journal."""
        try:
            answer = read_answer(await self._call(entry.question))
            if answer is not None:
                answering.check(entry.question.listed(), answer)
                await self._keep(entry, answer)
            elif self._journal is None:
                left = (
                    f"{BY_CALLBACK} left it open, for which nothing waits without a journal: give"
                )
                raise _unanswered(entry.question, left)
        except Exception as error:  # noqa: BLE001  # whatever the callback raises
            if self._journal is None:
                entry.fail(error)
            else:  # it stays open
                _log.warning("Engine(approve=...) failed", error=described(error))
        finally:
            entry.deciding = None
            self._nudge.set()

    async def _call(self, question: Question) -> Any:
        answerer, services = self._run.host.answerer, self._run.host.services
        assert answerer is not None
        if _is_async(answerer):
            return await answerer(question)  # type: ignore[misc]  # seen just now
        tracked = Tracked(services.threads)
        try:
            found = await self._run.driver.loop.run_in_executor(tracked, answerer, question)
        except asyncio.CancelledError:
            tracked.abandon(None)
            raise
        return await found if inspect.isawaitable(found) else found

    async def _keep(self, entry: _Open, answer: Answer) -> None:
        """Write an answer down before it counts; one that another process gave first stays."""
        journal, question = self._journal, entry.question.id
        if journal is None:
            entry.settle(answering.stated(answer))
            return
        await journal.durable()
        by = answer.by or BY_CALLBACK
        given = Answer(answer.verdict, answer.why, answer.value, by)
        with suppress(JournalError):
            await journal.ask(answering.answer, journal.store, self._run.id, question, given)
        await self._look()

    async def _look(self) -> None:
        """See what was answered in the journal."""
        if (journal := self._journal) is None:
            return
        try:
            await journal.durable()
            found = await journal.ask(journal.store.answers, self._run.id)
        except JournalError as error:
            _log.warning("answers cannot be looked for", run=self._run.id, error=str(error))
            return
        for question, stored in found.items():
            if (entry := self._open.get(question)) is not None:
                entry.settle(answering.read(stored))

    # Waiting

    async def _watching(self) -> None:
        """Look for answers while questions are open, and set the run aside when nothing goes on."""
        still = False  # for a moment by now
        while self._open:
            self._nudge.clear()
            await self._look()
            runs = self._resting()
            idle = bool(runs) and self._journal is not None and not self._deciding()
            if idle and still:
                self._pause()
                return
            news = await self._news(MOMENT if idle else POLL, runs)
            still = idle and not news

    async def _news(self, seconds: float, runs: Collection[Run[Any]]) -> bool:
        """Wait for news, for so long at most, which does not count for these runs."""
        began = self._run.now()
        for run in runs:
            run.hold()
        try:
            async with asyncio.timeout(seconds if self._polls() else None):
                await self._nudge.wait()
        except TimeoutError:
            return False
        finally:
            self._put_off(runs, self._run.now() - began)
        return True

    def _put_off(self, runs: Collection[Run[Any]], seconds: float) -> None:
        for run in sorted(runs, key=lambda run: run.depth):
            run.put_off(seconds)
            if run is self._run:
                self._waited += seconds

    def _polls(self) -> bool:
        """Whether there is something to look at that nobody tells of."""
        return self._journal is not None or self._run.deadline is not None

    def _deciding(self) -> bool:
        return any(entry.deciding is not None for entry in self._open.values())

    def _resting(self) -> set[Run[Any]]:
        """The runs whose calls all wait for answers, if nothing else goes on; else none."""
        if self._run.ledger.reserved != NOTHING:
            return set()  # a model replies
        runs: set[Run[Any]] = set()
        for entry in self._open.values():
            if entry.answered.done():
                return set()
            run: Run[Any] | None = entry.run
            while run is not None:
                runs.add(run)
                run = None if run.parent is None else run.parent[0]
        nested = Counter(run.parent for run in runs if run.parent is not None)
        return runs if all(_is_quiet(run, nested) for run in runs) else set()

    def _pause(self) -> None:
        self._paused = True
        run, asks = self._run, self.listed()
        lines = [f"{run.name} waits for {len(asks)} answer{'s'[: len(asks) > 1]} (run {run.id})"]
        for ask in asks:
            name = shlex.quote(answering.handle(ask, asks))
            lines.append(f"{ask['call']}: {ask['why']}")
            lines.append(f"  agentflow approve {run.id} {name}, or agentflow deny {run.id} {name}")
        run.pause("\n".join([*lines, f"then agentflow resume {run.id}"]), asks)


def _unanswered(question: Question, why: str) -> DefinitionError:
    return DefinitionError(
        f"{question.tool} asks before it is called, and {why} Engine(journal=...) to have the run "
        "wait for an answer"
    )


def _is_async(answerer: Any) -> bool:
    """Whether it runs in the loop; what else there is may block."""
    call = getattr(type(answerer), "__call__", None)  # noqa: B004  # of an object that is called
    return inspect.iscoroutinefunction(answerer) or inspect.iscoroutinefunction(call)


def _is_quiet(run: Run[Any], nested: Counter[tuple[Run[Any], int]]) -> bool:
    """Whether every call that runs waits for an answer, or for one of the `nested` runs.

    One that may have written something by now is not cut off, whatever it waits for.
    """
    driver = run.driver
    busy = [slot for slot in driver.started() if slot not in driver.waiting]
    if any(driver.call_of(slot).changes for slot in busy):
        return False
    nodes = Counter(driver.state.where(slot)[0] for slot in busy)
    return all(nested[run, node] >= count for node, count in nodes.items())
