"""The book of one outermost run: what happens in it and in its nested runs is written down.

The event stream is the record. A call that may write is announced before it is made; whoever
watches hears of an event when it is durable, and not before.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from agentflow import clock, events
from agentflow.budgets.ledger import NOTHING, Amount, Ledger
from agentflow.errors import HistoryMismatch, JournalError, RunCancelled, RunError, RunPaused
from agentflow.executor.journal.values import Encoder, plain_json, quick_json
from agentflow.redaction import redact, redacted
from agentflow.tools.tool import Tool
from agentflow.tools.values import as_text
from agentflow.wording import described

if TYPE_CHECKING:
    from agentflow.executor.journal.recall import Recall
    from agentflow.executor.journal.rows import RunRow

UNWRITTEN = (
    events.TextDelta,
    events.TextRetracted,
    events.SpeculationEvent,
    events.PartialEvent,
)
"""What is told and not kept: text comes with the replies, and optional work is no part of a run."""


InDoubt: TypeAlias = Literal["ask", "retry", "fail"]
"""What becomes of calls that may have been made: somebody is asked, they are made again, or fail."""

TURNS = 16
"""Turns of the loop after which all that an end of a call brought about by itself has happened."""

LARGEST = 4 << 20
"""Characters of a record; values that a run needs again stand apart."""

BEAT = 5.0
"""Seconds after which it is written down for how long a run has been going on."""

DEEDS = frozenset(["node_emitted", "node_hedged", "node_retrying", "reply", "reply_ended"])
"""Records that only what is really made brings about, besides those of calls themselves."""

CANCELLED = '{"event":"node_cancelled"'
"""How records of calls begin that may just have waited for what is known of them."""

NOTE = 160
"""Characters of a run's outcome that are listed."""


class Paper(Protocol):
    """Where records go; `agentflow.executor.journal.journal.Journal` is one."""

    def append(self, run: str, record: str) -> None:
        """Add a record, a JSON text of one line."""
        ...

    def update(self, run: str, **columns: Any) -> None:
        """Change what is listed of a run."""
        ...

    def keep_blob(self, run: str, data: bytes) -> str:
        """Keep a large value, once; its digest."""
        ...

    def durable(self) -> asyncio.Future[None]:
        """Done when everything appended so far is on disk."""
        ...


