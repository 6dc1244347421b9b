"""Answers the calls of a resumed run from its history, in the order in which they had ended.

A program that is run again makes the same calls again, as long as what it learns, and in which
order, is the same. So an end is held back until those before it are known, and a call that has
none until all of them are and all calls of the history have been made. What the program calls
beyond that shows, while the history has calls that do not come, that it is another program.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from agentflow.errors import HistoryMismatch
from agentflow.executor.journal.book import TURNS
from agentflow.executor.journal.history import History, Outcome, RecordedReply

PATIENCE = 2.0
"""Seconds beyond those that a call had come after, until it is taken that it will not come."""

Deliver = Callable[[Outcome], None]


class Recall:
    """Hands out what a history has.

    Args:
        history: What the run did before.
        loop: Where it runs now.
        ordered: Its program may depend on the order in which calls end; else each end is handed
            out when its call is made.
        live: Whether calls that the history does not have are made.

    Attributes:
        history: As given.
        live: As given.
        stuck: Done when the program waits for what is not made anew.
        refuse: Called when the program is another one.
        unkept: A call that would have to be made anew, where nothing is; empty if none came.
    """

    def __init__(
        self, history: History, loop: asyncio.AbstractEventLoop, *, ordered: bool, live: bool = True
    ) -> None:
        self.history = history
        self.live = live
        self.stuck: asyncio.Future[None] = loop.create_future()
        self.unkept = ""
        self.refuse: Callable[[str], None] = lambda why: None
        self._loop = loop
        self._began = loop.time()
        self._ordered = ordered
        self._within: dict[str, Recall] = {}  # for runs that a task calls
        self._next = deque(history.outcomes.values())
        self._asking: dict[str, Deliver] = {}
        self._passed: set[str] = set()  # steps whose end had its turn
        self._nested: set[str] = set()  # steps of nested runs that have ended
        self._awaited = ""  # a call that is made again, and what comes after waits for it
        self._unmade = {step for step, made in history.made.items() if not made.loose}
        self._new: list[tuple[str, Callable[[], None]]] = []  # calls it does not have; write them
        self._unread = set(history.replies)
        self._stirring = False
        self._doubts: asyncio.TimerHandle | None = None
        self._closed = False
        self._known: asyncio.Future[None] = loop.create_future()  # all of it
        self._progress()

    def of(self, path: str) -> Recall:
        """Who answers the run with this call path.

        Where the outermost run is a task, whose own calls may end in any order, each run that it
        calls has an order of its own.
        """
        if self._ordered or "/" not in path:
            return self
        call = "/".join(path.split("/")[:2])
        if (own := self._within.get(call)) is None:
            own = Recall(self.history.within(call), self._loop, ordered=True, live=self.live)
            own.refuse = self.refuse
            self._within[call] = own
        return own

    @property
    def over(self) -> bool:
        """Whether everything has been handed out."""
        return self._known.done() and not self._unread

    # What the program does

    def has(self, step: str) -> bool:
        """A call joined a plan; whether it is in the history."""
        self._unmade.discard(step)
        self._progress()
        return step in self.history.made

    def added(self, line: str, write: Callable[[], None]) -> None:
        """Calls joined a plan that the history does not have; `write` them when they may be."""
        if not self._ordered or self._known.done():
            write()
        else:
            self._new.append((line, write))
            self._doubt()

    async def outcome(self, step: str, *, hold: bool = True) -> Outcome | None:
        """How a call ended before; None if it did not, `hold` until all of the history is known."""
        future: asyncio.Future[Outcome] = self._loop.create_future()

        def deliver(outcome: Outcome) -> None:
            if not future.done():
                future.set_result(outcome)

        if self._ask(step, deliver):
            try:
                return await future
            finally:
                self._asking.pop(step, None)
                self._stir()
        if self._ordered and hold and not self._known.done():
            self._doubt()
            await asyncio.shield(self._known)
        if not self.live and hold:
            await self.forever()
        return None

    async def forever(self) -> None:
        """Wait at what the history does not have, where nothing is made anew."""
        if not self.stuck.done():
            self.stuck.set_result(None)
        await self._loop.create_future()

    def passed(self, step: str) -> None:
        """A call that was made again, or a nested run, has ended; others may wait for that."""
        self._nested.add(step)
        if step == self._awaited:
            self._awaited = ""
        self._progress()

    def reply(self, ask: str) -> RecordedReply | None:
        """What a model replied before."""
        self._unread.discard(ask)
        return self.history.replies.get(ask)

    def ended(self, name: str) -> None:
        """The program has ended.

        Raises:
            HistoryMismatch: The history goes on.
        """
        self.close()
        if self._unmade and self._ordered:
            raise HistoryMismatch(
                f"{name} has changed since this run began: it ends without the call "
                f"{self._missing}, which it made then; resume it with the code it began with, or "
                "start it anew"
            )

    def close(self) -> None:
        """The run is over: whether its program is the same does not matter any more."""
        self._closed = True
        if self._doubts is not None:
            self._doubts.cancel()
        for within in self._within.values():
            within.close()

    # Order

    def _ask(self, step: str, deliver: Deliver) -> bool:
        outcome = self.history.outcomes.get(step)
        if outcome is None or outcome.nested:
            return False
        if not self._ordered or step in self._passed:
            deliver(outcome)
        else:
            self._asking[step] = deliver
            self._stir()
        return True

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
        if self._next:
            self._stir(self._until(turn))
        self._progress()

    def _until(self, turn: tuple[int, int]) -> int:
        """How many turns after the last ones the next end came."""
        session, number = self._next[0].turn
        return min(TURNS, max(1, number - turn[1])) if session == turn[0] else TURNS

    def _ready(self, outcome: Outcome) -> bool:
        if self._awaited:
            return False
        if outcome.cancelled or outcome.loose:
            return True
        return outcome.step in (self._nested if outcome.nested else self._asking)

    def _hand_out(self) -> tuple[int, int]:
        """Hand out what ended in one turn of the loop, as far as it is asked for; which one."""
        turn = self._next[0].turn
        while self._next and self._next[0].turn == turn and self._ready(self._next[0]):
            outcome = self._next.popleft()
            self._passed.add(outcome.step)
            if (deliver := self._asking.pop(outcome.step, None)) is not None:
                if outcome.lost and not outcome.loose:
                    self._awaited = outcome.step
                deliver(outcome)
        return turn

    def _progress(self) -> None:
        """See whether all is known."""
        self._stir()
        if self._known.done():
            return
        if self._ordered and (self._next or self._awaited or self._unmade):
            return
        self._known.set_result(None)
        if self._doubts is not None:
            self._doubts.cancel()
        for _, write in self._new:
            write()
        self._new.clear()

    # Another program

    @property
    def _missing(self) -> str:
        """The first call of the history that does not come."""
        made = self.history.made
        return next((call.line or step for step, call in made.items() if step in self._unmade), "")

    def _doubt(self) -> None:
        """Somebody waits for the history to be complete: it is when the program is the same.

        An unchanged one makes each call no later than it did then: its calls take no time now.
        """
        if self._doubts is None and not self._closed:
            coming = [self.history.made[step].at for step in self._unmade]
            coming += [outcome.began for outcome in self._next]
            due = max([self._loop.time(), *(self._began + at for at in coming)])
            self._doubts = self._loop.call_at(due + PATIENCE, self._give_up, self._left)

    @property
    def _left(self) -> tuple[int, int]:
        return len(self._next), len(self._unmade)

    def _give_up(self, before: tuple[int, int]) -> None:
        self._doubts = None
        if self._known.done() or self._awaited:
            return
        if self._left != before:
            self._doubt()
            return
        if not self.live:
            if not self.stuck.done():
                self.stuck.set_result(None)  # whoever looks on sees what is different
            return
        line = self._new[0][0] if self._new else ""
        calls = f"it calls {line} where it called" if line else "it does not come to the call"
        then = self._missing or (self._next[0].step if self._next else "")
        self.refuse(
            f"the program has changed since this run began: {calls} {then}"
            f"{' then' if line else ', which it made then'}; resume it with the code it began "
            "with, or start it anew"
        )
