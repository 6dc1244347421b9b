"""The calls of a run that is kept, from its records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from agentflow.cli.account.spans import ENDS, Record, answered, maps, step_of, tool_of, value_of
from agentflow.cli.output import gist
from agentflow.errors import JournalError
from agentflow.executor.asking.answering import Ask
from agentflow.executor.journal.rows import RunRow
from agentflow.executor.journal.store import JournalStore

_FIRST = ("asked", "begun", "open", "failed", "done", "cancelled")
"""What is said of a map of which elements differ."""


@dataclass(slots=True)
class _Part:
    """A call, or one element of a map."""

    status: str = "waiting"
    seconds: float = 0.0
    told: str = ""
    question: str = ""
    asked: float | None = None  # since when somebody is asked
    answer: str = ""  # who said what
    denied: bool = False  # and it failed for that
    waited: float = 0.0  # seconds for an answer


@dataclass(slots=True)
class KeptCall:
    """A call of a run that is kept, or a map of calls.

    Attributes:
        step: What names it in every execution of the run.
        line: It in the notation.
        tool: What it calls.
        usd: What its model calls cost.
        parts: What is known of it, or of each element of the map, by step.
    """

    step: str
    line: str
    tool: str
    usd: Decimal = Decimal(0)
    parts: dict[str, _Part] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """How it stands.

        It is ``waiting``, ``begun`` (it may have been made, and nobody knows), ``asked``, ``open``
        (a run that has not ended), or how it ended.
        """
        if self.step in self.parts:
            return self.parts[self.step].status
        known = {part.status for part in self.parts.values()}
        return next((status for status in _FIRST if status in known), "waiting")

    @property
    def seconds(self) -> float:
        """How long it took, without the time for answers; of a map all elements together."""
        return sum(part.seconds for part in self.parts.values())

    @property
    def told(self) -> str:
        """What it gave, or why it failed, in a few words."""
        return next((part.told for part in self.parts.values() if part.told), "")

    @property
    def answers(self) -> list[str]:
        """Who said what of it, where somebody was asked."""
        return list(dict.fromkeys(part.answer for part in self.parts.values() if part.answer))

    @property
    def elements(self) -> int:
        """How many of its elements ended, if it is a map."""
        ended = ENDS.values()
        return sum(step != self.step and part.status in ended for step, part in self.parts.items())

    @property
    def above(self) -> str:
        """The run that it is a call of: a step, or the name of the outermost run."""
        return self.step.rpartition("/")[0]

    @property
    def depth(self) -> int:
        """How many runs lie between it and the one that was started."""
        return max(0, self.step.count("/") - 1)

    def as_dict(self) -> dict[str, Any]:
        """The call as plain data."""
        return {
            "step": self.step,
            "call": self.line,
            "tool": self.tool,
            "status": self.status,
            "seconds": round(self.seconds, 6),
            "elements": self.elements,
            "usd": str(self.usd),
            "told": self.told,
            "answers": self.answers,
        }


@dataclass(slots=True)
class KeptRun:
    """What the records of a run say.

    Attributes:
        run: Its id.
        calls: Its calls and those of its nested runs, by step: each run in the order in which its
            calls were made, behind the call that it is.
        sessions: How often it was begun or gone on with.
        damage: Why its records could not be read to their end; empty if they were.
    """

    run: str
    calls: dict[str, KeptCall] = field(default_factory=dict)
    sessions: int = 0
    damage: str = ""
    _finished: bool = False
    _stopping: bool = False
    _blame: dict[str, list[str]] = field(default_factory=dict)  # by path of a run that failed
    _path: str = ""  # of the outermost run
    _announced: set[str] = field(default_factory=set)  # in this session, and not in doubt before
    _steps: dict[tuple[str, int], str] = field(default_factory=dict)

    def take(self, record: Record, blob: Callable[[str], bytes]) -> None:
        """Take one more record; what is not about calls is left out."""
        kind = str(record["event"])
        if kind == "session":
            self.sessions += 1
            self._stopping = False
            self._announced.clear()
            self._blame.clear()
            for part in (part for call in self.calls.values() for part in call.parts.values()):
                part.asked, part.waited = None, 0.0  # the clock is another one
        elif kind == "plan_extended":
            self._planned(record)
        elif kind == "intent":
            self._intended(record)
        elif kind == "question_asked":
            self._asked(record)
        elif kind == "question_answered":
            self._answered(record)
        elif kind == "stopping":
            self._stopping = True
        elif kind == "node_skipped":
            self._skipped(record)
        elif kind in ENDS:
            self._ended(kind, record, blob)
        elif kind == "model_replied" and (step := self._step(record)) in self.calls:
            self.calls[step].usd += Decimal(record["usd"])
        elif kind == "run_failed":
            self._failed(record)
        elif kind == "run_finished":
            self._finished |= record["run"] == self.run

    def settle(self, asks: Collection[Ask]) -> None:
        """All records are taken: say what follows from them, and put the calls in order.

        Args:
            asks: What the run still asks.
        """
        questions = {ask["question"] for ask in asks}
        for call in self.calls.values():
            for step, part in call.parts.items():
                if part.status == "asked" and part.question not in questions:
                    _reopen(step, part)
            if not call.parts and maps(call.line) and self._is_over(call.above):
                call.parts[call.step] = _Part("done", told="0 elements")
        self.calls = {call.step: call for call in self._in_order()}

    @property
    def denied(self) -> bool:
        """Whether it failed because somebody denied a call: going on, it would again."""
        ahead, seen = list(self._blame.get(self._path, ())), set[str]()
        while ahead:
            step = ahead.pop()
            call = self.calls.get(step_of(step)[0])
            if call is not None and step in call.parts and call.parts[step].denied:
                return True
            if step not in seen:
                seen.add(step)
                ahead += self._blame.get(step, ())
        return False

    def _failed(self, record: Record) -> None:
        path = str(record.get("path", ""))
        self._blame[path] = list(record.get("blame", ()))
        if record["run"] == self.run:
            self._path = path

    def _in_order(self) -> Iterator[KeptCall]:
        below: dict[str, dict[str, list[KeptCall]]] = {}
        for call in self.calls.values():
            whole = step_of(call.above)[0]
            runs = below.setdefault(whole if whole in self.calls else "", {})
            runs.setdefault(call.above, []).append(call)
        ahead = [call for calls in below.pop("", {}).values() for call in calls][::-1]
        while ahead:
            yield (call := ahead.pop())
            nested = [call for calls in below.pop(call.step, {}).values() for call in calls]
            ahead += nested[::-1]

    def _is_over(self, above: str) -> bool:
        """Whether a run is known to have got to its end."""
        if (call := self.calls.get(step_of(above)[0])) is None:
            return self._finished
        return above in call.parts and call.parts[above].status == "done"

    def _planned(self, record: Record) -> None:
        each = zip(record["nodes"], record["steps"], record["lines"], strict=True)
        for node, step, line in each:
            call = self.calls.setdefault(step, KeptCall(step, line, tool_of(line)))
            self._steps[record["run"], node] = step
            if (nested := self.calls.get(step_of(call.above)[0])) is not None:
                nested.parts.setdefault(call.above, _Part("open"))

    def _intended(self, record: Record) -> None:
        part = self._part(record["step"], record["tool"])
        if part.status == "waiting":
            self._announced.add(record["step"])
        part.status = "begun"

    def _asked(self, record: Record) -> None:
        whole, step = step_of(record["question"])
        if (call := self.calls.get(whole)) is not None:
            part = call.parts.setdefault(step, _Part())
            part.status, part.question, part.asked = "asked", record["question"], record["at"]

    def _answered(self, record: Record) -> None:
        whole, step = step_of(record["question"])
        if (call := self.calls.get(whole)) is None or (part := call.parts.get(step)) is None:
            return
        if part.asked is not None:
            part.waited += record["at"] - part.asked
            part.asked = None
        part.answer = answered(record)
        if part.status == "asked":
            _reopen(step, part)

    def _ended(self, kind: str, record: Record, blob: Callable[[str], bytes]) -> None:
        step = record["step"]
        if kind == "node_cancelled" and self._stopping:
            if record.get("called") is False and step in self._announced:
                self._announced.remove(step)
                del self.calls[step_of(step)[0]].parts[step]
            return  # it is made when the run goes on
        part = self._part(step, record["tool"])
        part.seconds = max(0.0, record["at"] - record["began"] - part.waited)
        part.waited, part.status, part.told = 0.0, ENDS[kind], ""
        if kind == "node_failed":
            part.told = str(record["error"]["message"])
            part.denied = str(record["error"].get("type", "")).endswith(".ApprovalDenied")
        elif kind == "node_finished" and record["element"] is None:
            part.told = _told(record, blob)

    def _skipped(self, record: Record) -> None:
        if (step := self._step(record)) in self.calls:
            self.calls[step].parts = {step: _Part("skipped", told=str(record["reason"]))}

    def _part(self, step: str, tool: str) -> _Part:
        whole = step_of(step)[0]
        call = self.calls.setdefault(whole, KeptCall(whole, tool, tool))
        return call.parts.setdefault(step, _Part())

    def _step(self, record: Record) -> str:
        return self._steps.get((record["run"], record["node"]), "")


def _reopen(step: str, part: _Part) -> None:
    """A question is none any more, and what it was about is not known to have ended."""
    in_doubt = part.question.startswith(f"{step}?")
    part.status = "begun" if in_doubt else "waiting"


def read_kept(store: JournalStore, row: RunRow) -> KeptRun:
    """What is known of a run, as far as its records can be read."""
    kept = KeptRun(row.id)
    try:
        _take_all(kept, store.records(row.id), store)
    except JournalError as error:
        kept.damage = str(error)
    kept.settle(row.asks)
    return kept


def _take_all(kept: KeptRun, records: Iterable[Record], store: JournalStore) -> None:
    for number, record in enumerate(records, 1):
        try:
            kept.take(record, store.blob)
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            kept.damage = f"record {number} is not one of a run ({type(error).__name__}: {error})"


def _told(record: Record, blob: Callable[[str], bytes]) -> str:
    if "lost" in record:
        return f"not kept: {record['lost']}"
    try:
        return gist(value_of(record.get("value"), blob))
    except JournalError as error:
        return f"not readable: {error}"
