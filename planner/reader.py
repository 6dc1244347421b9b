"""Reads a plan while it is being written.

`docs/notation.md` describes what is read. The reader gives the same script, and the same
events, however the text is cut; it costs time in proportion to the text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from agentflow.errors import PlanError
from agentflow.planner.read_calls import CallReader
from agentflow.planner.read_events import (
    CallOpened,
    CallRead,
    Ended,
    LineClosed,
    ReadEvent,
    Thought,
)
from agentflow.planner.read_heads import Head, Names
from agentflow.planner.read_lines import (
    read_guard,
    read_head,
    read_policy,
    read_rest,
    read_thought,
    skip_line,
)
from agentflow.planner.read_values import Unreadable, ValueReader
from agentflow.planner.scanner import Reading, Scanner, TextEnded
from agentflow.planner.script import Diagnostic, End, JoinMark, Line, Return, Script


class Reader:
    """Reads one plan from text that arrives in pieces.

    Args:
        known: Ids of earlier plans that this one may refer to.
        tools: Names of the tools, if known. They only decide what is prose: without them a
            call of an unknown tool is read as any other (`agentflow.planner.check` reports it).
    """

    def __init__(self, known: Iterable[int] = (), tools: Names = None) -> None:
        self._known = frozenset(known)
        self._tools = tools
        self._scanner = Scanner()
        self._events: list[ReadEvent] = []
        self._lines: dict[int, Line] = {}
        self._opened: set[int] = set()
        self._thoughts: list[str] = []
        self._end: End = None
        self._warnings: list[Diagnostic] = []
        self._error: PlanError | None = None
        self._reading = self._plan()

    @property
    def script(self) -> Script:
        """What has been read so far; lines that are not committed yet are missing."""
        return Script(tuple(self._lines.values()), self._end, tuple(self._warnings))

    def feed(self, text: str) -> list[ReadEvent]:
        """Reads more of the text.

        Returns:
            What was found in it.

        Raises:
            PlanError: The plan cannot be read. If something else was found before that in
                the same piece, it is returned, and the next call raises.
        """
        if self._error:
            raise self._error
        self._scanner.feed(text)
        return self._advance()

    def finish(self) -> list[ReadEvent]:
        """Ends the text.

        Raises:
            PlanError: The plan cannot be read, or there is none.
        """
        if self._error:
            raise self._error
        self._scanner.over = True
        events = self._advance()
        if self._error:
            raise self._error
        return events

    @property
    def error(self) -> PlanError | None:
        """Why the plan cannot be read, as soon as that is known."""
        return self._error

    def _advance(self) -> list[ReadEvent]:
        try:
            next(self._reading)
        except StopIteration:
            pass
        except PlanError as error:
            self._error = error
            if not self._events:
                raise
        events, self._events = self._events, []
        return events

    def _plan(self) -> Reading[None]:
        """Reads heads and what they begin until something ends the plan."""
        scanner = self._scanner
        head: Head | None = None
        while head is not None or (yield from scanner.peek()):
            if head is None and (head := (yield from read_head(scanner, self._tools))) is None:
                head = yield from read_rest(scanner, self._tools, after_call=False)
            elif head.kind == "call" and head.id is None:
                self._warnings.append(Diagnostic("call_without_id"))
                head = yield from read_rest(scanner, self._tools, after_call=False)
            elif head.kind == "call":
                head = yield from self._call(head)
            elif head.kind == "thought":
                self._think((yield from read_thought(scanner)))
                head = None
            else:
                self._close((yield from self._end_at(head)))
                yield from self._read_after_end()
                return
        self._close(None)

    def _call(self, head: Head) -> Reading[Head | None]:
        """Reads a call and the rest of its line; gives the head that follows on the line."""
        assert head.id is not None
        if head.id in self._opened:
            raise PlanError(
                "duplicate_id",
                f"the id is used twice, now for {head.tool}. Give every line an id of its own.",
                head.id,
            )
        row, thought = self._scanner.row(), "\n".join(self._thoughts)
        self._thoughts.clear()
        self._report(CallOpened(head.id, head.tool))
        call = CallReader(self._scanner, head, self._tools, self._is_earlier, self._report)
        yield from call.read()
        self._opened.add(head.id)
        self._note(call.values, head.id)
        line = Line(
            id=head.id,
            tool=head.tool,
            args=tuple(call.args),
            kwargs=tuple(call.kwargs.items()),
            thought=thought,
            row=row,
            texts=tuple(call.values.texts),
        )
        self._report(CallRead(line))
        following = call.values.next_head
        if following is None:
            line = yield from self._suffix(line)
            following = yield from read_rest(self._scanner, self._tools, after_call=True)
        self._lines[line.id] = line
        self._report(LineClosed(line))
        return following

    def _suffix(self, line: Line) -> Reading[Line]:
        """Reads the join policy and the guard after a call."""
        join = yield from read_policy(self._scanner)
        guard = yield from read_guard(self._scanner)
        if isinstance(guard, str):
            raise PlanError(
                "bad_args",
                f"the guard 'if {guard}' is not one reference. Write 'if $2' or 'if $2.found';"
                " let a call compute anything more.",
                line.id,
            )
        return replace(line, join=join, guard=guard)

    def _end_at(self, head: Head) -> Reading[End]:
        if head.kind == "return":
            return (yield from self._return())
        return JoinMark(head.id) if head.kind == "join" else None

    def _return(self) -> Reading[Return]:
        scanner = self._scanner
        values = ValueReader(scanner, self._tools, self._is_earlier, one_line=True)
        scanner.mark()
        try:
            value = yield from values.read()
            char = yield from values.significant()
            if char and char not in "\n<*`;.":
                raise values.unreadable(f"{char!r} stands after the value")
        except (Unreadable, TextEnded) as found:
            kind = found.kind if isinstance(found, Unreadable) else "unterminated_call"
            excerpt = scanner.marked()[:80]
            raise PlanError(
                kind,
                f"{found or 'the text ends'}, in {'return ' + excerpt!r}."
                " Return one value, such as $5, [$1, $2] or a text in quotes.",
            ) from None
        scanner.unmark()
        self._note(values, None)
        return Return(value, tuple(values.texts))

    def _close(self, end: End) -> None:
        """Ends the plan."""
        if not self._lines and (end is None or Diagnostic("call_without_id") in self._warnings):
            raise PlanError(
                "empty_plan",
                "there is no call with an id in it. Write one a line: $1 = tool(argument)",
            )
        if end is None:
            self._warnings.append(Diagnostic("missing_join"))
        self._end = end
        self._report(Ended(end))

    def _read_after_end(self) -> Reading[None]:
        """Reads what follows the plan, only to say whether there are calls in it."""
        scanner = self._scanner
        head = yield from read_rest(scanner, self._tools, after_call=True)
        while head is None or head.kind != "call":
            if head is not None:
                yield from skip_line(scanner)
            if not (yield from scanner.peek()):
                return
            head = yield from read_head(scanner, self._tools)
            if head is None:
                head = yield from read_rest(scanner, self._tools, after_call=False)
        self._warnings.append(Diagnostic("after_join"))
        while not scanner.over:
            scanner.pos = len(scanner.text)
            yield

    def _think(self, text: str) -> None:
        if text:
            self._thoughts.append(text)
            self._report(Thought(text))

    def _note(self, values: ValueReader, at: int | None) -> None:
        if values.unclosed:
            self._warnings.append(Diagnostic("unclosed_call", at))
        if values.literal:
            self._warnings.append(Diagnostic("unresolved_ref_literal", at))

    def _is_earlier(self, number: int) -> bool:
        return number in self._opened or number in self._known

    def _report(self, event: ReadEvent) -> None:
        self._events.append(event)


def read_script(text: str, known: Iterable[int] = (), tools: Names = None) -> Script:
    """Reads a whole plan.

    Args:
        text: The plan.
        known: Ids of earlier plans that it may refer to.
        tools: Names of the tools, if known; see `Reader`.

    Raises:
        PlanError: It cannot be read.
    """
    reader = Reader(known, tools)
    reader.feed(text)
    reader.finish()
    return reader.script
