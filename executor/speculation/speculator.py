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
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from agentflow.caches.speculation.candidates import Candidate
from agentflow.caches.speculation.foresight import Foresight, SpeculationStats
from agentflow.caches.speculation.trail import Trail
from agentflow.caches.speculation.values import Recent
from agentflow.caches.tool_cache import Ask, Found
from agentflow.context import run_scope
from agentflow.executor.calls.bound import BoundCall
from agentflow.executor.calls.reuse import Reuse
from agentflow.executor.calls.threads import from_anywhere
from agentflow.executor.calls.uncertain import Refused
from agentflow.executor.services import Services
from agentflow.executor.speculation.appraiser import Appraiser
from agentflow.executor.speculation.guesses import Guess, Prospect, Unasked, Why, Wish
from agentflow.executor.speculation.records import Records
from agentflow.executor.speculation.room import Room
from agentflow.executor.speculation.supposing import Supposing
from agentflow.executor.state.commands import RUNNING
from agentflow.tools.values import plain
from agentflow.wording import described

if TYPE_CHECKING:
    from agentflow.executor.run import Run

_log = structlog.get_logger("agentflow.executor")

CHAINED = 3
"""Guesses that have a value whose successors are looked for at once."""

HELD = 256
"""Guesses of one run that are kept until somebody asks for them."""