class Book:
    """Keeps one outermost run.

    Args:
        paper: Where records go.
        run: Id of the run.
        loop: Whose clock they carry.
        encoder: Turns values into JSON.
        recall: What the run did before, if it is resumed.
        in_doubt: What becomes of calls that may have been made then.
        row: What was listed of it then; so it is again if it is stopped before it does anything.

    Attributes:
        run: As given.
        encoder: As given.
        recall: As given.
        in_doubt: As given.
        again: What the history has is written down once more.
        unwritten: What is called before a call is announced, to write down what it depends on.
    """

    def __init__(
        self,
        paper: Paper,
        run: str,
        loop: asyncio.AbstractEventLoop,
        encoder: Encoder,
        recall: Recall | None = None,
        in_doubt: InDoubt = "ask",
        row: RunRow | None = None,
    ) -> None:
        self._paper = paper
        self.run = run
        self.encoder = encoder
        self.recall = recall
        self.in_doubt = in_doubt
        self.again = recall is not None and not recall.live
        self.unwritten: set[Callable[[], None]] = set()
        self._loop = loop
        self._row = row
        self._idle = recall is not None and recall.live  # it only does what it did before
        self._held: list[str] | None = [] if self._idle else None  # records, while that is so
        self._spent: tuple[Amount, Amount] = NOTHING, NOTHING
        if recall is not None and self._idle:
            self._spent = Amount(recall.history.usd, recall.history.tokens), NOTHING
        self._ledger: Ledger | None = None  # of the run, while it goes on
        self._beat: asyncio.TimerHandle | None = None
        self._turn = 0
        self._left = 0  # turns that are still counted
        self._untold: deque[Callable[[], None]] = deque()
        self._telling = False

    def open(self, columns: Mapping[str, Any], *, again: bool = False) -> None:
        """An execution begins, the first one or another.

        Args:
            columns: What is listed of the run.
            again: What had failed is tried again.
        """
        number = 1 if self.recall is None else self.recall.history.sessions + 1
        self.update(**columns, state="running")
        session = {"n": number, "again": again, "wall": clock.wall(), "at": self._loop.time()}
        self.write({"event": "session", **session, "waits": True})  # what calls wait for is told

    def write(self, record: dict[str, Any]) -> None:
        """Add a record; of one that is too large only what it is."""
        if record["event"] in DEEDS:
            self._act()
        elif record["event"] == "question_asked":
            self._release()
        text = plain_json(record)
        if len(text) > LARGEST:
            head = {name: record[name] for name in ("event", "run", "at") if name in record}
            text = plain_json({**head, "cut": len(text)})
        self._add(text)

    def write_text(self, record: str) -> None:
        """Add a record of a call, which is JSON already."""
        if not record.startswith(CANCELLED):
            self._act()
        self._add(record)

    def _add(self, record: str) -> None:
        """Add a record; known secrets are masked."""
        record = redact(record)
        if self._held is None:
            self._paper.append(self.run, record)
        else:
            self._held.append(record)
        if self._beat is None and self._ledger is not None:
            self._beat = self._loop.call_later(BEAT, self._beats)

    def _act(self) -> None:
        """The run does something that it has not done before."""
        if self._idle:
            self._idle = False
            self._release()

    def _release(self) -> None:
        """This execution is to be known of, whatever becomes of it."""
        held, self._held = self._held or (), None
        for record in held:
            self._paper.append(self.run, record)

    def update(self, **columns: Any) -> None:
        """Change what is listed of the run."""
        self._paper.update(self.run, **redacted(columns), updated=clock.wall())

    def kept(self, tool: Tool[..., Any], value: Any) -> str:
        """What a record says of the value of a call: the value, or why it is not kept."""
        if (quick := quick_json(value)) is not None:
            return f'"value":{quick}'
        encoded = self.encoder.encode(tool, value)
        why = f"{tool.name} gave a {type(value).__name__}, which JSON does not keep, or a secret"
        if encoded is not None:
            data, typed = encoded
            try:
                return f'"value":{self._value(data)}' + (',"typed":true' if typed else "")
            except JournalError as error:
                why = f"{tool.name} gave too much: {error}"
        return f'"lost":{json.dumps(why)}'

    def _value(self, data: bytes) -> str:
        """A value as it stands in a record: itself, or what it is kept under if it is large."""
        if data.startswith(b'{"$'):
            return f'{{"$json":{data.decode()}}}'  # it must not be taken for a reference
        if len(data) <= self.encoder.inline:
            return data.decode()
        return f'{{"$blob":"{self._paper.keep_blob(self.run, data)}"}}'

    def durable(self) -> asyncio.Future[None]:
        """Done when everything written so far is on disk."""
        return self._paper.durable()

    # What it takes

    def follow(self, ledger: Ledger) -> None:
        """The outermost run goes on: keep up to date what it takes, some seconds late.

        Time in which it does nothing is written down too if it has a deadline.
        """
        if not self.again:
            self._ledger = ledger
            if ledger.deadline is not None and self._beat is None:
                self._beat = self._loop.call_later(BEAT, self._beats)

    def rest(self) -> None:
        """It does not go on for now: time that passes does not count."""
        self._ledger = None
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    def _beats(self) -> None:
        self._beat, ledger = None, self._ledger
        if ledger is None:
            return
        if self.recall is not None and self.recall.over:
            self._release()  # calls are made again, and that takes time
        if self._held is not None:
            self.follow(ledger)
        elif ledger.deadline is None:
            self._list(ledger)
        else:
            self._account(ledger)  # it beats again, as this is a record

    def spent(self, ledger: Ledger) -> None:
        """Write down what the outermost run has spent, and has under way, if that has changed."""
        spent, held = self._spent
        if ledger.spent is spent and ledger.reserved is held:
            return  # most calls cost nothing, and comparing amounts takes a while
        if (ledger.spent, ledger.reserved) != self._spent:
            self._act()
            self._account(ledger)

    def _account(self, ledger: Ledger) -> None:
        spent, held = self._spent = ledger.spent, ledger.reserved
        amounts = {"usd": f"{spent.usd:f}", "tokens": spent.tokens}
        under_way = {"held_usd": f"{held.usd:f}", "held_tokens": held.tokens}
        at = self._loop.time()
        self.write({"event": "spent", "run": self.run, "at": at, **amounts, **under_way})
        self._list(ledger)

    def _list(self, ledger: Ledger, **columns: Any) -> None:
        """Have lists of runs show what the run has taken."""
        usd, tokens = f"{ledger.spent.usd:f}", ledger.spent.tokens
        self.update(**columns, seconds=ledger.elapsed, usd=usd, tokens=tokens)

    # How it ends

    def decided(self, error: RunError | None) -> None:
        """The run has its outcome, which is about to be told.

        An execution that was stopped before it did anything leaves no trace.
        """
        if not (self._idle and isinstance(error, HistoryMismatch | RunCancelled)):
            self._idle = False
            self._release()

    def close(
        self,
        ledger: Ledger,
        value: Any,
        error: RunError | None,
        answer: Callable[[JournalError | None], None],
        *,
        patience: float | None,
    ) -> None:
        """Answer whoever awaits the run when its outcome is durable.

        Args:
            ledger: Of the outermost run.
            value: Its value.
            error: Its error, or None.
            answer: Called once, with what kept the outcome from being written down, or None.
            patience: Seconds after which it is called all the same; None for when it is durable.
        """
        self.rest()
        if self._idle or isinstance(error, HistoryMismatch):
            self._restore()
        else:
            if not isinstance(error, RunPaused):
                self.update(asks=[])
            note = _note(value if error is None else error)
            self._list(ledger, state=_state(error), note=note)
        written = self._paper.durable()
        timer = None if patience is None else self._loop.call_later(patience, answer, None)

        def done(written: asyncio.Future[None]) -> None:
            if timer is not None:
                timer.cancel()
            lost = None if written.cancelled() else written.exception()
            answer(lost if isinstance(lost, JournalError) else None)

        written.add_done_callback(done)

    def _restore(self) -> None:
        """List the run as it was before this execution."""
        if (row := self._row) is None:
            self.update(state="interrupted")
        else:
            state = "interrupted" if row.state == "running" else row.state
            self._paper.update(self.run, state=state, asks=list(row.asks), updated=row.updated)

    def turn(self) -> int:
        """Number of the loop's turn, as far as turns are counted: for `TURNS` after each end.

        It tells which calls ended in the same turn, and how soon after each other the others did.
        """
        if not self._left:
            self._turn += 1
            self._loop.call_soon(self._next_turn)
        self._left = TURNS
        return self._turn

    def _next_turn(self) -> None:
        self._turn += 1
        self._left -= 1
        if self._left:
            self._loop.call_soon(self._next_turn)

    # Who watches

    def tell(self, say: Callable[[], None]) -> None:
        """Have something told when everything written so far is durable, in order."""
        self._untold.append(say)
        if not self._telling:
            self._telling = True
            self._wait()

    def _wait(self) -> None:
        count = len(self._untold)

        def tell(written: asyncio.Future[None]) -> None:
            written.exception()  # the run says what is wrong; whoever watches is told all the same
            for _ in range(count):
                self._untold.popleft()()
            self._telling = bool(self._untold)
            if self._telling:
                self._wait()

        self._paper.durable().add_done_callback(tell)


def _state(error: RunError | None) -> str:
    """How a run that ended is listed."""
    if error is None:
        return "finished"
    if isinstance(error, RunPaused):
        return "paused"
    if isinstance(error, HistoryMismatch):
        return "interrupted"
    return "cancelled" if isinstance(error, RunCancelled) else "failed"


def _note(outcome: Any) -> str:
    """The head of an outcome, in one line."""
    text = described(outcome) if isinstance(outcome, BaseException) else as_text(outcome)
    line = " ".join(text[: 2 * NOTE].split())
    return line if len(line) <= NOTE else f"{line[: NOTE - 1]}…"
