"""A part: one call, made while a model still writes it.

It is the call itself, early, and outside of the plan: a guest at the gate of its tool, its price
set aside, heard by nobody. The call that is made in the end adopts it, if its arguments are the
same; otherwise the part is retracted and the call is made as if there had been none.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import structlog

from agentflow.caches.cancelling import cancel_once
from agentflow.context import run_scope
from agentflow.executor.calls.billing import Bill
from agentflow.executor.calls.bound import BoundCall, ended
from agentflow.executor.partial.inputs import Inputs
from agentflow.executor.partial.records import Records
from agentflow.executor.partial.stage import Stage, Uncommitted
from agentflow.tools.effects import Resource
from agentflow.tools.warmup import needed

if TYPE_CHECKING:
    from agentflow.executor.calls.site import CallSite
    from agentflow.executor.run import Run

_log = structlog.get_logger("agentflow.executor")


class Why(StrEnum):
    """Why a part was of no use."""

    NOT_COMPLETED = "its call was not completed"
    NOT_MADE = "its call was not made"
    REJECTED = "an argument was rejected"
    KNOWN = "the value was there already"
    OTHER_ARGUMENTS = "the call was made with other arguments"
    STALE = "what it read has been written since"
    ENDED = "the run ended first"
    MADE_WAY = "it made way for a call"
    REFUSED = "it wanted a run or a model before its call was certain"


class Part:
    """One call that has begun to exist. A guest at its tool's gate.

    It begins with the warm-up of its tool (`begin`), calls the tool when that is over and
    nothing but late arguments is missing (`go_on`), and ends in `adopt` or in `retract`.

    Args:
        number: Counts in its run.
        call: The tool, ready to be called.
        run: The run.
        records: Told how it goes.

    Attributes:
        records: Told how it goes.
        worth: More than any guess: of several guests the least makes way.
        inputs: The arguments, as far as they are known.
        task: Its work, or None until there is any.
        called: The tool itself was called, has taken its turn and is paid for.
        adopted: The call that was made is this one.
        why: Why it is of no use; None while it may be.
    """

    worth = math.inf

    def __init__(self, number: int, call: BoundCall, run: Run[Any], records: Records) -> None:
        self.number = number
        self.call = call
        self.records = records
        self.inputs = Inputs(call.tool)
        self.task: asyncio.Task[Any] | None = None
        self.called = False
        self.adopted = False
        self.why: Why | None = None
        self._run = run
        self._services = run.host.services
        self._loop = asyncio.get_running_loop()
        self._warms = call.tool.origin.warm_up is not None
        self._stage = Stage(run)
        self._scope = Uncommitted()
        self._context = contextvars.Context()
        self._go: asyncio.Future[None] = self._loop.create_future()
        self._claimed = False
        self._bill: Bill | None = None
        self._began = 0.0
        self._ended: float | None = None
        self._read: tuple[tuple[Resource, ...], tuple[int, ...] | None] = ((), ())
        self._final: tuple[Any, dict[str, Any], Any] | None = None  # what the call is made with

    @property
    def seconds(self) -> float:
        """How long it has worked, or waited to."""
        return (self._loop.time() if self._ended is None else self._ended) - self._began

    @property
    def hidden(self) -> float:
        """Seconds of its work that are over; it has not waited in them."""
        return max(0.0, self.seconds - self.inputs.patience.seconds)

    @property
    def undecided(self) -> bool:
        """Whether it may still begin, or call the tool."""
        return self.why is None and not self._go.done()

    # Beginning

    def begin(self, context: contextvars.Context) -> None:
        """Begin with the warm-up, if there is one, unless there is no place at the gate."""
        if not self.call.gate.admit_guest(self):
            return
        self._context = context
        context.run(run_scope.set, self._scope)
        self._began = self._loop.time()
        name = f"{self.call.tool.name} (part of run {self._run.id})"
        self.task = self._services.spawn(self._work(), name, context=context)
        self.task.add_done_callback(self._done)
        if self._warms:
            self.records.warmed(self)

    def go_on(self) -> None:
        """Call the tool with what is known of its arguments, once it is warm."""
        if not self._go.done():
            self._go.set_result(None)

    async def _work(self) -> Any:
        tool = self.call.tool
        warm_up, role = tool.origin.warm_up, tool.signature.roles.warm
        if role is not None:
            warm_up = needed(warm_up, tool.name, role)
        if warm_up is None:
            return await self._call({})
        warming = warm_up.open(self.inputs.late(warm_up.needs), self._stage.context())
        ready = await warming.__aenter__()
        return await ended(warming, self._call({role: ready} if role else {}), self._stage)

    async def _call(self, warm: Mapping[str, Any]) -> Any:
        with self.inputs.patience:
            await self._go
        if not self._claimed:
            await self._note_epochs()
        if self._claimed or not self._book():
            with self.inputs.patience:
                await asyncio.shield(self.inputs.certain)
        if self._final is not None:
            args, kwargs, site = self._final
        else:
            (args, kwargs), site = self.inputs.known(), self._stage
            self.records.started(self)
        return await self.call.work(args, {**kwargs, **warm}, site)

    async def _note_epochs(self) -> None:
        """Remember how old what it reads is, as far as it is known what that is."""
        cache, effect = self._services.cache, self.call.tool.effect
        if cache is not None and effect.kind == "reads":
            resources = effect.touched(self.inputs.given)
            self._read = resources, await cache.look(resources)

    def _book(self) -> bool:
        """Take the call's turn, if there is one now and its price is taken from no other call.

        What may be in vain is not paid out of a budget in USD that certain calls live on.
        """
        limiter, usd, ledger = self.call.limiter, self.call.policy.usd, self._run.ledger
        scarce = bool(usd) and ledger.left.usd is not None
        if not scarce and limiter is not None and limiter.delay(now := self._loop.time()) > 0:
            limiter.give_back(now, 0, request=True)
            scarce = True
        if scarce:
            self.call.gate.vacate(self)
            return False
        self._bill, self.called = Bill(ledger, usd) if usd else None, True
        return True

    # The call is made

    def claim(self, arguments: Mapping[str, Any]) -> bool:
        """The call starts, with these arguments: whether it is this one; it is retracted if not."""
        if self.task is None or self.why is not None:
            self.retract(Why.NOT_COMPLETED)
        elif self._scope.refused:
            self.retract(Why.REFUSED)
        elif not self.inputs.fit(arguments):
            self.retract(Why.OTHER_ARGUMENTS)
        else:
            self._claimed = True
            self.call.gate.vacate(self)
            return True
        return False

    async def trouble(self, args: Any, kwargs: dict[str, Any]) -> Why | None:
        """Why a call with these arguments cannot go on from this, though it claimed it."""
        try:
            fresh = not self.called or await self._is_fresh()
        except BaseException:
            self._hand_over()
            self.retract(Why.NOT_MADE)
            raise
        if self.why is not None:
            return self.why
        if self._scope.refused:
            return Why.REFUSED
        if not self.inputs.agree(args, kwargs):
            return Why.OTHER_ARGUMENTS
        return None if fresh else Why.STALE

    async def _is_fresh(self) -> bool:
        """Whether nothing that it read has been written since."""
        resources, before = self._read
        if not resources:
            return True
        cache = self._services.cache
        assert cache is not None, "it was asked before"
        return before is not None and await cache.look(resources) == before

    async def adopt(
        self, node: int, place: int | str, args: Any, kwargs: dict[str, Any], site: CallSite | None
    ) -> Any:
        """The value of the call, of which this is the beginning; there is no `trouble` with it.

        Args:
            node: Plan id of the call.
            place: The same for the log.
            args: The call's arguments by position, validated.
            kwargs: Likewise by name.
            site: Where the call is made.
        """
        assert self.task is not None, "it was claimed"
        hidden, self.adopted = self.hidden, True
        self._run.driver.parts.adopted(self, node, hidden)
        self._stage.join(site)
        self._context.run(self._scope.commit, self._run, place)
        if not self.called:
            self._final = args, kwargs, site
        self._hand_over()
        self.inputs.complete(args, kwargs)
        self.go_on()
        return await self.task

    def _hand_over(self) -> None:
        """What was called is the call's, which has set its own price aside."""
        if self._bill is not None:
            self._bill.waive()

    # The end

    async def ended(self) -> None:
        """Wait until it has ended, or was given up on."""
        if self.task is not None:
            await asyncio.wait([self.task], timeout=self._services.limits.grace)

    def leave(self) -> None:
        """Make way for a call that was asked for."""
        self.retract(Why.MADE_WAY)

    def retract(self, why: Why) -> None:
        """It is of no use: nothing of it remains once it has ended."""
        if self.adopted or self.why is not None:
            return
        self.why = why
        if self._bill is not None:
            self._bill.pay()
        self._run.driver.parts.retracted(self)
        self.inputs.abandon()
        self._go.cancel()
        if self.called or (self._warms and self.task is not None):
            self.records.retracted(self, why)
        if self.task is not None and not self.task.done():
            cancel_once(self.task)
            self._run.driver.afterwards.wait_for(self.task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._ended = self._loop.time()
        self.call.gate.ended(self)
        self._stage.close()
        unasked = not (self.call.tool.effect.starts_early or self.inputs.commit.asked)
        if unasked and not (task.cancelled() or task.exception() or self.adopted):
            name = self.call.tool.name
            _log.warning("returned before its commit, and never awaited it", tool=name)
