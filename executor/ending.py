"""How runs end: why, with what, and what becomes of what was still running."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from agentflow.errors import (
    DeadlineExceeded,
    HistoryMismatch,
    JournalError,
    RunCancelled,
    RunError,
    RunPaused,
)
from agentflow.executor.allocation import learning
from agentflow.executor.state.losses import run_failed, spares

if TYPE_CHECKING:
    from agentflow.budgets.ledger import Ledger
    from agentflow.executor.audience import Audience
    from agentflow.executor.driver import Driver
    from agentflow.executor.host import Host
    from agentflow.executor.journal.notes import Notes
    from agentflow.executor.run import Run
    from agentflow.executor.speculation.speculator import Speculator

T = TypeVar("T")

PATIENCE = 0.04
"""Seconds that who awaits a run waits for its record when its time is over."""


class Ending(Generic[T]):
    """The half of a run that brings it to its end; the other half begins it and serves its body.

    Attributes:
        name: Of the workflow, plan or task.
        parent: The run whose call started it, or None.
        ledger: What it may spend, and has.
        deadline: Loop time after which it gives up, or None.
        driver: Carries out its calls.
        speculator: Starts calls before they are asked for, or None.
        audience: Who is told what happens.
        notes: Writes down what happens, or None.
    """

    id: str
    host: Host
    name: str
    parent: tuple[Run[Any], int] | None
    ledger: Ledger
    deadline: float | None
    driver: Driver
    speculator: Speculator | None
    audience: Audience
    notes: Notes | None

    def __init__(self, body: Callable[[], Awaitable[T]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._body = body
        self._cause: tuple[Callable[..., RunError], str] | None = None  # why it was stopped
        self._outcome: tuple[Any, BaseException | None] | None = None  # of its body
        self._decided = False  # what its outcome is
        self._future: asyncio.Future[T] = self._loop.create_future()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None  # when to give up on the body
        self._task: asyncio.Task[None] | None = None
        self._within: set[Run[Any]] = set()  # runs that its calls started and that are not over

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        raise NotImplementedError

    def _told(self, found: dict[int, Any]) -> dict[int, Any]:
        raise NotImplementedError

    def _kept(self) -> dict[str, Any]:
        """What an error says was done, and what was not."""
        raise NotImplementedError

    # Why

    def _expire(self) -> None:
        """The deadline passed: the caller is answered now, cleaning up goes on."""
        for run in [run for run in self._within if not run._decided]:
            run._expire()  # its deadline is no later, and its last event comes before
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

    def hold(self) -> None:
        """Do not give up at the deadline before `put_off`: nothing goes on meanwhile."""
        if self._timer is not None:
            self._timer.cancel()
        if self.notes is not None and self.parent is None:
            self.notes.book.rest()

    def put_off(self, seconds: float) -> None:
        """Do not count the seconds since `hold`."""
        if self._decided:
            return
        self.ledger.put_off(seconds)
        self.deadline = self.ledger.deadline
        if self.notes is not None and self.parent is None:
            self.notes.book.follow(self.ledger)
        if self.deadline is not None:
            self._timer = self._loop.call_at(self.deadline, self._expire)
            if self.driver.deadline is not None:
                self.driver.deadline.at = self.deadline

    def refuse(self, why: str) -> None:
        """The program is not the one that the run began with: nothing it does is part of the run."""
        if self._cause is None and not self._decided:
            self._stop(HistoryMismatch, why)

    def pause(self, message: str, asks: Sequence[Mapping[str, Any]]) -> None:
        """Set the run aside until somebody answers what it asks."""
        if self._cause is None and not self._decided:
            self._stop(partial(RunPaused, asks=asks), message)

    def _stop(self, kind: Callable[..., RunError], message: str) -> None:
        self._cause = (kind, message)
        if self.notes is not None:
            self.notes.stopping(message)
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

    # What becomes of it

    async def _supervise(self) -> None:
        outcome: tuple[Any, BaseException | None]
        if self.notes is not None and self.parent is None:
            self.notes.book.follow(self.ledger)
        try:
            outcome = await self._body(), None
            if self.notes is not None:
                self.notes.ended()
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
        while not self._future.done():  # what it comes to is being written down
            try:
                await asyncio.wait([self._future])
            except asyncio.CancelledError:
                continue
        learning.ran(cast("Run[Any]", self), self._future.exception())
        while cleaning := [run._over for run in self._within if run._decided and not run.over]:
            try:
                await asyncio.wait(cleaning)
            except asyncio.CancelledError:
                continue
        if self._patience is not None:
            self._patience.cancel()
        if not self._over.done():
            self._over.set_result(None)

    def _settle(self) -> None:
        """Decide what the outcome is, and have it written down before anybody learns of it."""
        if self._decided:
            return
        self._decided = True
        if self._timer is not None:
            self._timer.cancel()
        self.driver.parts.close()
        if self.speculator is not None:
            self.speculator.close()
        value, failure = self._outcome or (None, None)
        error = self._error(failure)
        if self.notes is not None and self.parent is None:
            self.notes.book.decided(error)
        self.audience.end(value, error)
        if self.notes is None:
            self.driver.teller = None
        if self.notes is None or self.parent is not None:
            self._answer_caller(value, error)
        else:
            answer = partial(self._answer_caller, value, error)
            self.notes.close(value, error, answer, patience=self._waits(error))

    def _waits(self, error: RunError | None) -> float | None:
        """Seconds that who awaits the run waits for its record; None for as long as it takes."""
        if isinstance(error, DeadlineExceeded):
            return PATIENCE
        if not isinstance(error, RunCancelled):
            return None
        grace = self.host.services.limits.grace
        left = grace if self._patience is None else self._patience.when() - self._loop.time()
        return max(PATIENCE, left)

    def _answer_caller(
        self, value: Any, error: RunError | None, lost: JournalError | None = None
    ) -> None:
        """Give the outcome to whoever awaits it; `lost` says why it could not be written down."""
        if self._future.done():
            return
        if error is None and lost is not None:
            error = run_failed(self.name, lost, {}, **self._kept())
        if error is None:
            self._future.set_result(value)
        else:
            self._future.set_exception(error)
            self._future.exception()  # nobody may await a run that was only watched

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
        if isinstance(failure, HistoryMismatch):
            return HistoryMismatch(str(failure), **self._kept())
        failures = self._told(self.driver.state.failures())
        return run_failed(self.name, failure, failures, **self._kept())

    def _never_began(self, task: asyncio.Task[None]) -> None:
        """A task that is cancelled before its first step never runs its body."""
        if task.cancelled() and not self._over.done():
            self._outcome = self._outcome or (None, asyncio.CancelledError())
            self.driver.halt()
            self._settle()
            if self._patience is not None:
                self._patience.cancel()
            self._over.set_result(None)
