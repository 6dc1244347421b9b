"""Runs a plan while a model writes it.

At a call's closing bracket calls that only read start; a line commits at its newline, the
next call or the end. Writes and undeclared calls wait until the plan has been read to its
end (``commit="line"`` starts them at their own). `docs/semantics.md` says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from agentflow.errors import PlanError
from agentflow.executor.models.base import ChatRequest, TextPiece
from agentflow.executor.strategies.bench import Workbench
from agentflow.planner.builder import identity
from agentflow.planner.check import LineChecker
from agentflow.planner.lower import Lowering
from agentflow.planner.order import EffectOrder
from agentflow.planner.plan import JOIN_ALL, Answer, Arg, Node
from agentflow.planner.read_events import CallClosed, CallOpened, Ended, LineClosed, ReadEvent
from agentflow.planner.reader import Reader
from agentflow.planner.script import Line

FURTHER_PIECES = 16
"""Pieces of a reply that are read after the plan's end, waiting for the backend's token counts."""


@dataclass(slots=True)
class StreamedPlan:
    """What became of one plan that a model wrote.

    Attributes:
        text: As the model wrote it, up to its end.
        lines: The lines that were run, by id.
        result: What it returns, or an `Answer`.
        error: Why it could not be read to its end, or None.
    """

    text: str = ""
    lines: dict[int, Line] = field(default_factory=dict)
    result: Arg | Answer = Answer.NOTHING
    error: PlanError | None = None


class PlanStream:
    """Takes a plan piece by piece and starts its calls.

    Args:
        bench: Where calls are started.
        ids: Node id by line id of earlier plans; extended in place.
        written: Identities of committed writes of earlier plans, by line id.
        commit_lines: Writes start at their own line instead of the plan's end.
    """

    def __init__(
        self,
        bench: Workbench,
        ids: dict[int, int],
        written: dict[Any, int],
        *,
        commit_lines: bool,
    ) -> None:
        self._bench = bench
        self._written = written
        self._commit_lines = commit_lines
        known = frozenset(ids)
        self._reader = Reader(known, bench.specs)
        self._checker = LineChecker(bench.specs, known)
        self._lowering = Lowering(bench.builder, bench.specs, ids)
        self._deferred: list[Line] = []
        self._order = EffectOrder()
        self._early: set[int] = set()
        self.plan = StreamedPlan()
        self.ids = self._lowering.ids

    def feed(self, text: str) -> bool:
        """Take more text; whether the plan has ended."""
        self.plan.text += text
        return self._take(self._reader.feed(text))

    def finish(self) -> None:
        """The text has ended.

        Raises:
            PlanError: The plan cannot be read, or cannot be run.
        """
        self._take(self._reader.finish())

    def _take(self, found: list[ReadEvent]) -> bool:
        committed = {event.line.id for event in found if isinstance(event, LineClosed)}
        for event in found:
            if isinstance(event, CallOpened):
                self._checker.opened(event.id, event.tool)
            elif isinstance(event, CallClosed):
                self._closed(event.line, committed)
            elif isinstance(event, LineClosed):
                self._commit(event.line)
            elif isinstance(event, Ended):
                self._end(event)
                return True
        return False

    def _closed(self, line: Line, committed: Collection[int]) -> None:
        """The bracket is closed: check, and start what may start before its line is committed."""
        self._checker.call(line)
        if len(self.plan.lines) >= self._bench.limits.nodes:
            raise PlanError(
                "too_many_calls",
                f"a plan holds at most {self._bench.limits.nodes} calls: use each, or plan again",
                line.id,
            )
        self.plan.lines[line.id] = line
        if line.id not in committed and not self._waits(line):
            self._early.add(line.id)
            self._lowering.line(line)
            self._bench.flush(held=True)

    def _commit(self, line: Line) -> None:
        """The line is complete: its guard and policy are known."""
        self._checker.suffix(line)
        self.plan.lines[line.id] = line
        if line.id in self._early:
            if line.guard is None and line.join == JOIN_ALL:
                self._bench.commit(self._lowering.ids[line.id])
                return
            self._retract(line.id)  # it was started without its guard, or its policy
        if self._waits(line):
            self._defer(line)
        else:
            self._start(line)

    def _end(self, event: Ended) -> None:
        """The plan is complete: what waited for that starts, in program order."""
        self._checker.end(event.end)
        for line in self._deferred:
            self._lowering.line(line)
        self._bench.flush()
        self.plan.result = self._lowering.end(event.end)

    def _start(self, line: Line) -> None:
        self._lowering.line(line)
        self._bench.flush()

    def _retract(self, line: int) -> None:
        node = self._lowering.retract(line)
        if node not in self._lowering.ids.values():  # else an equal call still wants it
            self._bench.retract(node)

    def _waits(self, line: Line) -> bool:
        """Whether a line waits for the end of the plan, itself or because of one that does."""
        effect = self._bench.specs[line.tool].effect
        waiting = {other.id for other in self._deferred}
        if any(ref.node in waiting for ref in line.refs()):
            return True
        if not effect.starts_early:
            return not self._commit_lines
        return bool(self._order.read(line.id, self._touched(line)))

    def _defer(self, line: Line) -> None:
        if (before := self._written.get(self._identity(line))) is not None:
            raise PlanError(
                "repeated_write",
                f"this was done in an earlier plan as ${before}: refer to it, do not do it again",
                line.id,
            )
        self._deferred.append(line)
        if self._bench.effect(line.tool) == "writes":
            self._order.write(line.id, self._touched(line))

    def _touched(self, line: Line) -> Any:
        spec = self._bench.specs[line.tool]
        return spec.effect.touched(spec.bind(line.args, dict(line.kwargs)))

    def _identity(self, line: Line) -> Any:
        return line_identity(line, self._bench)


def line_identity(line: Line, bench: Workbench) -> Any:
    """Equal for lines that are the same call; the line itself where arguments have no key."""
    node = Node(line.tool, line.args, line.kwargs, line.guard, line.join)
    return identity(node, bench.specs.get(line.tool)) or line


class PlanWriter:
    """Has a model write a plan, which runs meanwhile.

    Reading goes on for a moment after the plan's end, so that the backend can say what it
    took; `aclose` ends it at the latest.

    Args:
        bench: Asks the model.
        request: Asks for the plan.
        stream: Takes the plan.
    """

    def __init__(self, bench: Workbench, request: ChatRequest, stream: PlanStream) -> None:
        self._bench = bench
        self._stream = stream
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = bench.spawn(self._read(request))

    async def plan(self) -> StreamedPlan:
        """The plan, as soon as it has been read to its end.

        A plan that cannot be read, or run, ends there; what was started goes on.

        Raises:
            BackendError: The model could not be asked, or broke off.
            BudgetExceeded: There is no money left for it.
        """
        await self._ended
        return self._stream.plan

    async def aclose(self) -> None:
        """Stop reading, and wait until the call is closed."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _read(self, request: ChatRequest) -> None:
        try:
            await self._read_stream(request)
        except PlanError as error:
            self._stream.plan.error = error
        except Exception as error:  # noqa: BLE001  # whoever waits for the plan gets it
            if self._ended.done():
                return  # the plan was complete before
            self._ended.set_exception(error)
        if not self._ended.done():
            self._ended.set_result(None)

    async def _read_stream(self, request: ChatRequest) -> None:
        further = FURTHER_PIECES
        async with self._bench.model.stream(request) as reply:
            async for piece in reply:
                if self._ended.done():
                    further -= 1
                    if not further:
                        return
                    continue
                self._bench.show(piece, "plan")
                if isinstance(piece, TextPiece) and self._stream.feed(piece.text):
                    self._ended.set_result(None)
        if not self._ended.done():
            self._stream.finish()
