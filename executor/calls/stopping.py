"""How calls that run are ended before they end by themselves, and given up on if they do not."""

from __future__ import annotations

import asyncio
from collections import deque

from agentflow.errors import CallCancelled, CallTimeout
from agentflow.executor.calls.answers import Answers
from agentflow.executor.calls.bound import BoundCall, Watched
from agentflow.executor.calls.site import CallSite
from agentflow.executor.calls.timers import Timers, timed_out
from agentflow.executor.services import Services
from agentflow.executor.state.commands import Failed, Happening, Stopped
from agentflow.executor.state.run_state import RunState


class Attempt(CallSite, Watched):
    """One attempt of one call; it notes when the function of a tool that may write is called."""

    __slots__ = ()

    @property
    def call(self) -> BoundCall:
        """What is called."""
        return self._call

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._over

    def entered(self) -> None:
        """The function of a tool that may write is about to be called. From any thread."""
        self._driver.entered[self._slot] = self


class Stopping:
    """The part of the driver that stops calls.

    Args:
        services: What the engine's runs share.
        run: Id of the run.

    Attributes:
        loop: Where the run is.
        run: As given.
        answers: Answers calls that need not be made, or None.
        state: Knows what the calls are.
        timers: Time limits of the calls.
        waiting: Slots of calls that wait until somebody says that they may be made.
        entered: By slot, the last attempt of a call that came to the function of a tool that may
            write: from then on something may have been done.
    """

    state: RunState

    def __init__(self, services: Services, run: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.run = run
        self.answers: Answers | None = None
        self._services = services
        self._bound: list[BoundCall | None] = []  # by slot
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._late: dict[int, float] = {}  # limits that passed, by slot
        self._ending: dict[int, asyncio.TimerHandle] = {}  # cancelled; when to give up on them
        self._stopped: set[int] = set()  # no further attempts
        self._abandoned: list[str] = []
        self.waiting: set[int] = set()
        self.entered: dict[int, Attempt] = {}
        self._inbox: deque[Happening] = deque()
        self._pumping = False
        self.timers = Timers(self.loop, self._expired)

    def _pump(self) -> None:
        """Tell the run state what is in the inbox, and do what it commands."""
        raise NotImplementedError

    def _report(self, slot: int, happening: Happening) -> None:
        """A call has ended."""
        raise NotImplementedError

    def unfinished(self) -> list[str]:
        """Names of the tools whose calls are still running, abandoned ones too."""
        return [self.state.nodes[slot].tool for slot in self._tasks] + self._abandoned

    def _expired(self, slot: int, limit: float) -> None:
        """A time limit passed: cancel the attempt, and give up on it after the grace."""
        if (task := self._tasks.get(slot)) is not None and slot not in self._ending:
            self._late[slot] = limit
            self._cancel(slot, task)

    def _stop(self, slot: int) -> None:
        task = self._tasks.get(slot)
        if task is None:
            return
        self._stopped.add(slot)
        attempt = self.entered.get(slot)
        if attempt is not None and not attempt.over and attempt.call.tool.effect.kind == "writes":
            # A write that is under way is given its grace before it is cut off.
            timer = self.loop.call_later(self._services.limits.grace, self._cut, slot, task)
            task.add_done_callback(lambda _: timer.cancel())
        else:
            self._cancel(slot, task)

    def _cut(self, slot: int, task: asyncio.Task[None]) -> None:
        if self._tasks.get(slot) is task:
            self._cancel(slot, task)

    def _cancel(self, slot: int, task: asyncio.Task[None]) -> None:
        if slot in self._ending:
            return  # a second time would cut off its cleaning up
        grace, call = self._services.limits.grace, self._bound[slot]
        assert call is not None, "only calls run"
        self._ending[slot] = self.loop.call_later(grace, self._give_up, slot, task, call)
        # A task that is cancelled before its first step never runs its body.
        task.add_done_callback(lambda _: self._end(slot, call))
        task.cancel()

    def _resumes(self, slot: int) -> bool:
        """Whether the call goes on after its attempt was cancelled: nobody else cancelled it."""
        task = self._tasks.get(slot)
        if task is None or slot in self._stopped or task.uncancel() > 0:
            return False
        self._ending.pop(slot).cancel()
        return True

    def _is_entered(self, slot: int, call: BoundCall) -> bool:
        """Whether an earlier attempt came to the function of this tool, and not of another."""
        attempt = self.entered.get(slot)
        return attempt is not None and attempt.call is call

    def _give_up(self, slot: int, task: asyncio.Task[None], call: BoundCall) -> None:
        self._stopped.add(slot)
        self._abandoned.append(call.tool.name)
        self._services.abandon(task, f"{call.tool.name} (run {self.run}, slot {slot})")
        if self.answers is not None:
            self.answers.given_up(slot, call, task)
        self._end(slot, call)

    def _end(self, slot: int, call: BoundCall) -> None:
        """Report for a cancelled call that has not reported itself."""
        if slot in self._tasks:
            self._report(slot, self._failed(slot, call, asyncio.CancelledError()))

    def _failed(self, slot: int, call: BoundCall, error: BaseException) -> Happening:
        """How a call ended that raised: what it raises once it is cancelled is no news."""
        if slot in self._late:
            return Failed(slot, self._timeout(slot, call, error))
        if slot in self._stopped:
            return Stopped(slot)
        if isinstance(error, asyncio.CancelledError):
            if self._tasks[slot].cancelling():
                return Stopped(slot)
            why = f"{call.tool.name} awaited something that was cancelled"
            error = CallCancelled(why, tool=call.tool.name, node=self.state.where(slot)[0])
        return Failed(slot, error)

    def _timeout(self, slot: int, call: BoundCall, error: BaseException) -> CallTimeout:
        limit, node = self._late.pop(slot), self.state.where(slot)[0]
        cause = None if isinstance(error, asyncio.CancelledError) else error
        return timed_out(call.tool.name, limit, node, idle=limit == call.policy.idle, cause=cause)
