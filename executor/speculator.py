"""Speculation in one run: starts calls that are likely to be asked for, and keeps the accounts.

A guess is the very call that would be made: it runs through the tool cache under its own key,
and counts only if that call is then asked for. So nothing has to be undone, and with or
without guesses a run makes the same calls and gets the same results.

After "What limits agentic systems efficiency?" (SpecCache) and Speculative Actions (Ye et al.,
2025); that the arguments are derived from history is PASTE's idea.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from agentflow import events
from agentflow.caches.speculation.foresight import Foresight, SpeculationStats
from agentflow.caches.speculation.policy import origins_in
from agentflow.caches.speculation.trail import Trail
from agentflow.caches.tool_cache import Ask
from agentflow.errors import AgentflowError, BudgetExceeded
from agentflow.executor.billing import Advance
from agentflow.executor.calls import BoundCall
from agentflow.executor.guesses import FAILED, STALE, UNFIT, Guess, Unasked, Wish
from agentflow.executor.reuse import Asked, Reuse
from agentflow.executor.services import Services
from agentflow.executor.supposing import Supposing
from agentflow.tools.tool import Tool
from agentflow.tools.values import plain

if TYPE_CHECKING:
    from agentflow.executor.run import Run

PRIOR = 0.5
"""Seconds that a call is taken to last before one of its tool was measured."""

CHAINED = 3
"""Guesses that have a value whose successors are looked for at once."""


class Speculator:
    """Guesses for one run.

    Args:
        foresight: What the engine has learnt, and what it may spend.
        services: What the engine's runs share.
        reuse: Asks the tool cache.
        run: The run.
        context: Context variables that calls see.
    """

    def __init__(
        self,
        foresight: Foresight,
        services: Services,
        reuse: Reuse,
        run: Run[Any],
        context: contextvars.Context,
    ) -> None:
        self._foresight = foresight
        self._policy = foresight.policy
        self._services = services
        self._reuse = reuse
        self._run = run
        self._state = run.driver.state
        self._context = context
        self._site = Unasked(run.id, run.deadline)
        self._loop = asyncio.get_running_loop()
        self._trail = Trail(run.name)
        self._supposing = Supposing(self._state, self._tool, foresight)
        self._news: deque[Callable[[], None]] = deque()
        self._origins = set(self._policy.origins)
        self._guesses: dict[str, Guess] = {}  # not asked for yet, by key
        self._postponed: dict[str, Wish] = {}  # no room, by key
        self._claimed: dict[int, Guess] = {}  # by the slot that asked
        self._count = 0
        self._due = False
        self._closed = False
        self.stats = SpeculationStats()

    # What happens in the run

    def said(self, text: str, by: str) -> None:
        """The user, or the model, said something."""
        self._news.append(partial(self._trail.said, text, by))
        self.soon()

    def ended(
        self, call: BoundCall, arguments: Mapping[str, Any], value: Any, failed: bool
    ) -> None:
        """A committed call of the run has ended."""
        self._news.append(partial(self._called, call, plain(dict(arguments)), value, failed))
        self.soon()

    def _called(self, call: BoundCall, given: dict[str, Any], value: Any, failed: bool) -> None:
        data = str(value) if failed else plain(value)
        tool = call.tool.name
        self._foresight.remember(self._run.name, call.tool)
        self._trail.called(tool, given, data, failed=failed, changes=call.changes)
        if not failed:
            self._foresight.values.note(tool, given, data)
        self._origins.update(origins_in(given))

    def _catch_up(self) -> None:
        """Learn from what has happened since the loop last had a turn."""
        while self._news:
            self._news.popleft()()
            self._foresight.learn(self._trail)

    def soon(self) -> None:
        """Something has changed: think again when the loop gets a turn."""
        if not self._due and not self._closed:
            self._due = True
            self._loop.call_soon(self._consider)

    def claim(self, slot: int, ask: Ask) -> bool:
        """A call is asked for: whether a guess has its value, or is about to."""
        guess = self._guesses.pop(ask.key, None)
        if guess is None:
            if self._postponed.pop(ask.key, None) is not None:
                self._tell(events.SpeculationOvertaken, 0, ask.of.name)
            return False
        guess.call.gate.part(guess)
        if not self._reuse.cache.has(ask):
            self._waste(guess, STALE)
            return False
        if guess.bill is not None:
            guess.bill.waive()  # whoever asked pays
        self._claimed[slot] = guess
        return True

    def claims(self, slot: int) -> bool:
        """Whether a guess was claimed for a call."""
        return slot in self._claimed

    def settled(self, slot: int, saved: float | None) -> bool:
        """A call has its value, or has ended: whether a claimed guess was used for it.

        Args:
            slot: Of the call.
            saved: Seconds that the guess saved; None if it was of no use.
        """
        if (guess := self._claimed.pop(slot, None)) is None:
            return False
        if saved is None:
            self._waste(guess, FAILED)
            return False
        self._foresight.depth.note(guess.wish.depth, kept=True)
        for stats in (self.stats, self._foresight.stats):
            stats.used += 1
            stats.seconds_saved += saved
        self._tell(events.SpeculationUsed, guess.number, guess.wish.tool, saved)
        return True

    def close(self) -> None:
        """The run is over: nobody will ask for what is left."""
        if not self._closed:
            self._closed = True
            self._catch_up()
            self._foresight.close(self._trail)
            for guess in [*self._guesses.values(), *self._claimed.values()]:
                self._waste(guess, guess.why)
            self._guesses.clear()
            self._claimed.clear()

    # Deciding

    def _consider(self) -> None:
        """Start what is worth starting, the best first."""
        self._due = False
        if self._closed:
            return
        self._catch_up()
        self._postponed.clear()
        ready = []
        for wish in self._wishes():
            if (found := self._worthwhile(wish)) is not None:
                ready.append(found)
        ready.sort(key=lambda found: -found[0])
        for worth, wish, call, asked in ready:
            self._start(worth, wish, call, asked)

    def _wishes(self) -> Iterable[Wish]:
        limit = self._policy.breadth * 2
        for found in self._foresight.candidates(self._trail, limit):
            likely = max(found.probability, found.later)
            yield Wish(found.tool, found.arguments, likely, found.reason)
        yield from self._supposing.wishes(self._guesses.values())
        if self._foresight.depth.allowed > 1:
            yield from self._chained(limit)

    def _chained(self, limit: int) -> Iterable[Wish]:
        """What would come next if the guesses that have a value came true."""
        deepest = self._foresight.depth.allowed
        landed = [g for g in self._guesses.values() if g.seconds is not None]
        landed = [g for g in landed if g.wish.depth < deepest]
        for guess in sorted(landed, key=lambda g: -g.wish.probability)[:CHAINED]:
            wish = guess.wish
            trail = self._trail.supposing(wish.tool, wish.arguments, plain(guess.value))
            for found in self._foresight.candidates(trail, limit):
                likely = wish.probability * max(found.probability, found.later)
                yield Wish(found.tool, found.arguments, likely, found.reason, wish.depth + 1)

    def _worthwhile(self, wish: Wish) -> tuple[float, Wish, BoundCall, Asked] | None:
        """What a wish would gain, if it may be started and gains anything."""
        call = self._call(wish)
        if call is None:
            return None
        delay = 0.0 if call.policy.rate is None else 1.0 / call.policy.rate
        seconds = call.latencies.mean or PRIOR
        worth = self._policy.gain(wish.probability, seconds, float(call.policy.usd), delay)
        if worth <= 0.0:
            return None
        try:
            asked = self._reuse.ask(call, (), dict(wish.arguments), self._context)
        except AgentflowError:
            return None
        if asked is None or self._reuse.cache.has(asked.ask):
            return None
        return worth, wish, call, asked

    def _call(self, wish: Wish) -> BoundCall | None:
        """The call of a wish, if it is one that may be guessed."""
        tool = self._tool(wish.tool)
        if tool is None or tool.name in self._foresight.unfit:
            return None
        call = self._services.call(tool, tool.policy)
        if call.reused is None or not self._origins.issuperset(origins_in(wish.arguments)):
            return None
        return call

    def _tool(self, name: str) -> Tool[..., Any] | None:
        """A tool of the run, of the engine, or of an earlier run of the same workflow."""
        run = self._run
        known = run.tools.get(name) or run.host.tools.get(name)
        return known or self._foresight.tools.get((run.name, name))

    # Guessing

    def _start(self, worth: float, wish: Wish, call: BoundCall, asked: Asked) -> None:
        key, now = asked.ask.key, self._loop.time()
        if (old := self._guesses.get(key)) is not None:
            if old.seconds is None:
                return
            del self._guesses[key]
            self._waste(old, STALE)
        self._count += 1
        guess = Guess(self._count, wish, asked, call, worth, now)
        self._tell(
            events.CallPredicted,
            guess.number,
            wish.tool,
            dict(wish.arguments),
            wish.probability,
            wish.reason,
        )
        if not self._has_room(guess):
            self._postponed[key] = wish
            return
        self._guesses[key] = guess
        guess.task = self._context.copy().run(
            self._services.spawn, self._fly(guess), f"guess of {wish.tool}"
        )
        for stats in (self.stats, self._foresight.stats):
            stats.started += 1
        self._tell(events.SpeculationStarted, guess.number, wish.tool)

    def _has_room(self, guess: Guess) -> bool:
        """Whether a guess may start: nothing that was asked for waits for what it takes."""
        call, now = guess.call, self._loop.time()
        under_way = sum(other.seconds is None for other in self._guesses.values())
        if under_way >= self._policy.breadth or self._state.crowded:
            return False
        if call.tool.kind == "thread" and not self._services.threads.spare:
            return False
        if call.policy.usd:
            try:
                guess.bill = Advance(self._foresight.ledger, call.policy.usd)
            except BudgetExceeded:
                return False
        if call.gate.admit_guest(guess):
            if call.limiter is None or call.limiter.delay(now) <= 0:
                return True
            call.limiter.give_back(now, 0, request=True)
            call.gate.part(guess)
        if guess.bill is not None:
            guess.bill.waive()
        return False

    async def _fly(self, guess: Guess) -> None:
        asked, call = guess.asked, guess.call
        make = partial(call.make, asked.args, asked.kwargs, self._site)
        try:
            async with asyncio.timeout(call.policy.timeout):
                found = await self._reuse.cache.obtain(
                    asked.ask, make, bill=guess.bill, optional=True
                )
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):
                guess.why = FAILED
            self._drop(guess)
            if not isinstance(error, Exception):
                raise
        else:
            guess.seconds, guess.value = found.seconds, found.value
            if found.source == "call" and not call.policy.hedge:
                call.latencies.note(found.seconds)
            if not self._reuse.cache.has(asked.ask):
                self._foresight.unfit.add(call.tool.name)
                guess.why = UNFIT
                self._drop(guess)
        finally:
            call.gate.part(guess)
            self.soon()

    def _drop(self, guess: Guess) -> None:
        """A guess has ended in vain, unless it was claimed: then who claimed it will see."""
        if self._guesses.get(guess.asked.ask.key) is guess:
            del self._guesses[guess.asked.ask.key]
            self._waste(guess, guess.why)

    def _waste(self, guess: Guess, why: str) -> None:
        took = self._loop.time() - guess.began if guess.seconds is None else guess.seconds
        if guess.seconds is None:
            guess.task.cancel()
        if guess.bill is not None:
            guess.bill.lose()
        self._foresight.depth.note(guess.wish.depth, kept=False)
        for stats in (self.stats, self._foresight.stats):
            stats.wasted += 1
            stats.seconds_wasted += took
            stats.usd_wasted += float(guess.usd)
        self._tell(
            events.SpeculationWasted, guess.number, guess.wish.tool, took, str(guess.usd), why
        )

    def _tell(self, kind: Callable[..., events.Event], number: int, *fields: Any) -> None:
        if self._run.watched:
            self._run.emit(kind(self._run.id, self._loop.time(), number, *fields))
