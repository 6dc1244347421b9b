"""A run: one execution of one plan, workflow or agent task."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from agentflow import events
from agentflow.budgets.ledger import Ledger
from agentflow.context import logged_run, recorder, run_scope
from agentflow.errors import DeadlineExceeded, RunCancelled, RunError
from agentflow.executor.affinity.conversation import Conversations
from agentflow.executor.allocation import learning
from agentflow.executor.answers import Answers
from agentflow.executor.audience import Audience, Subscriber
from agentflow.executor.deadline import Deadline
from agentflow.executor.driver import Driver
from agentflow.executor.host import Host
from agentflow.executor.losses import run_failed, spares
from agentflow.executor.naming import Naming
from agentflow.executor.partial.records import PartialStats
from agentflow.executor.speculation.speculator import Speculator
from agentflow.executor.teller import Teller
from agentflow.planner.plan import Plan
from agentflow.tools.tool import Tool

if TYPE_CHECKING:
    from agentflow.executor.allocation.controller import Controller

T = TypeVar("T")

Body = Callable[["Run[T]"], Awaitable[T]]
"""What a run does: a coroutine function that gets the run."""


class Run(Generic[T]):
    """One execution; await it for its value.

    Attributes:
        id: Unique in its engine.
        name: Of the workflow, plan or task.
        parent: The run whose call started it, or None.
        tenant: Name of the tenant that it belongs to, or empty.
        began: Loop time at which the outermost run that it belongs to was made.
        deadline: Loop time after which it gives up, or None.
        depth: How many workflows deep it is; 1 for one that no other called.
        ledger: What it may spend, and has.
        driver: Carries out its calls.
        naming: Names its calls.
        speculator: Starts calls before they are asked for, or None.
        audience: Who is told what happens.
        repeats: It is one of several of its name, from which can be told what they come to.
        allocation: Has calls tried by several models, or None before the first.
        conversations: What its conversations with models share.
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
    ) -> None:
        self.host = host
        self.id = identity
        self.name = name
        self.parent = parent
        self.tools = tools
        self.ledger = ledger
        self.depth: int = 1 if parent is None else parent[0].depth + 1
        self._root: str = identity if parent is None else parent[0]._root
        self.chance = random.Random(seed)
        self._loop = asyncio.get_running_loop()
        self.tenant: str = "" if parent is None else parent[0].tenant
        self.began: float = self._loop.time() if parent is None else parent[0].began
        self.audience = Audience(identity, self._loop, subscribers)
        self._retracted: set[int] = set()
        self._body = body
        self._cause: tuple[type[RunError], str] | None = None  # why it was stopped
        self._outcome: tuple[Any, BaseException | None] | None = None  # of its body
        self._future: asyncio.Future[T] = self._loop.create_future()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None  # when to give up on the body
        self._context = contextvars.copy_context()
        self._context.run(self._enter)
        self.deadline = ledger.deadline
        self.driver = self._make_driver(fail_fast)
        self.naming = Naming(self._root, path or name, self.driver.state, self._spec)
        self.speculator: Speculator | None = None
        self.allocation: Controller | None = None
        self.conversations = Conversations()
        self.repeats = repeats
        self._task: asyncio.Task[None] | None = None

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
        if (reuse := services.reuse(self._root)) is not None:
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
        return bool(self.audience.subscribers)

    def now(self) -> float:
        """Seconds on the run's clock."""
        return self._loop.time()

    def extend(
        self,
        plan: Plan,
        contexts: dict[int, contextvars.Context] | None = None,
        *,
        held: bool = False,
    ) -> None:
        """Nodes join the run's plan and start; nobody hears of `held` ones before `commit`."""
        self.audience.joined(plan, held=held)
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
            self.driver.drop(call)
        elif self._cause is None and not self._future.done():
            why = f": {reason}" if reason else ""
            self._stop(RunCancelled, f"{self.name} was cancelled{why}")

    @property
    def done(self) -> bool:
        """Whether it has a value or an error."""
        return self._future.done()

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

    @property
    def unfinished(self) -> list[str]:
        """Names of the tools whose calls are still running."""
        return self.driver.unfinished()

    # The end

    def _expire(self) -> None:
        """The deadline passed: the caller is answered now, cleaning up goes on."""
        state = self.driver.state
        if state.halted and state.first_failure is not None and self._cause is None:
            self._outcome = self._outcome or (None, state.errors[state.first_failure])
        if self._cause is None and self._outcome is None:
            pending = len(self._kept()["pending"])
            waiting = f"; calls not done: {pending}" if pending else ""
            self._stop(DeadlineExceeded, f"{self.name} passed its deadline{waiting}")
        elif self._cause is None:
            self.driver.drop_all()  # it has failed, and what ran was to be finished
        self._settle()

    def _stop(self, kind: type[RunError], message: str) -> None:
        self._cause = (kind, message)
        if self._task is not None:
            self._task.cancel()
            grace = self.host.services.limits.grace
            self._patience = self._loop.call_later(grace, self._give_up, self._task)
        if kind is DeadlineExceeded:
            self.driver.halt()
        else:
            self.driver.drop_all()  # the body may still call what cleans up

    def _give_up(self, body: asyncio.Task[None]) -> None:
        """The body does not end although it was cancelled: end the run without it."""
        if self._outcome is None:
            self._outcome = (None, None)
            self.host.services.abandon(body, f"{self.name} (run {self.id})")
            self._task = self._spawn(self._conclude())

    def _break(self, error: BaseException) -> None:
        """The driver cannot go on."""
        self._outcome = self._outcome or (None, error)
        if self._task is not None:
            self._task.cancel()

    def _kept(self) -> dict[str, Any]:
        pending = self.driver.state.pending()
        return {
            "results": self.results,
            "pending": [node for node in pending if self._belongs(node)],
            "unfinished": self.unfinished,
        }

    async def _supervise(self) -> None:
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = await self._body(self), None
        except BaseException as error:  # noqa: BLE001  # it reaches the caller as a RunError
            outcome = None, error
        if asyncio.current_task() is self._task:  # else it was given up on
            self._outcome = self._outcome or outcome
            await self._conclude()

    async def _conclude(self) -> None:
        """End what the body left running; cancelled work has the grace period."""
        finish = self._cause is None and self._outcome is not None and spares(self._outcome[1])
        self.driver.halt(finish=finish)
        while not self.driver.over.done():
            try:
                await self.driver.finished()
            except asyncio.CancelledError:
                continue  # the driver gives up on every call by itself
        self._settle()
        learning.ran(self, self._future.exception())
        if self._patience is not None:
            self._patience.cancel()
        if not self._over.done():
            self._over.set_result(None)

    def _settle(self) -> None:
        """Give the outcome to whoever awaits it, and the terminal event to the subscribers."""
        if self._future.done():
            return
        if self._timer is not None:
            self._timer.cancel()
        self.driver.parts.close()
        if self.speculator is not None:
            self.speculator.close()
        value, failure = self._outcome or (None, None)
        error = self._error(failure)
        if error is None:
            self._future.set_result(value)  # type: ignore[arg-type]  # None stands beside errors
        else:
            self._future.set_exception(error)
            self._future.exception()  # nobody may await a run that was only watched
        self.audience.end(value, error)
        self.driver.teller = None

    def _error(self, failure: BaseException | None) -> RunError | None:
        """What the caller gets instead of a value."""
        if self._cause is not None:
            kind, message = self._cause
            return kind(message, **self._kept())
        task = self._task
        outside = task is None or task.cancelled() or task.cancelling() > 0
        if isinstance(failure, asyncio.CancelledError) and outside:
            return RunCancelled(f"{self.name} was cancelled from outside", **self._kept())
        if failure is None:
            return None
        failures = self._told(self.driver.state.failures())
        return run_failed(self.name, failure, failures, **self._kept())

    def _never_began(self, task: asyncio.Task[None]) -> None:
        """A task that is cancelled before its first step never runs its body."""
        if task.cancelled() and not self._over.done():
            self._outcome = self._outcome or (None, asyncio.CancelledError())
            self.driver.halt()
            self._settle()
            self._over.set_result(None)
