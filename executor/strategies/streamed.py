"""Runs a plan while a model writes it.

At a call's closing bracket calls that only read start; a line commits at its newline, the next call
or the end. Writes and undeclared calls wait until the plan has been read to its end (with
``commit="line"`` of their own). `docs/semantics.md` says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentflow.errors import ArgumentError, PlanError, UnknownArgument
from agentflow.executor.models.base import ChatRequest, ReplyStream, TextPiece
from agentflow.executor.models.persistent import PersistentStream, ReplyDiverged
from agentflow.executor.partial.part import Why
from agentflow.executor.strategies.bench import Workbench, refuse
from agentflow.executor.strategies.deferral import Deferral
from agentflow.planner.builder import identity, renumbered
from agentflow.planner.check import LineChecker
from agentflow.planner.lower import Lowering
from agentflow.planner.plan import GATHER, JOIN_ALL, Answer, Arg, Node, Ref
from agentflow.planner.read_events import CallOpened, CallRead, Ended, LineClosed, ReadEvent
from agentflow.planner.reader import Reader
from agentflow.planner.script import Line
from agentflow.tools.arguments import ArgumentClosed, ArgumentGrew, ArgumentOpened
from agentflow.tools.spec import ToolSpec

FURTHER_PIECES = 16
"""Pieces of a reply that are read after the plan's end, waiting for the backend's token counts."""

LINGER = 0.005
"""Seconds that token counts are waited for when nothing else is left to wait for."""


@dataclass(slots=True)
class StreamedPlan:
    """What became of one plan that a model wrote.

    Attributes:
        text: As the model wrote it, up to its end.
        lines: The lines that were read and are part of it, by id.
        result: What it returns, with ids of nodes, or an `Answer`.
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
        known: Node id by line id of earlier plans.
        written: Line id by `call_identity` of the writes that earlier plans made.
        commit_lines: Writes start at the end of their own line instead of the plan's.

    Attributes:
        plan: What became of it so far.
        ids: Node id by line id of every call that was started, in earlier plans too.
        decoding: Follows its calls while they are written.
    """

    def __init__(
        self,
        bench: Workbench,
        known: Mapping[int, int],
        written: Mapping[Hashable, int],
        *,
        commit_lines: bool,
    ) -> None:
        self._bench = bench
        self._earlier = known
        self._written = written
        self._commit_lines = commit_lines
        self._reader = Reader(known, bench.specs)
        self._checker = LineChecker(bench.specs, known)
        self._lowering = Lowering(bench.builder, bench.specs, known, checked=True)
        self._deferral = Deferral(bench.specs)
        self.decoding = bench.decoding(self._must_wait, self._node)
        self._deferred: dict[int, Line] = {}
        self._held: int | None = None  # a line that was started and is not committed yet
        self._texts: list[str] = []
        self.plan, self.ids = StreamedPlan(), self._lowering.ids

    @property
    def only_reads(self) -> bool:
        """Whether nothing was called yet that may not be called twice."""
        lines = self.plan.lines.values() if self._commit_lines else ()
        return all(self._bench.effect(line.tool).starts_early for line in lines)

    def feed(self, text: str) -> bool:
        """Take more text; whether the plan has ended.

        Raises:
            PlanError: The plan cannot be read, or cannot be run.
        """
        self._texts.append(text)
        if self._take(self._reader.feed(text)):
            return True
        if self._reader.error is not None:
            raise self._reader.error
        return False

    def finish(self) -> None:
        """The text has ended, and the plan with it.

        Raises:
            PlanError: The plan cannot be read, or cannot be run.
        """
        self._take(self._reader.finish())

    def close(self, error: PlanError | None = None) -> StreamedPlan:
        """No more text will be read: a call whose line was not completed is taken back.

        Args:
            error: Why the plan could not be read to its end.
        """
        if self._held is not None:
            self._retract(self._held)
        self.decoding.close()
        self.plan.text, self.plan.error = "".join(self._texts), error
        return self.plan

    def _take(self, found: list[ReadEvent]) -> bool:
        """Deal with what was read; calls that start together start at once."""
        if not found:
            return False
        committed = {event.line.id for event in found if isinstance(event, LineClosed)}
        writing = not any(isinstance(event, Ended) for event in found)
        try:
            for event in found:
                if isinstance(event, CallOpened):
                    self._checker.opened(event.id, event.tool)
                    self.decoding.opened(event.id, event.tool)
                elif isinstance(event, ArgumentOpened | ArgumentGrew | ArgumentClosed):
                    self._follow(event)
                elif isinstance(event, CallRead):
                    self._close_call(event.line, committed)
                elif isinstance(event, LineClosed):
                    self._commit(event.line)
                elif isinstance(event, Ended):
                    self._end(event)
                    return True
            self._bench.flush(writing=True)
            self.decoding.advance()  # with all earlier calls known to the run
            return False
        finally:
            self._bench.flush(writing=writing)

    def _follow(self, event: ArgumentOpened | ArgumentGrew | ArgumentClosed) -> None:
        """Part of an argument was read.

        Raises:
            PlanError: It is complete, and cannot be used.
        """
        try:
            self.decoding.take(event)
        except ArgumentError as error:
            self.decoding.retract(event.id, Why.REJECTED)
            kind = "unknown_param" if isinstance(error, UnknownArgument) else "bad_args"
            raise PlanError(kind, str(error), event.id) from None

    def _close_call(self, line: Line, committed: Collection[int]) -> None:
        """The bracket is closed: check, and start what may start before its line is committed."""
        self._checker.call(line)
        if len(self.plan.lines) >= self._bench.limits.nodes:
            raise PlanError(
                "too_many_calls",
                f"a plan holds at most {self._bench.limits.nodes} calls. Use 'each' for calls "
                "that are alike, and leave the rest to the next plan.",
                line.id,
            )
        # A gather is no work, and one that is taken back would drop what it waits for.
        early = line.tool != GATHER and self._bench.effect(line.tool).starts_early
        if early and line.id not in committed and not self._waits(line):
            self._bench.flush(writing=True)
            self._held = line.id
            self._lower(line)
            self._bench.flush(held=True, writing=True)

    def _commit(self, line: Line) -> None:
        """The line is complete: its guard and its policy are known."""
        plain = line.guard is None and line.join == JOIN_ALL
        if not plain:
            self._checker.suffix(line)
        if self._held == line.id:
            if plain:
                self._held = None
                self.plan.lines[line.id] = line
                self._bench.commit(self.ids[line.id])
                return
            self._retract(line.id)  # it was started without its guard, or its policy
        self._check_repeated(line)
        self.plan.lines[line.id] = line
        if self._waits(line):
            self._deferred[line.id] = line
            self._deferral.note(line.tool, line.args, dict(line.kwargs))
        else:
            self._lower(line)

    def _lower(self, line: Line) -> None:
        """Make the call of a line; it goes on from its part, if it has one."""
        self._bench.expect(self._lowering.line(line), self.decoding.part(line.id))

    def _end(self, event: Ended) -> None:
        """The plan is complete: what waited for that starts, in program order."""
        self._checker.end(event.end)
        for line in self._deferred.values():
            self._lower(line)
        self.plan.result = self._lowering.end(event.end)

    def _retract(self, line: int) -> None:
        self._held = None
        node = self._lowering.retract(line)
        if line in self._earlier:
            self.ids[line] = self._earlier[line]
        if node not in self.ids.values():  # else an equal call still wants it
            self._bench.retract(node)

    def _waits(self, line: Line) -> bool:
        """Whether a line waits for the end of the plan, itself or because of one that does."""
        if self._commit_lines:
            return False
        if any(ref.node in self._deferred for ref in line.refs()):
            return True
        return self._deferral.waits(line.tool, line.args, dict(line.kwargs))

    def _must_wait(self, tool: str, given: Mapping[str, Any]) -> bool:
        """Whether a call that is still written will have to wait, as far as is known."""
        return not self._commit_lines and self._deferral.waits(tool, (), given)

    def _check_repeated(self, line: Line) -> None:
        """Check that a write is not one that an earlier plan has made.

        Raises:
            PlanError: ``repeated_write``.
        """
        if self._bench.effect(line.tool).kind != "writes" or not self._written:
            return
        if any(ref.node in self._deferred for ref in line.refs()):
            return  # it uses a value that is still to come
        spec = self._bench.specs[line.tool]
        values = [renumbered(value, self._node) for value in line.values()]
        args, named = values[: len(line.args)], values[len(line.args) :]
        names = [name for name, _ in line.kwargs]
        call = Node(line.tool, tuple(args), tuple(zip(names, named, strict=True)))
        if (before := self._written.get(call_identity(call, spec))) is not None:
            raise PlanError(
                "repeated_write",
                f"an earlier plan did this already, as ${before}. Refer to it, and leave this out.",
                line.id,
            )

    def _node(self, ref: Ref) -> Ref:
        return Ref(self.ids[ref.node], ref.path)


def call_identity(node: Node, spec: ToolSpec) -> Hashable:
    """Equal for calls of a tool with the same arguments; None if the arguments have no key."""
    return identity(Node(node.tool, node.args, node.kwargs), spec)


class PlanWriter:
    """Has a model write a plan, which runs meanwhile.

    Reading goes on for a moment after the plan's end, so that the backend can say what it
    took; `finish` ends that, and so does `aclose`.

    Args:
        bench: Asks the model.
        request: Asks for the plan.
        begin: Makes what takes a plan.

    Attributes:
        stream: Takes the plan; another one if the reply broke off and then came differently.
    """

    def __init__(
        self, bench: Workbench, request: ChatRequest, begin: Callable[[], PlanStream]
    ) -> None:
        self._bench = bench
        self._begin = begin
        self.stream = begin()
        loop = asyncio.get_running_loop()
        self._complete: asyncio.Future[StreamedPlan] = loop.create_future()
        self._request = request
        self._task = bench.spawn(self._write())

    async def plan(self) -> StreamedPlan:
        """The plan, as soon as it has been read to its end.

        A plan that cannot be read, or run, ends there; what was started goes on.

        Raises:
            BackendError: The model could not be asked, or broke off.
            BudgetExceeded: There is no money left for it.
            ModelRefusal: The model declined.
        """
        return await self._complete

    def when_closed(self, then: Callable[[], object]) -> None:
        """Have something done when nothing more is read, which may be now."""
        self._task.add_done_callback(lambda _: then())

    async def finish(self) -> None:
        """Give the backend a moment to say what it took, and close the call."""
        if not self._task.done():
            await asyncio.wait([self._task], timeout=LINGER)
        await self.aclose()

    async def aclose(self) -> None:
        """Stop reading, and wait until the call is closed."""
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _write(self) -> None:
        try:
            async with self._bench.model.stream(self._request) as reply:
                while not await self._read(reply):
                    self._start_over()
        except PlanError as error:
            self._settle(error)
        except Exception as error:  # noqa: BLE001  # whoever waits for the plan gets it
            if not self._complete.done():  # else it was read to its end before
                self.stream.close()
                self._complete.set_exception(error)
        finally:
            if not self._complete.done():
                self._complete.cancel()
            if self._complete.cancelled():  # by whoever waited for it, perhaps
                self.stream.close()

    async def _read(self, reply: PersistentStream) -> bool:
        """Read the reply, and a little further than the plan goes; false if another one comes."""
        try:
            await self._read_on(reply)
        except ReplyDiverged:
            return False
        return True

    def _start_over(self) -> None:
        """Another plan comes in place of the one that broke off.

        Raises:
            PlanError: ``cut_off``: what that one called may not be called twice.
        """
        self._bench.take_back()
        if not self.stream.only_reads:
            raise PlanError(
                "cut_off", "the connection broke while the plan was written. Go on from here."
            )
        self.stream.close()
        self.stream = self._begin()

    async def _read_on(self, reply: PersistentStream) -> None:
        further = FURTHER_PIECES
        async for piece in reply:
            if self._complete.done():
                further -= 1
                if not further:
                    return
                continue
            self._bench.show(piece, "plan")
            if isinstance(piece, TextPiece) and self._feed(piece.text, reply):
                self._settle()
                reply.enough()
        if not self._complete.done():
            self._end(reply)

    def _feed(self, text: str, reply: ReplyStream) -> bool:
        try:
            return self.stream.feed(text)
        except PlanError as error:
            self._bench.stopped(reply, self._request, str(error))
            raise

    def _end(self, reply: ReplyStream) -> None:
        """The reply has ended, and the plan only with it."""
        refuse(reply.reply)
        if reply.reply.finish_reason == "length":
            raise PlanError(
                "cut_off",
                f"the plan was cut off after {reply.usage.completion_tokens} tokens. Write a "
                "shorter one: leave out thoughts, and use 'each' for calls that are alike.",
            )
        self.stream.finish()
        self._settle()

    def _settle(self, error: PlanError | None = None) -> None:
        plan = self.stream.close(error)
        if not self._complete.done():  # else whoever waited for it has gone
            self._complete.set_result(plan)
