"""What guessing has brought one run, and cost: counted, learnt from, and told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentflow import events
from agentflow.caches.cancelling import cancel_once
from agentflow.caches.speculation.foresight import Foresight, SpeculationStats
from agentflow.executor.speculation.guesses import Guess, Why, Wish

if TYPE_CHECKING:
    from agentflow.executor.run import Run


class Records:
    """Keeps the books of the guesses of one run.

    Args:
        foresight: Learns how guesses end.
        run: Whose subscribers are told.

    Attributes:
        stats: Of this run.
    """

    def __init__(self, foresight: Foresight, run: Run[Any]) -> None:
        self._foresight = foresight
        self._run = run
        self.stats = SpeculationStats()

    def predicted(self, number: int, wish: Wish) -> None:
        """A call is likely enough to be started early."""
        about = (dict(wish.arguments), wish.probability, wish.reason)
        self._tell(events.CallPredicted, number, wish.tool, *about)

    def overtaken(self, number: int, tool: str) -> None:
        """A predicted call was asked for before there was room for it."""
        self._tell(events.SpeculationOvertaken, number, tool)

    def started(self, guess: Guess) -> None:
        """A guess was started."""
        for stats in (self.stats, self._foresight.stats):
            stats.started += 1
        self._tell(events.SpeculationStarted, guess.number, guess.wish.tool)

    def used(self, guess: Guess, saved: float) -> None:
        """A guess came true and saved so many seconds."""
        if guess.bill is not None:
            guess.bill.waive()
        self._foresight.note(guess.wish.depth, kept=True)
        for stats in (self.stats, self._foresight.stats):
            stats.used += 1
            stats.seconds_saved += saved
        self._tell(events.SpeculationUsed, guess.number, guess.wish.tool, saved)

    def wasted(self, guess: Guess, why: Why) -> None:
        """A guess was in vain; one that is still under way is ended."""
        took = self._run.now() - guess.began if guess.seconds is None else guess.seconds
        if guess.seconds is None:
            cancel_once(guess.task)
        usd = guess.usd
        if guess.bill is not None:
            guess.bill.lose()
            if guess.seconds is not None:
                guess.bill.end()
        self._foresight.note(guess.wish.depth, kept=False)
        for stats in (self.stats, self._foresight.stats):
            stats.wasted += 1
            stats.seconds_wasted += took
            stats.usd_wasted += float(usd)
        tool = guess.wish.tool
        self._tell(events.SpeculationWasted, guess.number, tool, took, str(usd), str(why))

    def _tell(self, kind: Callable[..., events.Event], number: int, *about: Any) -> None:
        if self._run.watched:
            self._run.emit(kind(self._run.id, self._run.now(), number, *about))
