"""The calls of a run that are under way: a task each, their attempts, their limits, their ends."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from agentflow.budgets.ledger import Ledger
from agentflow.caches.failures import Remembered
from agentflow.caches.tool_cache import Found
from agentflow.context import logged_node
from agentflow.executor.afterwards import Afterwards
from agentflow.executor.asking.inquiry import Inquiry
from agentflow.executor.calls.billing import Bill
from agentflow.executor.calls.bound import BoundCall, may_write
from agentflow.executor.calls.places import Place
from agentflow.executor.calls.stopping import Attempt, Stopping
from agentflow.executor.deadline import Deadline
from agentflow.executor.journal.notes import Notes
from agentflow.executor.models.ratelimit import RateLimiter
from agentflow.executor.partial.part import Why
from agentflow.executor.partial.parts import Parts
from agentflow.executor.services import Services
from agentflow.executor.state.bind import bind_arguments
from agentflow.executor.state.commands import Failed, Finished, Happening, Known
from agentflow.executor.state.losses import path_error
from agentflow.executor.state.run_state import RunState
from agentflow.executor.teller import Teller
from agentflow.tools.policy import UNSET
from agentflow.tools.tool import Tool


class Running(Stopping):
    """The half of the driver that makes calls; the other half tells the run state.

    Attributes:
        deadline: When the run gives up, or None.
        key: Idempotency key of a plan id.
        notes: Writes calls down, and knows how they ended before; None without a journal.
        parts: Calls that began while a model still wrote them.
        afterwards: Work that only the end of the run waits for.
        ledger: What the run may spend.
        belongs: Whether a plan id is part of the plan, and not only held.
        teller: Tells whoever watches, or None.
        inquiry: Asks before calls, where that is wanted.
    """

    inquiry: Inquiry
    key: Callable[[int], str]
    state: RunState
    ledger: Ledger
    belongs: Callable[[int], bool]

    def __init__(
        self, services: Services, *, run: str, context: contextvars.Context, chance: random.Random
    ) -> None:
        super().__init__(services, run)
        self._context = context
        self._chance = chance
        self._contexts: dict[int, contextvars.Context] = {}
        # Not by the loop's method: that costs a third more, and an eager task would end
        # before it is known here.
        self._task: Callable[..., asyncio.Task[None]] = partial(asyncio.Task, loop=self.loop)
        self.deadline: Deadline | None = None
        self.teller: Teller | None = None
        self.notes: Notes | None = None
        self._places: dict[int, Place] = {}  # of calls that take theirs while under way
        self._waiting: dict[int, tuple[str, float]] = {}  # for what calls wait, and since when
        self.parts = Parts(self)
        self.afterwards = Afterwards(services)

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
        if (found := self._at_hand(slot, call)) is not None:
            if self.parts.waiting:
                self.parts.known(slot)
            self._inbox.append(Finished(slot, found.value))
            return
        if self.parts.waiting:
            self.parts.claim(slot, call)
        if self._waiting:
            self._waits(slot)
        if self.teller is not None and slot not in self._places:
            self.teller.started(slot, 1)
        if call.timeout is not None:
            self.timers.start(slot, call.timeout)
        context = self._own_context(slot) if self._contexts else self._context.copy()
        self._tasks[slot] = self._task(self._child(slot, call), context=context)

    def _at_hand(self, slot: int, call: BoundCall) -> Found | None:
        """The value of a call that is about to start, if it is there; what was read is stale then."""
        answers = self.answers
        if answers is None or not (call.reused is not None or answers.cache.listening):
            return None
        if call.reused is not None and self.notes is not None and self.notes.recalling:
            return None  # what it gave before counts
        return answers.before(slot, call)

    def _look_up(self, slot: int) -> None:
        """A call waits for room: it needs none if its value is known."""
        call = self._bound[slot]
        if self.answers is None or call is None or call.reused is None:
            return
        if (found := self.answers.looked_up(slot, call)) is not None:
            self.parts.known(slot)
            self._inbox.append(Known(slot, found.value))

    def _waits(self, slot: int, why: str = "") -> None:
        """A call begins to wait for something else, or for nothing more: tell what it waited for."""
        if self.teller is None:
            return
        if (waited := self._waiting.pop(slot, None)) is not None:
            self.teller.waited(slot, waited[0], self.loop.time() - waited[1])
        if why:
            self._waiting[slot] = (why, self.loop.time())

    def _known(self, happening: Happening) -> None:
        self._inbox.append(happening)
        if not self._pumping:
            self._pump()

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
            notes = self.notes
            if call.policy.approve or (notes is not None and notes.recall is not None):
                ended = await self._before(slot, call)
                if ended is not None:
                    self._report(slot, ended)
                    return
            if call.gate.leaving and not (self.answers and self.answers.coming(slot)):
                await self.untimed(slot, call, call.gate.emptied(), "guest")
            if call.simple and slot not in self.parts.claimed:
                watched = call.changes and notes is not None
                site = Attempt(self, slot, 1, call) if call.wants_site or watched else None
                args, kwargs = self.arguments(slot)
                make = call.invoke if self.deadline is None else self.deadline.checked(call)
                if watched:
                    await self._announced(slot, call)
                happening = Finished(slot, await make(args, kwargs, site))
            else:
                happening = Finished(slot, await self._made(slot, call))
        except (KeyboardInterrupt, SystemExit, GeneratorExit) as error:
            self._report(slot, Failed(slot, error))
            raise
        except BaseException as error:  # noqa: BLE001  # a failure is a value here
            happening = self._failed(slot, call, error)
        self._report(slot, happening)

    async def _before(self, slot: int, call: BoundCall) -> Happening | None:
        """How a call ended that need not be made; None when it may be."""
        self.timers.stop(slot)
        ended = None if self.notes is None else await self.notes.before(slot, call)
        ended = ended or await self.inquiry.before(slot, call)
        if ended is None:
            if (place := self._places.get(slot)) is not None:
                since = self.loop.time()
                if await place.take() and self.teller is not None:
                    self.teller.waited(slot, "tool", self.loop.time() - since)
                if self.teller is not None:
                    self.teller.started(slot, 1)
            self._time(slot, call)
        return ended

    async def _announced(self, slot: int, call: BoundCall) -> None:
        """A call that may write is made next: wait until that is durable, in no time of its own."""
        assert self.notes is not None, "nobody else wants to know"
        self.timers.stop(slot)
        await self.notes.announce(slot, call)
        self._time(slot, call)

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
        if type(happening) is not Finished and self.notes is not None:
            self._tell_uncalled(slot, self.notes)
        if self.entered:
            self.entered.pop(slot, None)
        if self._places and (place := self._places.pop(slot, None)) is not None:
            place.leave()
        if self._ending and (timer := self._ending.pop(slot, None)) is not None:
            timer.cancel()
        if self._tasks.pop(slot, None) is not None:  # else it was abandoned
            self._known(happening)

    def _tell_uncalled(self, slot: int, notes: Notes) -> None:
        """A call has ended without a value: have it written down if it was never made."""
        if slot not in self._tasks or slot in self.entered:
            return
        call = self.call_of(slot)
        fallback = call.policy.fallback
        if call.changes or (isinstance(fallback, Tool) and may_write(fallback)):
            notes.uncalled(slot)

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
                    return await self._fall_back(slot, call, error)
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
        watched = call.wants_site or self._announces(call)
        site = Attempt(self, slot, attempt, call) if watched else None
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

    async def untimed(self, slot: int, call: BoundCall, wait: Awaitable[object], why: str) -> None:
        """Wait for something in time that is not the call's own; `why` is as in `NodeWaited`."""
        self.timers.stop(slot)
        since = self.loop.time()
        if (attempt := self.entered.get(slot)) is not None and not attempt.over:
            del self.entered[slot]  # its part was of no use, and it is not called yet
        await wait
        if self.teller is not None and self.loop.time() > since:
            self.teller.waited(slot, why, self.loop.time() - since)
        if slot in self._tasks:  # else others wait for what it had begun
            self._time(slot, call)

    async def _take_turn(self, slot: int, call: BoundCall, limiter: RateLimiter) -> None:
        """Wait until the rate allows another call; that is not the call's own time."""
        wait = limiter.delay(self.loop.time())
        if self.deadline is not None:
            self.deadline.check_turn(wait, limiter, call)
        if wait > 0:
            await self.untimed(slot, call, asyncio.sleep(wait), "rate")

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
        site: Attempt | None,
        owed: RateLimiter | None,
    ) -> Any:
        """The value of one attempt, or one from the cache in its place."""
        answers = None if call.reused is None else self.answers
        if answers is not None and (asked := answers.asked(slot, call)) is not None:
            return await answers.value(slot, call, asked, site, attempt, owed)
        bill = self.bill(call)
        try:
            return await self._invoked(slot, call, site)
        finally:
            if bill is not None and call.changes and self.entered.get(slot) is not site:
                bill.waive()
            elif bill is not None:
                bill.pay()

    def bill(self, call: BoundCall) -> Bill | None:
        """The price of one attempt, set aside; None if it has none.

        Raises:
            BudgetExceeded: It does not fit.
        """
        return Bill(self.ledger, call.policy.usd) if call.policy.usd else None

    async def _invoked(self, slot: int, call: BoundCall, site: Attempt | None) -> Any:
        args, kwargs = self.arguments(slot)
        if self._announces(call) and not self._is_entered(slot, call):
            await self._announced(slot, call)
        if slot not in self.parts.claimed:
            make = call.invoke if self.deadline is None else self.deadline.timed(call)
            return await make(args, kwargs, site)
        valid, named = call.tool.signature.validate(tuple(args), kwargs)
        if call.changes and site is not None and self.parts.begun(slot):
            site.entered()  # by its part, which has its commit now
        return await self.parts.make(slot, call, valid, named, site)

    def _announces(self, call: BoundCall) -> bool:
        """Whether it is written down of a call that it may be made."""
        return call.changes and self.notes is not None

    async def _fall_back(self, slot: int, failed: BoundCall, error: Exception) -> Any:
        """What takes the place of a call that has failed for good."""
        fallback = failed.policy.fallback
        if fallback is UNSET:
            if isinstance(error, Remembered):
                raise error.failure from error.failure.__cause__
            raise error
        if not isinstance(fallback, Tool):
            return fallback
        call = self._services.call(fallback, fallback.policy)
        await self.inquiry.approved(slot, call)
        self._time(slot, call)
        if call.gate is not failed.gate:
            await self._move(slot, call)
        return await self._made(slot, call)

    async def _move(self, slot: int, call: BoundCall) -> None:
        """Wait for a place for another tool than the one whose place a call has, and give that up."""
        if (place := self._places.get(slot)) is None:
            rank, gate = self.state.nodes[slot].rank, self.state.hand_over(slot)
            place = self._places[slot] = Place(gate, rank, held=True)
        await self.untimed(slot, call, place.move(call.gate), "tool")
        if call.gate.leaving:
            await self.untimed(slot, call, call.gate.emptied(), "guest")

    def _time(self, slot: int, call: BoundCall) -> None:
        if call.timeout is not None:
            self.timers.start(slot, call.timeout)
