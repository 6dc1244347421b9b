"""Notes of one run: its events become records, and its calls are answered from earlier ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from agentflow import events
from agentflow.errors import ApprovalDenied, HistoryMismatch
from agentflow.executor.calls.bound import BoundCall
from agentflow.executor.journal.book import UNWRITTEN, Book
from agentflow.executor.journal.history import Outcome
from agentflow.executor.journal.replies import Replies
from agentflow.executor.journal.values import failure_data, failure_of, plain_json
from agentflow.executor.state.commands import Failed, Finished, Happening, Stopped
from agentflow.planner.plan import GATHER
from agentflow.wording import described

if TYPE_CHECKING:
    from agentflow.errors import JournalError, RunError
    from agentflow.executor.models.base import ChatRequest
    from agentflow.executor.run import Run

LINE = 4000
"""Characters of a call that are written down; its step has a digest of all of it."""

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
        self.recall = None if book.recall is None else book.recall.of(run.naming.path)
        self._run = run
        self.replies = Replies(self, run.naming.path)
        self._head = f'"run":{json.dumps(run.id)},"at":'
        self._begun: dict[Place, float] = {}  # when calls started that have not ended
        self._named: set[int] = set()  # calls that somebody cancelled by name
        self._recalled: set[Place] = set()  # calls whose end was written down before
        self._uncalled: set[Place] = set()  # calls that may write and ended before they did
        self._besides: dict[Place, str] = {}  # what else the records of their ends say
        self._gathers: list[str] = []  # lines of joins, until a call joins the plan
        self._take: dict[type, Callable[[Any], None]] = {
            events.PlanExtended: self._extended,
            events.NodeStarted: self._started,
            events.NodeWaited: self._waited,
            events.PartialCommitted: self._adopted,
            events.NodeFinished: self._finished,
            events.NodeFailed: self._lost,
            events.NodeCancelled: self._lost,
            events.RunFailed: self._run_failed,
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
        naming, recall, new = self._run.naming, self.recall, []
        for node, line in zip(event.nodes, event.lines, strict=True):
            if naming.nodes[node].tool == GATHER:
                self._gathers.append(line[:LINE])
                continue
            step = naming.step(node)
            if recall is None or not recall.has(step) or self.book.again:
                new.append((node, step, line[:LINE]))
        if not new:
            return
        write = partial(self._write_extended, event, new)
        if recall is None or self.book.again:
            write()
        else:
            recall.added(new[0][2], write)

    def _write_extended(self, event: events.PlanExtended, made: list[tuple[int, str, str]]) -> None:
        nodes, steps, lines = zip(*made, strict=True)
        data: dict[str, Any] = {"nodes": nodes, "steps": steps, "lines": lines}
        calls, tool = self._run.naming.nodes, self._run.tool
        for node, step, _ in made:
            called = tool(calls[node].tool)
            if called.nests:
                data.setdefault("runs", []).append(step)
            elif called.kind == "thread":
                data.setdefault("threads", []).append(node)
        if event.writing:
            data["writing"] = True
        if self._gathers:
            data["gathers"], self._gathers = self._gathers, []
        rest = plain_json(data)[1:]
        self.book.write_text(f'{{"event":"plan_extended",{self._head}{event.at:.6f},{rest}')

    def _started(self, event: events.NodeStarted) -> None:
        self._begun.setdefault((event.node, event.element), event.at)

    def _waited(self, event: events.NodeWaited) -> None:
        place = event.node, event.element
        waited = f'"waited_{event.why}":{event.seconds:.6f},'
        self._besides[place] = self._besides.get(place, "") + waited

    def _adopted(self, event: events.PartialCommitted) -> None:
        self._besides[event.node, None] = f'"hidden":{event.hidden:.6f},'

    def _finished(self, event: events.NodeFinished) -> None:
        place, state = (event.node, event.element), self._run.driver.state
        began = self._begun.pop(place, event.at)
        if event.element is None and not state.plain(state.slot(event.node)):
            return  # a join or a map: what it consists of is written down
        if place in self._recalled and not self.book.again:
            return
        tool = self._run.tool(event.tool)
        kept = _SAID if tool.stateful else self.book.kept(tool, event.value)
        self._ended("node_finished", event, began, f'"nested":true,{kept}' if tool.nests else kept)

    def _lost(self, event: events.NodeFailed | events.NodeCancelled) -> None:
        """A call ended without a value; one that had not begun will do so again by itself."""
        place = (event.node, event.element)
        began = self._begun.pop(place, event.at if place in self._recalled else None)
        if began is None or (place in self._recalled and not self.book.again):
            return
        nested = '"nested":true,' if self._run.tool(event.tool).nests else ""
        if isinstance(event, events.NodeFailed):
            if isinstance(event.error, ApprovalDenied):
                nested = ""  # it never began
            data = failure_data(event.error)
            lost = f'"lost":{json.dumps(data["lost"])},' if "lost" in data else ""
            self._ended("node_failed", event, began, f'{nested}{lost}"error":{plain_json(data)}')
        else:
            asked = "true" if event.node in self._named else "false"
            self._ended("node_cancelled", event, began, f'{nested}"asked":{asked}')

    def _ended(self, name: str, event: events.NodeEvent, began: float, kept: str) -> None:
        node, element = event.node, event.element
        step = self._run.naming.step(node, element)
        if self._uncalled and (node, element) in self._uncalled:
            self._uncalled.remove((node, element))
            kept = f'"called":false,{kept}'
        if self._besides:
            kept = self._besides.pop((node, element), "") + kept
        if self.recall is not None:
            self.recall.passed(step)
        self.book.write_text(
            f'{{"event":"{name}",{self._head}{event.at:.6f},"began":{began:.6f},"node":{node},'
            f'"tool":"{event.tool}","element":{"null" if element is None else element},'
            f'"step":"{step}","turn":{self.book.turn()},{kept}}}'
        )
        self.spent()

    def _run_failed(self, event: events.RunFailed) -> None:
        """Write down for which calls the run failed: they are tried again when it goes on."""
        naming, state = self._run.naming, self._run.driver.state
        guilty = _causes(event.error)
        blame = [
            naming.step(*state.where(slot))
            for slot, error in state.errors.items()
            if id(error) in guilty and (state.plain(slot) or state.where(slot)[1] is not None)
        ]
        self.write(
            {
                "event": "run_failed",
                "path": naming.path,
                "blame": blame,
                "error": failure_data(event.error),
            }
        )

    def cancelled(self, node: int) -> None:
        """Somebody cancels a call by name, and not its own program."""
        self._named.add(node)

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
        parent = self._run.parent
        above = None if parent is None or parent[0].notes is None else parent[0].notes.recall
        if self.recall is None or self.recall is above:
            return
        try:
            self.recall.ended(self._run.name)
        except HistoryMismatch as error:
            if parent is None:
                raise
            self.recall.refuse(str(error))

    def close(
        self,
        value: Any,
        error: RunError | None,
        answer: Callable[[JournalError | None], None],
        *,
        patience: float | None,
    ) -> None:
        """The outermost run has its outcome: `answer` whoever awaits it when that is durable.

        Args:
            value: Its value.
            error: Its error, or None.
            answer: Called once, with what kept the outcome from being written down, or None.
            patience: Seconds after which it is called all the same; None for when it is durable.
        """
        self.spent()
        if self.recall is not None:
            self.recall.close()
        self.book.close(self._run.ledger, value, error, answer, patience=patience)

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

    async def before(self, slot: int, call: BoundCall) -> Happening | None:
        """How a call has ended before; None if it did not, or is to be made again."""
        recall = self.recall
        if recall is None:
            return None
        hold = not call.tool.nests  # else its calls are held
        found = await recall.outcome(self.step(slot), hold=hold)
        if found is None:
            return None
        if found.again:
            if hold and not recall.live:
                recall.unkept = f"{call.tool.name}: {found.lost or 'it failed'}"
                await recall.forever()  # nothing is made anew
            return None
        return self._happening(slot, call, found)

    def _happening(self, slot: int, call: BoundCall, found: Outcome) -> Happening:
        """What an end is to the run state."""
        self._recalled.add(self._run.driver.state.where(slot))
        if found.cancelled:
            return Stopped(slot)
        if found.error is not None:
            return Failed(slot, failure_of(found.error))
        if (teller := self._run.driver.teller) is not None:
            teller.reused(slot, FROM_JOURNAL, found.seconds)
        decode = self.book.encoder.decode
        try:
            return Finished(slot, decode(call.tool, found.value, typed=found.typed))
        except Exception as error:  # noqa: BLE001  # whatever the tool's own type raises
            why = f"{call.tool.name} gives another type of value than it did ({described(error)})"
            assert self.recall is not None
            self.recall.refuse(f"{why}; resume the run with the code it began with")
            return Stopped(slot)

    def uncalled(self, slot: int) -> None:
        """A call that may write is about to end, and the function of its tool was never called."""
        place = self._run.driver.state.where(slot)
        if place not in self._recalled:
            self._uncalled.add(place)

    def announce(self, slot: int, call: BoundCall) -> asyncio.Future[None]:
        """Announce a call that may write, which is about to be made.

        Returns:
            Done when that is durable; with a `JournalError` if it cannot be announced.
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
        return self.book.durable()


_SAID = '"lost":"what was said is part of its session"'
"""In place of the value of a run that is gone through again."""


def _causes(error: BaseException) -> set[int]:
    """The ids of all errors that an error came of, its own among them."""
    found: set[int] = set()
    ahead: list[BaseException | None] = [error]
    while ahead:
        one = ahead.pop()
        if one is not None and id(one) not in found:
            found.add(id(one))
            ahead.append(one.__cause__)
            ahead += getattr(one, "exceptions", ())
    return found