LATER = 0.5
"""What a call in some later turn counts beside one in the next: it can still be guessed then."""


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
        self._appraiser = Appraiser(foresight, services, reuse, run, context)
        self._supposing = Supposing(
            self._state, run.driver.started, self._appraiser.tool, foresight
        )
        self._news: deque[Callable[[], None]] = deque()
        self._guesses: dict[str, Guess] = {}  # not asked for yet, by key
        self._postponed: dict[str, int] = {}  # numbers of those that found no room, by key
        self._asked: dict[int, str] = {}  # keys of calls under way, by slot
        self._claimed: dict[int, Guess] = {}  # by the slot that asked
        self._vain: Recent[str, None] = Recent(HELD)  # not again before something is written
        self._had: Recent[str, tuple[int, ...]] = Recent(HELD)  # epochs of what was asked for
        self._foreseen: dict[int, Sequence[Candidate]] = {}  # after a guess; 0 is none
        self._count = 0
        self._due = False
        self._closed = False
        self._records = Records(foresight, run)
        self._room = Room(foresight, services, run)

    @property
    def stats(self) -> SpeculationStats:
        """What guessing has brought the run, and cost."""
        return self._records.stats

    # What happens in the run

    def said(self, text: str, by: str) -> None:
        """The user, or the model, said something; a tool may say so from its thread."""
        self._news.append(partial(self._said, text, by))
        if by == "model":
            return  # it speaks to the user, and the next word is theirs
        from_anywhere(self._loop, self.soon)

    def ended(
        self, call: BoundCall, arguments: Mapping[str, Any], value: Any, failed: bool
    ) -> None:
        """A committed call of the run has ended."""
        self._news.append(partial(self._called, call, plain(dict(arguments)), value, failed))
        self.soon()

    def _said(self, text: str, by: str) -> None:
        self._foreseen.clear()
        self._trail.said(text, by)

    def _called(self, call: BoundCall, given: dict[str, Any], value: Any, failed: bool) -> None:
        data = str(value) if failed else plain(value)
        tool = call.tool.name
        self._appraiser.called(call.tool, call.policy, given)
        if call.changes:
            self._vain.clear()
        self._trail.called(tool, given, data, failed=failed, changes=call.changes)
        if not failed:
            self._foresight.values.note(tool, given, data)

    def _catch_up(self) -> None:
        """Learn from what has happened since the loop last had a turn."""
        if self._news:
            self._foreseen.pop(0, None)  # what follows a guess still does
        while self._news:
            try:
                self._news.popleft()()
            except Exception as error:  # noqa: BLE001  # values may be of the user's own making
                _log.debug("a call is not learnt from", why=described(error))
                continue
            self._foresight.learn(self._trail)

    def soon(self) -> None:
        """Something has changed: think again when the loop gets a turn."""
        if not self._due and not self._closed:
            self._due = True
            self._loop.call_soon(self._consider)

    def claim(self, slot: int, ask: Ask) -> bool:
        """A call is asked for: whether a guess has its value, or is about to."""
        self._asked[slot] = ask.key
        self._had[ask.key] = self._reuse.cache.epochs.here(ask.resources)
        guess = self._guesses.pop(ask.key, None)
        if guess is None:
            if (number := self._postponed.pop(ask.key, None)) is not None:
                self._records.overtaken(number, ask.of.name)
            return False
        if (trouble := self._trouble(guess)) is not None:
            self._records.wasted(guess, trouble)
            return False
        guess.call.gate.vacate(guess)
        self._claimed[slot] = guess
        return True

    def owes(self, slot: int) -> bool:
        """Whether a call is to pay for the guess that was claimed for it."""
        guess = self._claimed.get(slot)
        return guess is not None and guess.bill is not None and bool(guess.bill.owed)

    def settled(self, slot: int, saved: float | None) -> bool:
        """A call has its value, or has ended: whether a claimed guess was used for it.

        Args:
            slot: Of the call.
            saved: Seconds that the guess saved; None if it was of no use.
        """
        self._asked.pop(slot, None)
        if (guess := self._claimed.pop(slot, None)) is None:
            return False
        if saved is None and not guess.made and guess.why == Why.NOT_ASKED:
            saved = 0.0  # the call began before the guess did
        if saved is None:
            self._vain[guess.key] = None
            self._records.wasted(guess, Why.UNUSED if guess.why == Why.NOT_ASKED else guess.why)
            return False
        self._records.used(guess, saved)
        return True

    def close(self) -> None:
        """The run is over: nobody will ask for what is left."""
        if not self._closed:
            self._closed = True
            self._catch_up()
            self._supposing.learn()
            self._foresight.close(self._trail)
            for guess in [*self._guesses.values(), *self._claimed.values()]:
                self._records.wasted(guess, guess.why)
            self._guesses.clear()
            self._claimed.clear()

    # Deciding

    def _consider(self) -> None:
        """Start what is worth starting, the best first."""
        self._due = False
        if self._closed or self._state.halted or self._run.recalls:
            return
        began = self._loop.time()
        self._think()
        self._foresight.leisure.spend(began, self._loop.time())

    def _think(self) -> None:
        self._catch_up()
        self._discard()
        ready = []
        for wish in self._wishes():
            if (found := self._worthwhile(wish)) is not None:
                ready.append(found)
        ready.sort(key=lambda found: -found.worth)
        known, self._postponed = self._postponed, {}
        for found in ready:
            self._start(found, known.get(found.key))

    def _discard(self) -> None:
        """End guesses for calls of the plan that were then made with other arguments, or not."""
        for key, guess in list(self._guesses.items()):
            if guess.wish.slot is not None and self._state.status[guess.wish.slot] >= RUNNING:
                del self._guesses[key]
                self._records.wasted(guess, Why.WRONG)

    def _wishes(self) -> Iterable[Wish]:
        yield from self._supposing.wishes(self._guesses.values())
        if self._run.driver.complete:
            return
        for found in self._after(None):
            likely = max(found.probability, found.later * LATER)
            yield Wish(found.tool, found.arguments, likely, found.reason)
        if self._foresight.depth.allowed > 1:
            yield from self._chained()

    def _after(self, guess: Guess | None) -> Sequence[Candidate]:
        """What comes next, or would if a guess that has a value came true; found out once."""
        number = 0 if guess is None else guess.number
        if (known := self._foreseen.get(number)) is not None:
            return known
        trail = self._trail
        if guess is not None:
            given = plain(dict(guess.wish.arguments))
            trail = trail.supposing(guess.wish.tool, given, plain(guess.value))
        found = self._foresight.candidates(trail, self._policy.breadth * 2)
        self._foreseen[number] = found
        return found

    def _chained(self) -> Iterable[Wish]:
        """What would come next if the guesses that have a value came true."""
        deepest = self._foresight.depth.allowed
        landed = [g for g in self._guesses.values() if g.seconds is not None]
        landed = [g for g in landed if g.wish.depth < deepest]
        asked = False
        for guess in sorted(landed, key=lambda g: -g.wish.probability)[:CHAINED]:
            wish = guess.wish
            if guess.number not in self._foreseen:
                if asked or wish.probability < self._foresight.bar.level:
                    continue
                if not self._foresight.leisure.left(self._loop.time()):
                    continue
                asked = True
                self.soon()  # for the others
            for found in self._after(guess):
                likely = wish.probability * max(found.probability, found.later * LATER)
                yield Wish(found.tool, found.arguments, likely, found.reason, wish.depth + 1)

    def _worthwhile(self, wish: Wish) -> Prospect | None:
        """A wish that is worth starting, unless its value is there, or could not be kept."""
        found = self._appraiser.appraise(wish)
        if found is None or found.key in self._vain or self._is_asked(found.asked.ask):
            return None
        old = self._guesses.get(found.key)
        if old is not None and (old.seconds is None or self._trouble(old) in (None, Why.GONE)):
            return None  # it is under way or there, or the cache had no room for it
        being_written = self._reuse.cache.epochs.written(found.asked.ask.resources)
        return None if being_written else found

    def _is_asked(self, ask: Ask) -> bool:
        """Whether the value of a call is there, or on its way, or about to be.

        Whether other processes have written is not always known; that it is the same here is.
        """
        cache = self._reuse.cache
        if ask.key in self._asked.values() or cache.has(ask):
            return True
        had = self._had.get(ask.key) == cache.epochs.here(ask.resources)
        return had and cache.memory.get_now(ask.key) is not None

    # Guessing

    def _start(self, prospect: Prospect, number: int | None) -> None:
        """Start a guess, if there is room; `number` is what it has been told of as."""
        key, wish = prospect.key, prospect.wish
        if (old := self._guesses.get(key)) is not None:
            if old.seconds is None:
                return
            del self._guesses[key]
            self._records.wasted(old, self._trouble(old) or Why.GONE)
        if key in self._postponed:
            return
        if number is None:
            number = self._count = self._count + 1
            self._records.predicted(number, wish)
        epochs = self._reuse.cache.epochs.here(prospect.asked.ask.resources)
        guess = Guess(number, prospect, self._loop.time(), epochs)
        if not self._room.admits(guess, self._guesses.values()):
            self._postponed[key] = number
            return
        self._guesses[key] = guess
        context = self._context.copy()
        context.run(run_scope.set, guess.scope)
        guess.task = context.run(self._services.spawn, self._fly(guess), f"guess of {wish.tool}")
        guess.task.add_done_callback(partial(self._landed, guess))
        self._records.started(guess)
        if wish.slot is not None:
            self.soon()  # what it will give can be supposed

    async def _fly(self, guess: Guess) -> Found:
        make, bill = partial(self._make, guess), guess.bill
        async with asyncio.timeout(guess.call.policy.timeout):
            return await self._reuse.cache.obtain(guess.asked.ask, make, bill=bill, optional=True)

    async def _make(self, guess: Guess) -> Any:
        guess.made = True
        if guess.bill is not None:
            guess.bill.pay()
        value = await guess.call.make(guess.asked.args, guess.asked.kwargs, self._site)
        if guess.scope.refused:
            raise Refused("it went on without what it was refused")
        return value

    def _landed(self, guess: Guess, task: asyncio.Task[Found]) -> None:
        """A guess has ended, perhaps before it began."""
        guess.seconds = self._loop.time() - guess.began
        if task.cancelled():
            self._drop(guess)
        elif task.exception() is not None:
            guess.why = Why.FAILED
            self._vain[guess.key] = None
            if guess.scope.refused:
                self._foresight.unfit.add(guess.call.tool.name)
            self._drop(guess)
        else:
            self._take_in(guess, task.result())
        if guess.bill is not None:
            guess.bill.end()
        guess.call.gate.ended(guess)
        self.soon()

    def _take_in(self, guess: Guess, found: Found) -> None:
        """Keep the value of a guess until it is asked for, if the cache keeps it."""
        guess.value, call, key = found.value, guess.call, guess.key
        if found.source == "call" and not call.policy.hedge:
            call.latencies.note(found.seconds)
        if (trouble := self._trouble(guess)) is not None:
            guess.why = trouble
            if trouble != Why.STALE:
                guess.why = Why.UNFIT
                self._vain[key] = None
                if guess.asked.ask.of.codec.encode(found.value) is None:
                    self._foresight.unfit.add(call.tool.name)
            self._drop(guess)
        elif len(self._guesses) > HELD:
            oldest = next(iter(self._guesses.values()))
            oldest.why = Why.CROWDED_OUT
            self._drop(oldest)

    def _trouble(self, guess: Guess) -> Why | None:
        """Why a guess is of no use to who asks for it now, if it is of none."""
        cache, ask = self._reuse.cache, guess.asked.ask
        if cache.epochs.here(ask.resources) != guess.epochs:
            return Why.STALE
        if guess.seconds is None:
            return Why.MADE_WAY if guess.why == Why.MADE_WAY else None
        return None if cache.memory.get_now(ask.key) is not None else Why.GONE

    def _drop(self, guess: Guess) -> None:
        """A guess has ended in vain, unless it was claimed: then who claimed it will see."""
        if self._guesses.get(guess.key) is guess:
            del self._guesses[guess.key]
            self._records.wasted(guess, guess.why)
