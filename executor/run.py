"""A run: one execution of one plan, workflow or agent task."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from agentflow import events
from agentflow.budgets.ledger import Ledger
from agentflow.context import logged_run, recorder, run_scope
from agentflow.errors import RunCancelled
from agentflow.executor.affinity.conversation import Conversations
from agentflow.executor.asking.inquiry import Inquiry
from agentflow.executor.audience import Audience, Subscriber
from agentflow.executor.calls.answers import Answers
from agentflow.executor.deadline import Deadline
from agentflow.executor.driver import Driver
from agentflow.executor.ending import Ending
from agentflow.executor.host import Host
from agentflow.executor.journal.notes import Notes
from agentflow.executor.naming import Naming
from agentflow.executor.partial.records import PartialStats
from agentflow.executor.speculation.speculator import Speculator
from agentflow.executor.teller import Teller
from agentflow.planner.plan import Plan
from agentflow.tools.tool import Tool

if TYPE_CHECKING:
    from agentflow.executor.allocation.controller import Controller
    from agentflow.executor.journal.book import Book

T = TypeVar("T")

Body = Callable[["Run[T]"], Awaitable[T]]
"""What a run does: a coroutine function that gets the run."""


class Run(Ending[T]):
    """One execution; await it for its value.

    Attributes:
        id: Unique in its engine.
        name: Of the workflow, plan or task.
        parent: The run whose call started it, or None.
        tenant: Name of the tenant that it belongs to, or empty.
        began: Loop time at which the outermost run that it belongs to was made.
        deadline: Loop time after which it gives up, or None.
        root: The outermost run that it belongs to; itself unless another called it.
        depth: How many workflows deep it is; 1 for one that no other called.
        ledger: What it may spend, and has.
        driver: Carries out its calls.
        naming: Names its calls.
        speculator: Starts calls before they are asked for, or None.
        audience: Who is told what happens.
        repeats: It is one of several of its name, from which can be told what they come to.
        allocation: Has calls tried by several models, or None before the first.
        conversations: What its conversations with models share.
        notes: Writes down what happens, and knows what happened before; None without a journal.
        inquiry: Asks somebody before calls that are not to be made unasked.
    """

    def __init__(
        self,
        host: Host,
        identity: str,
        name: str,
        body: Body[T],
        *,
        tools: Mapping[str, Tool[..., Any]],
        subscribers: tuple[Subscriber, ...] = (),
        parent: tuple[Run[Any], int] | None = None,
        ledger: Ledger,
        fail_fast: bool = False,
        repeats: bool = False,
        seed: int | None = None,
        path: str = "",
        book: Book | None = None,
    ) -> None:
        super().__init__(partial(body, self))
        self.host = host
        self.id = identity
        self.name = name
        self.parent = parent
        self.tools = tools
        self.ledger = ledger
        self.depth: int = 1 if parent is None else parent[0].depth + 1
        self.root: Run[Any] = self if parent is None else parent[0].root
        self.chance = random.Random(seed)
        self.tenant: str = "" if parent is None else parent[0].tenant
        self.began: float = self._loop.time() if parent is None else parent[0].began
        self.audience = Audience(identity, self._loop, subscribers)
        self._retracted: set[int] = set()
        self._context = contextvars.copy_context()
        self._context.run(self._enter)
        self.deadline = ledger.deadline
        self.driver = self._make_driver(fail_fast)
        self.naming = Naming(self.root.id, path or name, self._spec)
        self.speculator: Speculator | None = None
        self.allocation: Controller | None = None
        self.conversations = Conversations()
        self.repeats = repeats
        if parent is not None and parent[0].notes is not None:
            book = parent[0].notes.book
        self.notes: Notes | None = None if book is None else Notes(book, self)
        self.audience.notes = self.driver.notes = self.notes
        if self.notes is not None and self.notes.recall is not None:
            self.driver.state.widen()  # calls that wait for what is known keep nobody out
            if parent is None:
                self.notes.recall.refuse = self.refuse
        self.inquiry = self.driver.inquiry = Inquiry(self)

    def _make_driver(self, fail_fast: bool) -> Driver:
        driver = Driver(
            self.host.services,
            self.tool,
            run=self.id,
            context=self._context,
            fail_fast=fail_fast,
            chance=self.chance,
            key=self.idempotency_key,
        )
        driver.broken, driver.ledger, driver.belongs = self._break, self.ledger, self._belongs
        driver.deadline = Deadline.of(self.ledger, self._loop)
        return driver

    def _enter(self) -> None:
        run_scope.set(self)
        recorder.set(None)
        logged_run.set(self.id)

    # For the engine and for bodies

    def start(self) -> Run[T]:
        """Begin; nothing runs before the caller awaits something."""
        if self.parent is not None:
            within = self.parent[0]._within
            within.add(self)
            self._over.add_done_callback(lambda _: within.discard(self))
        self._answer()
        if self.watched:
            tell = self.audience.tell_of_call
            self.driver.teller = Teller(self.id, self._loop, self.driver.state, tell)
        above = (None, None) if self.parent is None else (self.parent[0].id, self.parent[1])
        self.emit(events.RunStarted(self.id, self._loop.time(), self.name, *above))
        self._task = self._context.copy().run(self._spawn, self._supervise())
        self._task.add_done_callback(self._never_began)
        if self.speculator is not None:
            self.speculator.soon()
        if self.deadline is not None:
            if self.deadline <= self._loop.time():
                self._expire()
            else:
                self._timer = self._loop.call_at(self.deadline, self._expire)
        return self

    def _answer(self) -> None:
        """Have the cache, and guesses, answer calls, as far as the engine has them."""
        services = self.host.services
        if (reuse := services.reuse(self.root.id)) is not None:
            if services.foresight is not None:
                self.speculator = Speculator(
                    services.foresight, services, reuse, self, self._context
                )
            self.driver.answers = Answers(self.driver, reuse, self.speculator)
            services.attend(self.driver.answers)

    def said(self, text: str, by: str = "user") -> None:
        """Note what the user, or the model, said: what comes next may depend on it."""
        if self.speculator is not None:
            self.speculator.said(text, by)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        stop = partial(self.cancel, reason="its engine closed")
        return self.host.services.spawn(work, f"run {self.id}", stop)

    def tool(self, name: str) -> Tool[..., Any]:
        """A tool of this run by the name its nodes have."""
        return self.tools[name]

    def emit(self, event: events.Event) -> None:
        """Tell the subscribers."""
        self.audience.tell(event)

    @property
    def subscribers(self) -> tuple[Subscriber, ...]:
        """Who is told; runs it starts tell them too."""
        return self.audience.subscribers

    @property
    def watched(self) -> bool:
        """Whether anybody reads the events."""
        return self.audience.listens

    def now(self) -> float:
        """Seconds on the run's clock."""
        return self._loop.time()

    def extend(
        self,
        plan: Plan,
        contexts: dict[int, contextvars.Context] | None = None,
        *,
        held: bool = False,
        writing: bool = False,
    ) -> None:
        """Nodes join the run's plan and start; nobody hears of `held` ones before `commit`.

        `writing` says that a model is still writing what they are of.
        """
        self.naming.joined(plan.nodes)
        self.audience.joined(plan, held=held, writing=writing)
        self.driver.extend(plan, contexts)
        if self.speculator is not None:
            self.speculator.soon()

    def commit(self, node: int) -> None:
        """A held node belongs to the plan."""
        self.audience.release(node)
        self.driver.commit(node)

    def retract(self, node: int) -> None:
        """A held node does not belong to the plan: it is cancelled, and nobody hears of it."""
        self._retracted.add(node)
        self.driver.take_back(node)

    def idempotency_key(self, node: int) -> str:
        """The key of a call: the same for all its attempts, also after a resume."""
        return self.naming.key(node)

    def _spec(self, name: str) -> Any:
        return self.tool(name).spec if name in self.tools else None

    # For users

    def __await__(self) -> Generator[Any, None, T]:
        return self.result().__await__()

    async def result(self) -> T:
        """The value.

        Cancelling whoever waits here cancels the run and waits for it to end.

        Raises:
            RunError: The run failed, was cancelled, or passed its deadline.
        """
        try:
            return await asyncio.shield(self._future)
        except asyncio.CancelledError:
            if not self._future.done():
                self.cancel(reason="whoever awaited it was cancelled")
                await self.ended()
            raise

    async def ended(self) -> None:
        """Wait until nothing of the run is left, or what is left has been given up on."""
        await asyncio.shield(self._over)

    def cancel(self, call: int | None = None, *, reason: str = "") -> None:
        """Cancel one call by its plan id, or without one the whole run.

        Raises:
            LookupError: There is no such call.
        """
        if call is not None:
            if not 0 <= call < len(self.driver.state.slots):
                raise LookupError(f"{self.name} has no call {call}")
            if self.notes is not None:
                self.notes.cancelled(call)
            self.driver.drop(call)
        elif self._cause is None and not self._decided:
            why = f": {reason}" if reason else ""
            self._stop(RunCancelled, f"{self.name} was cancelled{why}")

    @property
    def done(self) -> bool:
        """Whether it has a value or an error."""
        return self._future.done()

    @property
    def over(self) -> bool:
        """Whether nothing of it is left, or what is left has been given up on."""
        return self._over.done()

    @property
    def begins_early(self) -> bool:
        """Whether calls begin while a model writes them."""
        return self.host.services.partial and not self.recalls

    @property
    def recalls(self) -> bool:
        """Whether it learns what it did before, and begins nothing that nobody has asked for."""
        return self.notes is not None and self.notes.recalling

    @property
    def partial(self) -> PartialStats:
        """What calls gained that began while a model wrote them."""
        return self.driver.parts.stats

    @property
    def results(self) -> dict[int, Any]:
        """Value by plan id of everything that is done."""
        return self._told(self.driver.state.results())

    def _told(self, found: dict[int, Any]) -> dict[int, Any]:
        """What is known of calls that belong to the plan."""
        return {node: what for node, what in found.items() if self._belongs(node)}

    def _belongs(self, node: int) -> bool:
        return not self.audience.holds(node) and node not in self._retracted

    def _kept(self) -> dict[str, Any]:
        """What an error says was done, and what was not."""
        pending = self.driver.state.pending()
        return {
            "results": self.results,
            "pending": [node for node in pending if self._belongs(node)],
            "unfinished": self.unfinished,
        }

    @property
    def unfinished(self) -> list[str]:
        """Names of the tools whose calls are still running."""
        return self.driver.unfinished()
