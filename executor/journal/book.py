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
from agentflow.executor.journal.values import Encoder, plain_json
from agentflow.redaction import redact, redacted
from agentflow.tools.tool import Tool
from agentflow.tools.values import as_text
from agentflow.wording import described

if TYPE_CHECKING:
    from agentflow.executor.journal.recall import Recall
    from agentflow.executor.run import Run

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
    ) -> None:
        self._paper = paper
        self.run = run
        self.encoder = encoder
        self.recall = recall
        self.in_doubt = in_doubt
        self.again = recall is not None and not recall.live
        self._mute = False
        self.unwritten: set[Callable[[], None]] = set()
        self._loop = loop
        self._spent: tuple[Amount, Amount] = NOTHING, NOTHING
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
        self.write({"event": "session", **session})

    def write(self, record: dict[str, Any]) -> None:
        """Add a record; of one that is too large only what it is."""
        text = plain_json(record)
        if len(text) > LARGEST:
            head = {name: record[name] for name in ("event", "run", "at") if name in record}
            text = plain_json({**head, "cut": len(text)})
        self.write_text(text)

    def write_text(self, record: str) -> None:
        """Add a record that is JSON already; known secrets are masked."""
        self._paper.append(self.run, redact(record))

    def mute(self) -> None:
        """The program is another one: what it does is no part of the run."""
        self._mute = True

    def update(self, **columns: Any) -> None:
        """Change what is listed of the run."""
        self._paper.update(self.run, **redacted(columns), updated=clock.wall())

    def kept(self, tool: Tool[..., Any], value: Any) -> str:
        """What a record says of the value of a call: the value, or why it is not kept."""
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

    def spent(self, ledger: Ledger) -> None:
        """Write down what the outermost run has spent, and has under way, if that has changed."""
        spent, held = ledger.spent, ledger.reserved
        if spent is not self._spent[0] or held is not self._spent[1]:
            self._spent = spent, held
            amounts = {"usd": f"{spent.usd:f}", "tokens": spent.tokens}
            under_way = {"held_usd": f"{held.usd:f}", "held_tokens": held.tokens}
            at = self._loop.time()
            self.write({"event": "spent", "run": self.run, "at": at, **amounts, **under_way})

    def close(
        self,
        run: Run[Any],
        value: Any,
        error: RunError | None,
        answer: Callable[[JournalError | None], None],
        *,
        patience: float | None,
    ) -> None:
        """The run has its outcome: answer whoever awaits it when that is durable.

        Args:
            run: The outermost run.
            value: Its value.
            error: Its error, or None.
            answer: Called once, with what kept the outcome from being written down, or None.
            patience: Seconds after which it is called all the same; None for when it is durable.
        """
        spent = run.ledger.spent
        if not isinstance(error, RunPaused):
            self.update(asks=[])
        self.update(
            state=_state(error),
            note=_note(value if error is None else error),
            seconds=run.ledger.elapsed,
            usd=f"{spent.usd:f}",
            tokens=spent.tokens,
        )
        written = self._paper.durable()
        timer = None if patience is None else self._loop.call_later(patience, answer, None)

        def done(written: asyncio.Future[None]) -> None:
            if timer is not None:
                timer.cancel()
            lost = None if written.cancelled() else written.exception()
            answer(lost if isinstance(lost, JournalError) else None)

        written.add_done_callback(done)

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
