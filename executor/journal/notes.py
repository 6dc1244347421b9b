"""Notes of one run: its events become records, and its calls are answered from earlier ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentflow import events
from agentflow.errors import ApprovalDenied, DeadlineExceeded, HistoryMismatch
from agentflow.executor.calls import BoundCall
from agentflow.executor.commands import Dropped, Failed, Finished, Happening, Known, Stopped
from agentflow.executor.journal.book import UNWRITTEN, Book
from agentflow.executor.journal.history import Outcome
from agentflow.executor.journal.recall import Recall
from agentflow.executor.journal.replies import Replies
from agentflow.executor.journal.values import failure_data, failure_of, plain_json
from agentflow.planner.plan import GATHER
from agentflow.tools.tool import Tool

if TYPE_CHECKING:
    from agentflow.errors import JournalError, RunError
    from agentflow.executor.models.base import ChatRequest
    from agentflow.executor.run import Run

PATIENCE = 0.04
"""Seconds that who awaits a run whose deadline has passed waits for its record."""

FROM_JOURNAL = "journal"
"""The source of a value that an earlier execution of the run found."""

Place = tuple[int, int | None]
"""A call: its plan id, and its index if it is an element of a map."""


class Notes:
    """Writes one run down, in the book of the outermost one, and knows what it did before.

    Args:
        book: Of the outermost run.
        run: The run.

    Attributes:
        book: As given.
        recall: Answers calls from what an earlier execution left; None in the first one.
        replies: Of models to the run's strategy.
    """

    def __init__(self, book: Book, run: Run[Any]) -> None:
        self.book = book
        self.recall: Recall | None = book.recall
        self._run = run
        self.replies = Replies(self, run.naming.path)
        self._head = f'"run":{json.dumps(run.id)},"at":'
        self._begun: dict[Place, float] = {}  # when calls started that have not ended
        self._recalled: set[Place] = set()  # calls whose end was written down before
        self._take: dict[type, Callable[[Any], None]] = {
            events.PlanExtended: self._extended,
            events.NodeStarted: self._started,
            events.NodeFinished: self._finished,
            events.NodeFailed: self._lost,
            events.NodeCancelled: self._lost,
        }

    def write(self, record: dict[str, Any]) -> None:
        """Write something down that is no event."""
        kind = record.pop("event")
        self.book.write({"event": kind, "run": self._run.id, "at": self._run.now(), **record})

    def step(self, slot: int) -> str:
        """The step of the call in a slot."""
        return self._run.naming.step(*self._run.driver.state.where(slot))

    # What happens

    def take(self, event: events.Event) -> None:
        """Write an event down."""
        self._take.get(type(event), self._plain)(event)

    def _plain(self, event: events.Event) -> None:
        if isinstance(event, UNWRITTEN):
            return
        if isinstance(event, events.NodeReused) and event.source == FROM_JOURNAL:
            return
        data = event.as_dict()
        for name in data:
            if isinstance(error := getattr(event, name, None), BaseException):
                data[name] = failure_data(error)
        self.book.write(data)

    def _extended(self, event: events.PlanExtended) -> None:
        naming, made = self._run.naming, []
        for node, line in zip(event.nodes, event.lines, strict=True):
            if naming.nodes[node].tool != GATHER:
                step = naming.step(node)
                if self.recall is None or not self.recall.made(step, line) or self.book.again:
                    made.append((node, step, line))
        if made:
            nodes, steps, lines = zip(*made, strict=True)
            rest = plain_json({"nodes": nodes, "steps": steps, "lines": lines})[1:]
            self.book.write_text(f'{{"event":"plan_extended",{self._head}{event.at:.6f},{rest}')

    def _started(self, event: events.NodeStarted) -> None:
        self._begun.setdefault((event.node, event.element), event.at)

    def _finished(self, event: events.NodeFinished) -> None:
        place, state = (event.node, event.element), self._run.driver.state
        began = self._begun.pop(place, event.at)
        if event.element is None and not state.plain(state.slot(event.node)):
            return  # a join or a map: what it consists of is written down
        if place in self._recalled and not self.book.again:
            return
        encoded = self.book.encoder.encode(self._run.tool(event.tool), event.value)
        if encoded is None:
            lost = f"{event.tool} gave a {type(event.value).__name__}, which JSON does not keep, or a secret"
            kept = f'"lost":{json.dumps(lost)}'
        else:
            kept = f'"value":{self.book.value(encoded)}'
        self._ended("node_finished", event, began, kept)

    def _lost(self, event: events.NodeFailed | events.NodeCancelled) -> None:
        """A call ended without a value; one that had not begun will do so again by itself."""
        place = (event.node, event.element)
        began = self._begun.pop(place, None)
        if began is None or (place in self._recalled and not self.book.again):
            return
        if isinstance(event, events.NodeFailed):
            error = f'"error":{plain_json(failure_data(event.error))}'
            self._ended("node_failed", event, began, error)
        else:
            self._ended("node_cancelled", event, began, '"error":null')

    def _ended(self, name: str, event: events.NodeEvent, began: float, kept: str) -> None:
        node, element = event.node, event.element
        step = self._run.naming.step(node, element)
        refused = isinstance(getattr(event, "error", None), ApprovalDenied)
        if nests(self._run.tool(event.tool)) and not refused:
            kept = f'"nested":true,{kept}'
            if self.recall is not None:
                self.recall.passed(step)
        self.book.write_text(
            f'{{"event":"{name}",{self._head}{event.at:.6f},"began":{began:.6f},"node":{node},'
            f'"tool":"{event.tool}","element":{"null" if element is None else element},'
            f'"step":"{step}","turn":{self.book.turn()},{kept}}}'
        )
        self.spent()

    def replies_to(self, request: ChatRequest, node: int | None) -> Replies | None:
        """Who keeps the reply to a request, if a strategy asks; what calls ask is part of them."""
        if node is not None or request.session is None:
            return None
        self.replies.open(request)
        return self.replies

    def spent(self) -> None:
        """Write down what was spent, if that has changed."""
        self.book.spent(self._run.root.ledger)

    def ended(self) -> None:
        """The program of the run has ended.

        Raises:
            HistoryMismatch: What it did before goes on.
        """
        if self.recall is not None and self._run.parent is None:
            self.recall.ended(self._run.name)

    def close(
        self, value: Any, error: RunError | None, answer: Callable[[JournalError | None], None]
    ) -> None:
        """The outermost run has its outcome: `answer` whoever awaits it when that is durable."""
        self.spent()
        late = isinstance(error, DeadlineExceeded)
        self.book.close(self._run, value, error, answer, patience=PATIENCE if late else None)

    def waited(self, seconds: float) -> None:
        """Seconds have passed in which the run only waited for an answer; they do not count."""
        self.write({"event": "waited", "seconds": seconds})

    def stopping(self, why: str) -> None:
        """The run is being stopped: what ends from now on, ends for that reason."""
        self.write({"event": "stopping", "why": why})

    # Before a call

    @property
    def recalling(self) -> bool:
        """Whether calls are answered from what happened before."""
        return self.recall is not None and not self.recall.over

    def concerns(self, call: BoundCall) -> bool:
        """Whether there is anything to see to before a call is made."""
        return self.recall is not None or call.changes

    async def before(self, slot: int, call: BoundCall) -> Happening | None:
        """How a call has ended before; None if it did not, or what it gave was not kept."""
        if self.recall is None:
            return None
        hold = not nests(call.tool)  # else its calls are held
        found = await self.recall.outcome(self.step(slot), hold=hold)
        return None if found is None else self._happening(slot, call, found)

    def parked(self, slot: int, call: BoundCall, known: Callable[[Happening], None]) -> None:
        """A call waits for room: it needs none if it ended before, and `known` hears how."""
        assert self.recall is not None

        def deliver(found: Outcome) -> None:
            happening = self._happening(slot, call, found)
            if isinstance(happening, Finished):
                known(Known(slot, happening.value))
            elif isinstance(happening, Failed):
                known(Known(slot, None, happening.error))
            elif happening is not None:
                known(Dropped(slot))

        self.recall.ask(self.step(slot), deliver)

    def _happening(self, slot: int, call: BoundCall, found: Outcome) -> Happening | None:
        """What an outcome is to the run state; None if the call has to be made all the same."""
        if found.lost:
            return None
        self._recalled.add(self._run.driver.state.where(slot))
        if found.cancelled:
            return Stopped(slot)
        if found.error is not None:
            return Failed(slot, failure_of(found.error))
        if (teller := self._run.driver.teller) is not None:
            teller.reused(slot, FROM_JOURNAL, found.seconds)
        try:
            return Finished(slot, self.book.encoder.decode(call.tool, found.value))
        except ValueError as error:
            name = call.tool.name
            raise HistoryMismatch(
                f"{name} gives another type of value than it did: {error}"
            ) from None

    async def announce(self, slot: int, call: BoundCall) -> None:
        """Announce a call that may write, which is about to be made.

        Raises:
            JournalError: It cannot be announced.
        """
        for write in tuple(self.book.unwritten):
            write()
        node, element = self._run.driver.state.where(slot)
        step = self._run.naming.step(node, element)
        place = f'"node":{node},"element":{"null" if element is None else element}'
        self.book.write_text(
            f'{{"event":"intent",{self._head}{self._run.now():.6f},{place},'
            f'"tool":"{call.tool.name}","step":"{step}"}}'
        )
        await self.book.durable()


def nests(tool: Tool[..., Any]) -> bool:
    """Whether a call of the tool is a run of its own."""
    return tool.implementation is not tool.fn
