"""Answers the calls of a resumed run from its history, in the order in which they had ended.

A program that is run again makes the same calls again, as long as what it learns, and in which
order, is the same. So an outcome is held back until those before it are known, and a call that
has no outcome until all of them are. A call that the history does not have, while others of it
were not made yet, shows that the program is another one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from agentflow.errors import HistoryMismatch
from agentflow.executor.journal.book import TURNS
from agentflow.executor.journal.history import History, Outcome, RecordedReply

Deliver = Callable[[Outcome], None]


class Recall:
    """Hands out what a history has.

    Args:
        history: What the run did before.
        loop: Where it runs now.
        ordered: Its program may depend on the order in which calls end; else each outcome is
            handed out when its call is made.
        live: Whether calls that the history does not have are made.

    Attributes:
        history: As given.
        live: As given.
        stuck: Done when the program waits for what is not made anew.
    """

    def __init__(
        self, history: History, loop: asyncio.AbstractEventLoop, *, ordered: bool, live: bool = True
    ) -> None:
        self.history = history
        self._loop = loop
        self._ordered = ordered
        self.live = live
        self._next = deque(history.outcomes.values())
        self.stuck: asyncio.Future[None] = loop.create_future()
        self._asking: dict[str, Deliver] = {}
        self._nested: set[str] = set()  # steps of nested runs that have ended
        self._passed: set[str] = set()  # steps whose outcome had its turn
        self._unmade = dict(history.made)
        self._unread = set(history.replies)
        self._stirring = False
        self._drained: asyncio.Future[None] = loop.create_future()
        self._check()

    @property
    def over(self) -> bool:
        """Whether everything has been handed out."""
        return self._drained.done() and not self._unread

    def has(self, step: str) -> bool:
        """Whether a call ended before."""
        return step in self.history.outcomes

    def made(self, step: str, line: str) -> bool:
        """A call joined a plan; whether it is in the history.

        Raises:
            HistoryMismatch: It is not, and others are that should have come before it.
        """
        if self._unmade.pop(step, None) is not None:
            return True
        if step in self.history.made:
            return True
        if self._ordered and self._unmade:
            raise self._mismatch(line)
        return False

    def ask(self, step: str, deliver: Deliver) -> bool:
        """A call is about to be made: have its outcome handed to `deliver`, if there is one."""
        outcome = self.history.outcomes.get(step)
        if outcome is None or outcome.nested:
            return False
        if not self._ordered or step in self._passed:
            deliver(outcome)
            return True
        self._asking[step] = deliver
        self._stir()
        return True

    async def outcome(self, step: str, *, hold: bool = True) -> Outcome | None:
        """How a call ended before; None if it did not, `hold` until all of the history is known."""
        future: asyncio.Future[Outcome] = self._loop.create_future()

        def deliver(outcome: Outcome) -> None:
            if not future.done():
                future.set_result(outcome)

        if self.ask(step, deliver):
            try:
                return await future
            finally:
                self._asking.pop(step, None)
                self._stir()
        if self._ordered and hold:
            await asyncio.shield(self._drained)
        if not self.live and hold:
            await self.forever()
        return None

    async def forever(self) -> None:
        """Wait at what the history does not have, where nothing is made anew."""
        if not self.stuck.done():
            self.stuck.set_result(None)
        await self._loop.create_future()

    def passed(self, step: str) -> None:
        """A nested run has ended by itself, which others may have waited for."""
        self._nested.add(step)
        self._stir()

    def reply(self, ask: str) -> RecordedReply | None:
        """What a model replied before."""
        self._unread.discard(ask)
        return self.history.replies.get(ask)

    def ended(self, name: str) -> None:
        """The program has ended.

        Raises:
            HistoryMismatch: The history goes on.
        """
        if self._unmade and self._ordered:
            step, line = next(iter(self._unmade.items()))
            raise HistoryMismatch(
                f"{name} has changed since this run began: it ends without the call {line or step}, "
                "which it made then; resume it with the code it began with, or start it anew"
            )

    def _mismatch(self, line: str) -> HistoryMismatch:
        then = next(iter(self._unmade.values()), "")
        before = f"where it called {then} then" if then else "which it did not make then"
        return HistoryMismatch(
            f"the program has changed since this run began: it calls {line} {before}; resume it "
            "with the code it began with, or start it anew"
        )

    # Order

    def _stir(self, turns: int = TURNS) -> None:
        if not self._stirring and self._next and self._ready(self._next[0]):
            self._stirring = True
            self._loop.call_soon(self._later, turns - 1)

    def _later(self, turns: int) -> None:
        if turns > 0:
            self._loop.call_soon(self._later, turns - 1)
            return
        self._stirring = False
        turn = self._hand_out()
        if not self._check():
            self._stir(self._until(turn))

    def _until(self, turn: tuple[int, int]) -> int:
        """How many turns after the last ones the next outcome came."""
        session, number = self._next[0].turn
        return min(TURNS, number - turn[1]) if session == turn[0] else TURNS

    def _ready(self, outcome: Outcome) -> bool:
        if outcome.nested:
            return outcome.step in self._nested
        return outcome.cancelled or outcome.step in self._asking

    def _hand_out(self) -> tuple[int, int]:
        """Hand out what ended in one turn of the loop, as far as it is asked for; which one."""
        turn = self._next[0].turn
        while self._next and self._next[0].turn == turn and self._ready(self._next[0]):
            outcome = self._next.popleft()
            self._passed.add(outcome.step)
            if (deliver := self._asking.pop(outcome.step, None)) is not None:
                deliver(outcome)
        return turn

    def _check(self) -> bool:
        if self._next and self._ordered:
            return False
        if not self._drained.done():
            self._drained.set_result(None)
        return True
