"""How an engine makes runs: new ones, nested ones, and those that go on from a journal."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from agentflow import clock
from agentflow.answering import Answering
from agentflow.budgets.budget import Budget
from agentflow.budgets.ledger import NOTHING, Amount, Ledger
from agentflow.errors import DefinitionError, JournalError, WorkflowError
from agentflow.executor.audience import Subscriber
from agentflow.executor.bodies import plan_body
from agentflow.executor.journal.book import InDoubt
from agentflow.executor.run import Body, Run
from agentflow.executor.services import Services
from agentflow.executor.sessions.state import SessionState
from agentflow.executor.strategies.task import Task
from agentflow.planner.plan import Plan
from agentflow.planner.verify import verify
from agentflow.resuming import (
    Before,
    check_policy,
    check_same,
    described,
    read_before,
    revived,
    with_arguments,
    with_budget,
)
from agentflow.sessions import turn_of
from agentflow.starting import Starter, Target
from agentflow.tools.approval import Answerer
from agentflow.tools.tool import Tool
from agentflow.tools.toolbox import Toolbox
from agentflow.workflows import Workflow

if TYPE_CHECKING:
    from agentflow.executor.journal.book import Book, Paper
    from agentflow.executor.journal.journal import Journal
    from agentflow.executor.journal.values import Encoder
    from agentflow.tenants import Tenant

T = TypeVar("T")
AnyTool = Tool[..., Any]

REMEMBERED = 4096
"""Runs that may go on of which an engine remembers what it has counted for them."""


class Maker(Answering, Starter):
    """The half of an engine that makes runs; the other half is what they share.

    Args:
        journal: Where runs are kept, or None.
        answerer: Asked before calls that are not to be made unasked, or None.
        subscribers: Called with every event of every run.
        seed: Makes the chance in runs repeatable.

    Attributes:
        tools: Tools that plans and tasks may call.
        services: What runs share.
        plain_models: Names of models whose backend takes no JSON schema.
        journal: As given.
    """

    tools: Toolbox
    services: Services

    def __init__(
        self,
        journal: Journal | None,
        answerer: Answerer | None,
        subscribers: Iterable[Subscriber],
        seed: int | None,
    ) -> None:
        super().__init__(answerer)
        self.plain_models: set[str] = set()
        self.journal = journal
        self._encoder: Encoder | None = None
        self._counted: dict[str, Amount] = {}  # what runs that may go on have spent here
        self._going: WeakValueDictionary[str, Run[Any]] = WeakValueDictionary()
        self._verified: tuple[Plan | None, list[AnyTool]] = (None, [])
        self._subscribers = list(subscribers)
        self._seed = seed
        self._prefix = secrets.token_hex(4)
        self._count = itertools.count(1)
        self._closed = False

    def model(self, name: str | None = None) -> Any:
        """A model by name."""
        raise NotImplementedError

    def tenant(self, name: str, budget: Budget | None = None) -> Tenant:
        """Somebody whose runs together keep within a budget."""
        raise NotImplementedError

    def plan(self, text: str, *, tools: Iterable[AnyTool] | None = None) -> Plan:
        """Read a plan."""
        raise NotImplementedError

    def start_child(
        self,
        workflow: Workflow[..., T],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        parent: Run[Any],
        place: int | str,
    ) -> Coroutine[Any, Any, T]:
        """Run a workflow within another run: its deadline and budget lie within its parent's."""
        if parent.depth >= self.services.limits.depth:
            raise WorkflowError(
                f"{workflow.name} is called {parent.depth} workflows deep: end the recursion, "
                "or allow more with Limits(depth=...)"
            )
        run: Run[T] = self._new(
            workflow.name,
            workflow.body(args, kwargs),
            workflow.toolbox(self.tools),
            parent.subscribers,
            self._ledger(parent.ledger, workflow.budget),
            parent=(parent, int(str(place).partition("[")[0])),
            path=parent.naming.path_of(place),
        )
        return run.start().result()

    # Going on

    async def _go_on(
        self,
        run: str,
        given: Target,
        in_doubt: InDoubt,
        budget: Budget | None,
        tenant: str | None = None,
    ) -> Run[Any]:
        check_policy(in_doubt)
        journal = self._opened()
        await journal.durable()  # it may have just begun
        row = await journal.ask(journal.store.run, run)
        if tenant not in (None, row.tenant):
            path = str(journal.store.path)
            raise JournalError(f"tenant {tenant!r} has no run {run!r}", path=path, run=run)
        if (going := self._going.get(row.id)) is not None and going.done:
            await going.ended()  # it has answered, and cleans up
        journal.take(row.id)
        work, ends_by_itself = self._before(journal, row.id, in_doubt, budget), lambda: None
        reading = self.services.spawn(work, f"what run {row.id} did", ends_by_itself)
        try:
            before = await asyncio.shield(reading)
            if given.what is None:
                found = revived(before.row.target, self.tools, self.plan)
                args, kwargs = given.args or found.args, given.kwargs or found.kwargs
                given = Target(found.what, args, kwargs)
            elif not given.args and not given.kwargs:
                given = with_arguments(given, before.row.target)
            check_same(before.row, given)
            if budget is not None:
                journal.update(row.id, target=with_budget(before.row.target, budget))
            return self._make(replace(given, tenant=row.tenant), (), before).start()
        except BaseException:
            rest = partial(_rest, journal, row.id)
            if reading.done():
                rest(reading)
            else:  # whoever waited was cancelled, which stops no thread
                reading.add_done_callback(rest)
            raise

    async def _before(
        self, journal: Journal, run: str, in_doubt: InDoubt, budget: Budget | None
    ) -> Before:
        """What a run did, which is this engine's to go on with from now on."""
        await journal.durable()  # what was said of it last
        return await journal.ask(read_before, journal.store, run, in_doubt, budget)

    def rerun(self, target: Target, before: Before, paper: Paper) -> Run[Any]:
        """Begin a run again against what it did, writing to another place than the journal."""
        return self._make(target, (), before, paper).start()

    def _opened(self) -> Journal:
        if self.journal is None:
            raise DefinitionError("runs are kept by an engine that has a journal=")
        return self.journal

    # Making

    def _make(
        self,
        target: Target,
        subscribers: tuple[Subscriber, ...],
        before: Before | None = None,
        paper: Paper | None = None,
    ) -> Run[Any]:
        """A run that has not begun.

        Args:
            target: What it is of.
            subscribers: Called with its events.
            before: What it goes on from, or None.
            paper: Where it is written down; the engine's journal by default.
        """
        if self._closed:
            raise DefinitionError("this engine is closed: make a new one")
        if isinstance(target.what, str | SessionState):
            target = replace(target, what=_task(target), args=(), kwargs={})
        within = self.tenant(target.tenant).ledger if target.tenant else self.ledger
        what = target.what
        tools: Mapping[str, AnyTool]
        limits: Budget | None
        if isinstance(what, Workflow):
            name, limits = what.name, what.budget
            body, tools = what.body(target.args, target.kwargs), what.toolbox(self.tools)
        elif isinstance(what, Plan):
            name, (tools, limits) = "plan", self._plan_options(what, **target.kwargs)
            body = plan_body(what)
        elif isinstance(what, Task):
            name, body, limits = "task", what.body(), what.budget
            tools = what.toolbox(self.tools)
        else:
            raise DefinitionError(
                "an engine runs a @workflow with its arguments, as in run(flow, 3) and not "
                f"run(flow(3)), a Plan, a Task or a sentence, not {what!r}"
            )
        return self._new(
            name,
            body,
            tools,
            subscribers,
            self._ledger(within, limits, before),
            fail_fast=isinstance(what, Plan),
            repeats=isinstance(what, Workflow),
            target=target,
            before=before,
            paper=paper,
        )

    def _plan_options(
        self,
        plan: Plan,
        *,
        tools: Iterable[AnyTool] | None = None,
        deadline: float | str | None = None,
        budget: Budget | None = None,
    ) -> tuple[Toolbox, Budget | None]:
        """The tools that a plan may call, and what it may spend."""
        box = self.tools if tools is None else Toolbox(tools)
        self._verify(plan, box)
        if deadline is not None:
            budget = replace(budget or Budget(), deadline=Budget(deadline=deadline).deadline)
        return box, budget

    def _verify(self, plan: Plan, tools: Toolbox) -> None:
        """Verify a plan; not again if it is the one that was run last, with the same tools."""
        kinds = [tool.origin for tool in tools.values()]
        last, known = self._verified
        if last is not plan or known != kinds:
            verify(plan, {name: tool.spec for name, tool in tools.items()}, after="reading")
            self._verified = plan, kinds

    def _ledger(
        self, within: Ledger, budget: Budget | None, before: Before | None = None
    ) -> Ledger:
        """What a run may spend, and has."""
        time = asyncio.get_running_loop().time
        if before is None:
            ledger = within.child(budget)
            ledger.begin(time)
            return ledger
        ledger = within.child(before.budget or budget or before.began_with)
        ledger.begin(time, before=before.history.seconds)
        counted = self._counted.get(before.row.id, NOTHING)
        ledger.carry(before.history.usd, before.history.tokens, counted)
        return ledger

    def _new(
        self,
        name: str,
        body: Body[T],
        tools: Mapping[str, AnyTool],
        subscribers: tuple[Subscriber, ...],
        ledger: Ledger,
        *,
        parent: tuple[Run[Any], int] | None = None,
        fail_fast: bool = False,
        repeats: bool = False,
        path: str = "",
        target: Target | None = None,
        before: Before | None = None,
        paper: Paper | None = None,
    ) -> Run[T]:
        number = next(self._count)
        identity = before.row.id if before is not None else f"{self._prefix}-{number}"
        kept = paper or self.journal
        book = None
        if target is not None and kept is not None:
            book = self._book(kept, identity, name, target, before)
        run = Run(
            self,
            identity,
            name,
            body,
            tools=tools,
            subscribers=subscribers if parent else (*self._subscribers, *subscribers),
            parent=parent,
            ledger=ledger,
            fail_fast=fail_fast,
            repeats=repeats,
            path=path,
            seed=None if self._seed is None else self._seed + number,
            book=book,
        )
        if target is not None:
            run.tenant = target.tenant
        if book is not None and paper is None:
            self._attend(run, new=before is None)
        if parent is None and (watchdog := self.services.watchdog()) is not None:
            watchdog.attend(run)
            run.audience.last_words[partial(watchdog.leave, run)] = None
        return run

    def _attend(self, run: Run[Any], *, new: bool) -> None:
        """Nobody else goes on with a run before it is over; what it spent is counted once."""
        journal, self._going[run.id] = self._opened(), run
        if new:
            journal.take(run.id)

        def over(_: asyncio.Future[None]) -> None:
            journal.release(run.id)
            self._counted.pop(run.id, None)
            spent = run.ledger.spent + run.ledger.reserved
            goes_on = not run.done or run._future.exception() is not None
            if goes_on and spent != NOTHING:
                self._counted[run.id] = spent  # the newest is the last
            if len(self._counted) > REMEMBERED:
                del self._counted[next(iter(self._counted))]

        run._over.add_done_callback(over)

    def _book(
        self, paper: Paper, identity: str, name: str, target: Target, before: Before | None
    ) -> Book:
        """Where a run is written down, from its beginning or from where it broke off."""
        from agentflow.executor.journal.book import Book
        from agentflow.executor.journal.recall import Recall
        from agentflow.executor.journal.values import Encoder

        self._encoder = self._encoder or Encoder()
        loop = asyncio.get_running_loop()
        if before is None:
            data = described(target)
            book = Book(paper, identity, loop, self._encoder)
            book.open({"name": name, "kind": data["kind"], "target": data, "began": clock.wall()})
            return book
        ordered = not (before.live and isinstance(target.what, Task))
        recall = Recall(before.history, loop, ordered=ordered, live=before.live)
        book = Book(paper, identity, loop, self._encoder, recall, before.in_doubt, before.row)
        book.open({}, again=before.again)
        return book


def _rest(journal: Journal, run: str, reading: asyncio.Future[Before]) -> None:
    """Nobody goes on with a run after all: it rests as it did."""
    if not reading.cancelled() and reading.exception() is None:
        journal.update(run, state=reading.result().row.state)
    journal.release(run)


def _task(target: Target) -> Task:
    """A sentence, or what is said in a session, as a task.

    Raises:
        DefinitionError: It is not said what.
    """
    if isinstance(target.what, str):
        return Task(target.what, *target.args, **target.kwargs)
    args, fields = target.args, dict(target.kwargs)
    said = args[0] if args else fields.pop("said", None)
    if len(args) > 1 or not isinstance(said, str):
        raise DefinitionError("a session is run with what the user says: run(session, 'Hello')")
    return turn_of(target.what, said, **fields)
