"""Answers to the calls of one run that need not be made, or not by this run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from agentflow.caches.tool_cache import Found
from agentflow.errors import BudgetExceeded
from agentflow.executor.calls.bound import BoundCall
from agentflow.executor.calls.reuse import Asked, Reuse, written
from agentflow.executor.calls.site import CallSite
from agentflow.executor.models.ratelimit import RateLimiter
from agentflow.executor.speculation.speculator import Speculator
from agentflow.executor.state.commands import Failed, Finished, Happening, Stopped
from agentflow.tools.effects import Resource

if TYPE_CHECKING:
    from agentflow.executor.calls.running import Running

T = TypeVar("T")


class Answers:
    """Stands between the calls of a run and the cache and the guesses that may answer them.

    Args:
        calls: The calls that are under way.
        reuse: Names calls for the tool cache.
        speculator: Starts calls before they are asked for, or None.

    Attributes:
        cache: Results of tools.
        speculator: As given.
    """

    def __init__(self, calls: Running, reuse: Reuse, speculator: Speculator | None) -> None:
        self._calls = calls
        self._reuse = reuse
        self.cache = reuse.cache
        self.speculator = speculator
        self._asked: dict[int, Asked] = {}  # of calls that are about to be made
        self._writing: dict[int, tuple[Resource, ...]] = {}  # what calls under way may write
        self._held: dict[int, list[tuple[int, BoundCall, Happening]]] = {}  # before their line

    # Before a call

    def before(self, slot: int, call: BoundCall) -> Found | None:
        """A call is about to start: its value, if it is there already."""
        if call.changes:
            self._begin(slot, call)
        return None if call.reused is None else self._known(slot, call)

    def _known(self, slot: int, call: BoundCall) -> Found | None:
        if (asked := self._named(slot, call)) is None:
            return None
        guesses = self.speculator
        # What nobody has paid for yet is not had for nothing.
        owing = guesses is not None and guesses.claim(slot, asked.ask) and guesses.owes(slot)
        if owing or (found := self.cache.find(asked.ask)) is None:
            self._asked[slot] = asked
            return None
        return self._taken(slot, call, found)

    def looked_up(self, slot: int, call: BoundCall) -> Found | None:
        """The value of a call that waits for room, if it is there already and owes nothing."""
        asked = None if call.policy.usd else self._named(slot, call)
        if asked is None or (found := self.cache.find(asked.ask)) is None:
            return None
        if self.speculator is not None:
            self.speculator.claim(slot, asked.ask)
        return self._taken(slot, call, found)

    def _taken(self, slot: int, call: BoundCall, found: Found) -> Found:
        self._tell(slot, found)
        self._inform(slot, call, Finished(slot, found.value))
        return found

    def _named(self, slot: int, call: BoundCall) -> Asked | None:
        """A call as the cache knows it; None if it has no name, or cannot be made."""
        try:
            return self._ask(slot, call, self._calls.context_of(slot))
        except Exception:  # noqa: BLE001  # the call itself will raise it
            return None

    def _ask(self, slot: int, call: BoundCall, context: Context) -> Asked | None:
        return self._reuse.ask(call, *self._calls.arguments(slot), context)

    # In place of a call

    def coming(self, slot: int) -> bool:
        """Whether the value of a call that is about to be made is there, or on its way."""
        asked = self._asked.get(slot)
        return asked is not None and self.cache.has(asked.ask)

    def asked(self, slot: int, call: BoundCall) -> Asked | None:
        """A call as the cache knows it, asked for by its own task; None if it has no name.

        Raises:
            ArgumentError: The arguments are wrong.
        """
        return self._asked.pop(slot, None) or self._ask(slot, call, copy_context())

    async def value(
        self,
        slot: int,
        call: BoundCall,
        asked: Asked,
        site: CallSite | None,
        attempt: int,
        owed: RateLimiter | None,
    ) -> Any:
        """A value that is kept, under way for somebody else, or made.

        Args:
            slot: Of the call.
            call: The tool.
            asked: The call, as the cache knows it.
            site: Where it is made.
            attempt: Counted from 1.
            owed: What the call has to wait for if it is made after all, or None.

        Raises:
            Remembered: The call failed not long ago, and is not made.
        """
        begun = self._calls.parts.begun(slot)
        make = self._making(slot, call, asked, site, None if begun else owed)

        def final(error: Exception) -> bool:
            return not call.may_retry(attempt, error)

        try:
            bill = self._calls.bill(call)
        except BudgetExceeded:
            if self._owes(slot) or (kept := await self.cache.kept(asked.ask)) is None:
                raise
            self._tell(slot, kept)
            return kept.value
        try:
            found = await self.cache.obtain(asked.ask, make, bill=bill, final=final)
            if bill is not None and self._owes(slot):
                bill.pay()
        finally:
            if bill is not None:
                bill.waive()
        if found.source != "call":
            self._tell(slot, found)
        elif not call.policy.hedge and not begun:
            call.latencies.note(found.seconds)
        return found.value

    def _making(
        self,
        slot: int,
        call: BoundCall,
        asked: Asked,
        site: CallSite | None,
        owed: RateLimiter | None,
    ) -> Callable[[], Awaitable[Any]]:
        """Makes the call, as a part of what is being written or from the start."""
        make = partial(
            self._calls.parts.make, slot, call, asked.args, asked.kwargs, site, asked.ask
        )
        return make if owed is None else partial(self._calls.in_turn, slot, call, owed, make)

    def _owes(self, slot: int) -> bool:
        """Whether a call is to pay for the guess that it took."""
        return self.speculator is not None and self.speculator.owes(slot)

    def _tell(self, slot: int, found: Found) -> None:
        source = found.source
        if self.speculator is not None and self.speculator.settled(slot, found.seconds):
            source = "speculated"
        if self._calls.teller is not None:
            self._calls.teller.reused(slot, source, found.seconds)

    # Writes

    async def write(self, slot: int, call: BoundCall, make: Callable[[], Awaitable[T]]) -> T:
        """A call that may write; other processes that share the cache know of it before."""
        resources = written(call.tool, *self._calls.arguments(slot))
        fallback = slot not in self._writing  # it writes in place of a call that does not
        if fallback:
            self.cache.epochs.begin(resources)
        try:
            async with self.cache.epochs.writing(resources):
                return await make()
        finally:
            if fallback:
                self.cache.epochs.end(resources)

    def listen(self) -> None:
        """From now on something can become stale; calls that may write may be under way."""
        for slot in self._calls.started():
            call = self._calls.call_of(slot)
            if call.changes and slot not in self._writing:
                self._begin(slot, call)

    def _begin(self, slot: int, call: BoundCall) -> None:
        """A call that may write begins: what was read before is stale."""
        resources = self._writing[slot] = self._resources(slot, call)
        self.cache.epochs.begin(resources)

    def _end(self, slot: int) -> None:
        """It has ended, or is not waited for any more: what was read meanwhile is stale."""
        if (resources := self._writing.pop(slot, None)) is not None:
            self.cache.epochs.end(resources)

    def given_up(self, slot: int, call: BoundCall, task: asyncio.Task[None]) -> None:
        """A call is not waited for any more; it may write for as long as its task runs."""
        if call.changes:
            resources, epochs = self._resources(slot, call), self.cache.epochs
            epochs.begin(resources)
            task.add_done_callback(lambda _: epochs.end(resources))

    def _resources(self, slot: int, call: BoundCall) -> tuple[Resource, ...]:
        try:
            return written(call.tool, *self._calls.arguments(slot))
        except Exception:  # noqa: BLE001  # the call itself will raise it, and not be made
            return ()

    # After a call

    def ended(self, slot: int, call: BoundCall, happening: Happening) -> None:
        """A call has ended."""
        if call.changes and self.cache.listening:
            self._end(slot)
        self._inform(slot, call, happening)

    def committed(self, node: int) -> None:
        """A call belongs to the plan, which was not certain before; it may have ended."""
        for ended in self._held.pop(node, ()):
            self._inform(*ended)

    def _inform(self, slot: int, call: BoundCall, happening: Happening) -> None:
        """Tell the speculator of a call that has ended, if it belongs to the plan."""
        speculator, calls = self.speculator, self._calls
        if speculator is None:
            return
        speculator.settled(slot, None)
        if isinstance(happening, Stopped):
            return
        if not calls.belongs(node := calls.state.where(slot)[0]):
            self._held.setdefault(node, []).append((slot, call, happening))
            return
        try:
            arguments = call.tool.spec.bind(*calls.arguments(slot))
        except Exception:  # noqa: BLE001  # it was never called, or nobody can copy what it got
            return
        if isinstance(happening, Finished):
            speculator.ended(call, arguments, happening.value, failed=False)
        elif isinstance(happening, Failed):
            speculator.ended(call, arguments, happening.error, failed=True)
