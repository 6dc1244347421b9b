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
from agentflow.budgets.ledger import Ledger
from agentflow.errors import DefinitionError, JournalError, WorkflowError
from agentflow.executor.audience import Subscriber
from agentflow.executor.bodies import plan_body, workflow_body
from agentflow.executor.journal.book import InDoubt
from agentflow.executor.run import Body, Run
from agentflow.executor.services import Services
from agentflow.executor.strategies.task import Task
from agentflow.planner.plan import Plan
from agentflow.planner.verify import verify
from agentflow.resuming import Before, described, read_before, revived
from agentflow.starting import Starter, Target
from agentflow.tools.approval import Answerer
from agentflow.tools.tool import Tool
from agentflow.tools.toolbox import Toolbox
from agentflow.workflows import Workflow

if TYPE_CHECKING:
    from agentflow.executor.journal.book import Book, Paper
    from agentflow.executor.journal.journal import Journal
    from agentflow.executor.journal.values import Encoder

T = TypeVar("T")
AnyTool = Tool[..., Any]


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
            _body_of(workflow, args, kwargs),
            {},
            parent.subscribers,
            self._ledger(parent.ledger, workflow.budget),
            parent=(parent, int(str(place).partition("[")[0])),
            path=parent.naming.path_of(place),
        )
        return run.start().result()

    # Going on

    async def resume(self, run: str, target: Any = None, **options: Any) -> Any:
        """Go on with a run that broke off, was paused, was cancelled or failed; its value.

        Calls that ended are not made again, and what was spent counts. Only the seconds count for
        its deadline in which it ran. Of a run that failed, what failed is tried again.

        Args:
            run: Its id, or how it begins.
            target: As for `start`, where the run's own cannot be found again by its name.
            **options: See `reopen`.

        Raises:
            JournalError: There is no such run, it has finished, or somebody goes on with it.
            HistoryMismatch: The program is another one than it began with; nothing was called.
            RunError: It failed, was cancelled, or passed its deadline.
        """
        return await (await self.reopen(run, target, **options))

    async def reopen(
        self,
        run: str,
        target: Any = None,
        *,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        in_doubt: InDoubt = "ask",
        budget: Budget | None = None,
    ) -> Run[Any]:
        """Begin to go on with a run; await it for its value. See `resume`.

        Args:
            run: Its id, or how it begins.
            target: As for `start`, where the run's own cannot be found again by its name.
            args: For the target.
            kwargs: For the target.
            in_doubt: What becomes of calls that may write, and may have been made when the run
                broke off: somebody is to be asked, they are made again, or they fail.
            budget: In place of the one that it began with.
        """
        journal = self._opened()
        row = await journal.ask(journal.store.run, run)
        if (going := self._going.get(row.id)) is not None and not going.over:
            path = str(journal.store.path)
            raise JournalError(f"run {row.id} is going on in this engine", path=path, run=row.id)
        before = await journal.ask(read_before, journal.store, row, in_doubt, budget)
        try:
            given = Target(target, args, kwargs or {})
            if target is None:
                found = revived(row.target, self.tools, self.plan)
                given = replace(found, args=args or found.args, kwargs=kwargs or found.kwargs)
            return self._make(given, (), self.ledger, before).start()
        except Exception:
            journal.update(row.id, state=row.state)  # it rests as it did
            raise

    def rerun(self, target: Target, before: Before, paper: Paper) -> Run[Any]:
        """Begin a run again against what it did, writing to another place than the journal."""
        return self._make(target, (), self.ledger, before, paper).start()

    def _opened(self) -> Journal:
        if self.journal is None:
            raise DefinitionError("runs are kept by an engine that has a journal=")
        return self.journal

    # Making

    def _make(
        self,
        target: Target,
        subscribers: tuple[Subscriber, ...],
        within: Ledger,
        before: Before | None = None,
        paper: Paper | None = None,
    ) -> Run[Any]:
        """A run that has not begun.

        Args:
            target: What it is of.
            subscribers: Called with its events.
            within: What it may spend lies within this.
            before: What it goes on from, or None.
            paper: Where it is written down; the engine's journal by default.
        """
        if self._closed:
            raise DefinitionError("this engine is closed: make a new one")
        if isinstance(target.what, str):
            target = Target(Task(target.what, *target.args, **target.kwargs))
        what, tools, limits = target.what, Toolbox(), None
        if isinstance(what, Workflow):
            name, limits = what.name, what.budget
            body = _body_of(what, target.args, target.kwargs)
        elif isinstance(what, Plan):
            name, (tools, limits) = "plan", self._plan_options(what, **target.kwargs)
            body = plan_body(what)
        elif isinstance(what, Task):
            name, body, limits = "task", what.body(), what.budget
            tools = Toolbox(what.tools) if what.tools is not None else self.tools
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
            paper=paper or self.journal,
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
        ledger = within.child(before.budget or budget)
        ledger.begin(time, before=before.history.seconds)
        ledger.carry(before.history.usd, before.history.tokens)
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
        identity = before.run if before is not None else f"{self._prefix}-{number}"
        book = None
        if target is not None and paper is not None:
            book = self._book(paper, identity, name, target, before)
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
        if book is not None:
            self._going[identity] = run
        if parent is None and (watchdog := self.services.watchdog()) is not None:
            watchdog.attend(run)
            run.audience.last_words[partial(watchdog.leave, run)] = None
        return run

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
        book = Book(paper, identity, loop, self._encoder, recall, before.in_doubt)
        book.open({}, again=before.again)
        return book


def _body_of(
    workflow: Workflow[..., T], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Body[T]:
    """What a run of a workflow does; its arguments are checked at once."""
    args, kwargs = workflow.signature.validate(args, dict(kwargs))
    return workflow_body(workflow.fn, args, kwargs, workflow.signature.check_result)
