"""The calls of a run that are under way: a task each, their attempts, their limits, their ends."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, cast

from agentflow.budgets.ledger import Ledger
from agentflow.caches.failures import Remembered
from agentflow.context import logged_node
from agentflow.errors import CallCancelled, CallTimeout
from agentflow.executor.afterwards import Afterwards
from agentflow.executor.answers import Answers
from agentflow.executor.billing import Bill
from agentflow.executor.bind import bind_arguments
from agentflow.executor.calls import BoundCall
from agentflow.executor.commands import Failed, Finished, Happening, Known, Stopped
from agentflow.executor.deadline import Deadline
from agentflow.executor.losses import path_error
from agentflow.executor.models.ratelimit import RateLimiter
from agentflow.executor.partial.part import Why
from agentflow.executor.partial.parts import Parts
from agentflow.executor.services import Services
from agentflow.executor.site import CallSite
from agentflow.executor.state import RunState
from agentflow.executor.teller import Teller
from agentflow.executor.timers import Timers, timed_out
from agentflow.tools.policy import UNSET
from agentflow.tools.tool import Tool


class Running:
    """The half of the driver that makes calls; the other half tells the run state.

    Attributes:
        loop: Where the run is.
        run: Id of the run.
        deadline: When the run gives up, or None.
        key: Idempotency key of a plan id.
        answers: Answers calls that need not be made, or None.
        parts: Calls that began while a model still wrote them.
        afterwards: Work that only the end of the run waits for.
        ledger: What the run may spend.
        belongs: Whether a plan id is part of the plan, and not only held.
        state: Knows what the calls are.
        teller: Tells whoever watches, or None.
        timers: Time limits of the calls.
    """

    key: Callable[[int], str]
    state: RunState
    ledger: Ledger
    belongs: Callable[[int], bool]

    def __init__(
        self, services: Services, *, run: str, context: contextvars.Context, chance: random.Random
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._services = services
        self.run = run
        self._context = context
        self._chance = chance
        self._bound: list[BoundCall | None] = []  # by slot
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._contexts: dict[int, contextvars.Context] = {}
        self._late: dict[int, float] = {}  # limits that passed, by slot
        self._ending: dict[int, asyncio.TimerHandle] = {}  # cancelled; when to give up on them
        self._stopped: set[int] = set()  # no further attempts
        self._abandoned: list[str] = []
        self._inbox: deque[Happening] = deque()
        self._pumping = False
        # Not by the loop's method: that costs a third more, and an eager task would end
        # before it is known here.
        self._task: Callable[..., asyncio.Task[None]] = partial(asyncio.Task, loop=self.loop)
        self.timers = Timers(self.loop, self._expired)
        self.deadline: Deadline | None = None
        self.teller: Teller | None = None
        self.answers: Answers | None = None
        self.parts = Parts(self)
        self.afterwards = Afterwards(services)

    def _pump(self) -> None:
        """Tell the run state what is in the inbox, and do what it commands."""
        raise NotImplementedError

    def unfinished(self) -> list[str]:
        """Names of the tools whose calls are still running, abandoned ones too."""
        return [self.state.nodes[slot].tool for slot in self._tasks] + self._abandoned

    def started(self) -> Iterable[int]:
        """Slots of the calls that run."""
        return self._tasks

    def call_of(self, slot: int) -> BoundCall:
        """The tool that a call is of, ready to be called."""
        call = self._bound[slot]
        assert call is not None, "a join or a map is no call"
        return call

    def _start(self, slot: int) -> None:
        call = self._bound[slot]
        assert call is not None, "only calls start"
        answers = self.answers
        if (
            answers is not None
            and (call.reused is not None or answers.cache.listening)
            and (found := answers.before(slot, call)) is not None
        ):
            if self.parts.waiting:
                self.parts.known(slot)
            self._inbox.append(Finished(slot, found.value))
            return
        if self.parts.waiting:
            self.parts.claim(slot, call)
        if self.teller is not None:
            self.teller.started(slot, 1)
        if call.timeout is not None:
            self.timers.start(slot, call.timeout)
        context = self._own_context(slot) if self._contexts else self._context.copy()
        self._tasks[slot] = self._task(self._child(slot, call), context=context)

    def _look_up(self, slot: int) -> None:
        """A call waits for room: it needs none if its value is known."""
        call = self._bound[slot]
        if self.answers is None or call is None or call.reused is None:
            return
        if (found := self.answers.looked_up(slot, call)) is not None:
            self.parts.known(slot)
            self._inbox.append(Known(slot, found.value))

    def context_of(self, slot: int) -> contextvars.Context:
        """The context of the place where a call was made."""
        return self._contexts.get(self.state.where(slot)[0], self._context)

    def _own_context(self, slot: int) -> contextvars.Context:
        """The context of the place where the call was made; elements of a map each have a copy."""
        node, element = self.state.where(slot)
        if element is None:
            return self._contexts.pop(node, None) or self._context.copy()
        return self._contexts.get(node, self._context).copy()

    async def _child(self, slot: int, call: BoundCall) -> None:
        """One call, from its arguments to its report."""
        happening: Happening
        state = self.state
        logged_node.set(state.place(slot) if state.mapped else slot)
        try:
            if call.gate.leaving and not (self.answers and self.answers.coming(slot)):
                await self.untimed(slot, call, call.gate.emptied())
            if call.simple and slot not in self.parts.claimed:
                site = CallSite(self, slot, 1, call) if call.wants_site else None
                args, kwargs = self.arguments(slot)
                make = call.invoke if self.deadline is None else self.deadline.checked(call)
                happening = Finished(slot, await make(args, kwargs, site))
            else:
                happening = Finished(slot, await self._made(slot, call))
        except (KeyboardInterrupt, SystemExit, GeneratorExit) as error:
            self._report(slot, Failed(slot, error))
            raise
        except BaseException as error:  # noqa: BLE001  # a failure is a value here
            happening = self._failed(slot, call, error)
        self._report(slot, happening)

    def arguments(self, slot: int) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a call, positional and by keyword, fresh for their receiver.

        Raises:
            PathError: A reference leads nowhere.
        """
        node = self.state.nodes[slot]
        try:
            return bind_arguments(self.state, node)
        except LookupError as error:
            raise path_error(error, node.tool, self.state.where(slot)[0]) from None

    def _report(self, slot: int, happening: Happening) -> None:
        answers = self.answers
        if answers is not None and (answers.cache.listening or answers.speculator is not None):
            call = self._bound[slot]
            assert call is not None, "only calls report"
            answers.ended(slot, call, happening)
        if self.timers.running:
            self.timers.stop(slot)
            self._late.pop(slot, None)
        if self._ending and (timer := self._ending.pop(slot, None)) is not None:
            timer.cancel()
        if self._tasks.pop(slot, None) is not None:  # else it was abandoned
            self._inbox.append(happening)
            if not self._pumping:
                self._pump()

    async def _made(self, slot: int, call: BoundCall) -> Any:
        """The value of a call that may take several attempts."""
        if call.changes and self.answers is not None:
            return await self.answers.write(slot, call, partial(self._attempts, slot, call))
        return await self._attempts(slot, call)

    async def _attempts(self, slot: int, call: BoundCall) -> Any:
        """Attempts until one succeeds or none is left, then the fallback."""
        attempt = 1
        while True:
            try:
                return await self._attempt(slot, call, attempt)
            except Exception as error:
                self.timers.stop(slot)
                if slot in self._stopped:
                    raise
                if (delay := self._pause(call, attempt, error)) is None:
                    return await self._fall_back(slot, call.policy.fallback, error)
                if self.teller is not None:
                    self.teller.retrying(slot, attempt, delay, error)
                await asyncio.sleep(delay)
            attempt += 1
            if self.teller is not None:
                self.teller.started(slot, attempt)
            self._time(slot, call)

    def _pause(self, call: BoundCall, attempt: int, error: Exception) -> float | None:
        """Seconds until the next attempt; None if there is none, or none in time."""
        if isinstance(error, Remembered) or not call.may_retry(attempt, error):
            return None
        delay = call.pause(attempt, error, self._chance)
        return delay if self.deadline is None else self.deadline.allowed(delay, error)

    async def _attempt(self, slot: int, call: BoundCall, attempt: int) -> Any:
        coming = self.answers is not None and self.answers.coming(slot)
        if not coming and not self.parts.begun(slot):
            if self.deadline is not None:
                self.deadline.check(call)
            if call.limiter is not None:
                await self._take_turn(slot, call, call.limiter)
        site = CallSite(self, slot, attempt, call) if call.wants_site else None
        try:
            if call.reused is None and not call.policy.usd:
                return await self._invoked(slot, call, site)
            return await self._value(slot, call, attempt, site, call.limiter if coming else None)
        except (Exception, asyncio.CancelledError) as error:
            self.parts.forgo(slot, Why.NOT_MADE)
            if slot not in self._late or not self._resumes(slot):
                raise
            raise self._timeout(slot, call, error) from None
        finally:
            self.parts.forgo(slot, Why.KNOWN)
            if site is not None:
                site.close()

    async def untimed(self, slot: int, call: BoundCall, wait: Awaitable[object]) -> None:
        """Wait for something in time that is not the call's own."""
        self.timers.stop(slot)
        await wait
        if slot in self._tasks:  # else others wait for what it had begun
            self._time(slot, call)

    async def _take_turn(self, slot: int, call: BoundCall, limiter: RateLimiter) -> None:
        """Wait until the rate allows another call; that is not the call's own time."""
        wait = limiter.delay(self.loop.time())
        if self.deadline is not None:
            self.deadline.check_turn(wait, limiter, call)
        if wait > 0:
            await self.untimed(slot, call, asyncio.sleep(wait))

    async def in_turn(
        self, slot: int, call: BoundCall, limiter: RateLimiter, make: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Make a call that has not taken its turn, because its value seemed to be coming."""
        await self._take_turn(slot, call, limiter)
        return await make()

    async def _value(
        self,
        slot: int,
        call: BoundCall,
        attempt: int,
        site: CallSite | None,
        owed: RateLimiter | None,
    ) -> Any:
        """The value of one attempt, or one from the cache in its place."""
        answers = None if call.reused is None else self.answers
        if answers is not None and (asked := answers.asked(slot, call)) is not None:
            return await answers.value(slot, call, asked, site, attempt, owed)
        bill = self.bill(slot, call)
        try:
            return await self._invoked(slot, call, site)
        finally:
            if bill is not None:
                bill.pay()

    def bill(self, slot: int, call: BoundCall) -> Bill | None:
        """The price of one attempt, set aside; None if it has none, or its part has paid.

        Raises:
            BudgetExceeded: It does not fit.
        """
        if not call.policy.usd or self.parts.begun(slot):
            return None
        return Bill(self.ledger, call.policy.usd)

    async def _invoked(self, slot: int, call: BoundCall, site: CallSite | None) -> Any:
        args, kwargs = self.arguments(slot)
        if slot not in self.parts.claimed:
            make = call.invoke if self.deadline is None else self.deadline.timed(call)
            return await make(args, kwargs, site)
        valid, named = call.tool.signature.validate(tuple(args), kwargs)
        return await self.parts.make(slot, call, valid, named, site)

    def _resumes(self, slot: int) -> bool:
        """Whether the call goes on after its attempt was cancelled: nobody else cancelled it."""
        task = self._tasks.get(slot)
        if task is None or slot in self._stopped or task.uncancel() > 0:
            return False
        self._ending.pop(slot).cancel()
        return True

    async def _fall_back(self, slot: int, fallback: Any, error: Exception) -> Any:
        """What takes the place of a call that has failed for good."""
        if fallback is UNSET:
            if isinstance(error, Remembered):
                raise error.failure from error.failure.__cause__
            raise error
        if not isinstance(fallback, Tool):
            return fallback
        call = self._services.call(fallback, fallback.policy)
        self._time(slot, call)
        return await self._made(slot, call)

    def _time(self, slot: int, call: BoundCall) -> None:
        if call.timeout is not None:
            self.timers.start(slot, call.timeout)

    # Stopping

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
        call = self._bound[slot]
        begun = inspect.getcoroutinestate(cast("Any", task.get_coro())) != inspect.CORO_CREATED
        if begun and call is not None and call.tool.effect.kind == "writes":
            # A write that has started is given its grace before it is cut off.
            self.loop.call_later(self._services.limits.grace, self._cut, slot, task)
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
