"""How runs are begun: what an engine and its tenants have in common."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar, overload

from agentflow import events
from agentflow.budgets.budget import Budget
from agentflow.budgets.ledger import Ledger
from agentflow.executor.audience import Subscriber
from agentflow.executor.backlog import Backlog
from agentflow.executor.journal.book import InDoubt
from agentflow.executor.run import Run
from agentflow.executor.services import Limits
from agentflow.executor.strategies.task import Task
from agentflow.planner.plan import Plan
from agentflow.sessions import Session
from agentflow.workflows import Workflow

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """What a run is of, with what it is given.

    Attributes:
        what: A workflow, a `Plan`, a `Task`, a `Session` or a sentence.
        args: For it.
        kwargs: For it.
        tenant: Name of the tenant whose run it is, or empty.
    """

    what: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    tenant: str = ""


class Starter:
    """Begins runs, goes on with them, and waits for them.

    Attributes:
        ledger: What its runs together may spend, and have.
    """

    ledger: Ledger

    @property
    def limits(self) -> Limits:
        """Ceilings on what its runs do at once."""
        raise NotImplementedError

    def _make(self, target: Target, subscribers: tuple[Subscriber, ...]) -> Run[Any]:
        """A run that has not begun; see `start` for what it is of."""
        raise NotImplementedError

    async def _go_on(
        self, run: str, given: Target, in_doubt: InDoubt, budget: Budget | None
    ) -> Run[Any]:
        """A run that goes on; see `reopen`. What `given` leaves open is as it was."""
        raise NotImplementedError

    @overload
    async def run(self, target: Workflow[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    async def run(self, target: Task | str, **fields: Any) -> str: ...
    @overload
    async def run(self, target: Session, said: str, **fields: Any) -> str: ...
    @overload
    async def run(self, target: Plan, **options: Any) -> Any: ...
    async def run(self, target: Any, *args: Any, **kwargs: Any) -> Any:
        """Run something and wait for its value; see `start` for what it takes.

        Raises:
            RunError: It failed, was cancelled, or passed its deadline.
        """
        return await self.start(target, *args, **kwargs)

    async def stream(self, target: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[events.Event]:
        """Run something and yield its events, and those of the runs it starts, as they happen.

        The last one is terminal. Leaving the loop early cancels the run, and so does ``aclose``,
        which waits until it has ended. The run does not wait for a slow reader: it is told of
        what came meanwhile, beyond `Limits.unread` events, in brief (see `EventsDropped`).
        """
        backlog = Backlog(self.limits.unread)
        run = self._make(Target(target, args, kwargs), (backlog.put,)).start()
        try:
            while True:
                event = await backlog.get()
                yield event
                if isinstance(event, events.TERMINAL) and event.run == run.id:
                    return
        finally:
            if not run.done:
                run.cancel(reason="whoever read its events stopped")
            await run.ended()

    @overload
    def start(self, target: Workflow[P, T], *args: P.args, **kwargs: P.kwargs) -> Run[T]: ...
    @overload
    def start(self, target: Task | str, **fields: Any) -> Run[str]: ...
    @overload
    def start(self, target: Session, said: str, **fields: Any) -> Run[str]: ...
    @overload
    def start(self, target: Plan, **options: Any) -> Run[Any]: ...
    def start(self, target: Any, *args: Any, **kwargs: Any) -> Run[Any]:
        """Begin a run; await it for its value.

        Args:
            target: A workflow (with its arguments), a `Plan`, a `Task`, a sentence, which is a
                task, or a `Session` (with what the user says).
            *args: Arguments of the workflow.
            **kwargs: Arguments of the workflow. For a plan ``tools``, ``deadline`` and
                ``budget``; for a sentence and in a session the fields of `Task`.

        Raises:
            PlanError: The plan cannot be run.
            DefinitionError: The target is none of these.
        """
        return self._make(Target(target, args, kwargs), ()).start()

    async def resume(self, run: str, target: Any = None, **options: Any) -> Any:
        """Go on with a run that broke off, was paused, was cancelled or failed; its value.

        Calls that ended are not made again, and what was spent counts. Only the seconds count for
        its deadline in which it ran. Of a run that failed, what failed is tried again. A tenant's
        run stays the tenant's, whoever goes on with it.

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

        Of several who do so at the same time one goes on, and the others are refused. A run of
        a tenant that its engine does not know makes the tenant known, without a budget of its
        own: where the tenant has one, name it to the engine first.

        Args:
            run: Its id, or how it begins.
            target: As for `start`, where the run's own cannot be found again by its name.
            args: For the target.
            kwargs: For the target.
            in_doubt: What becomes of calls that may write, and may have been made when the run
                broke off: somebody is to be asked, they are made again, or they fail.
            budget: In place of the one that it began with.
        """
        return await self._go_on(run, Target(target, args, kwargs or {}), in_doubt, budget)
