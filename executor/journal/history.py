"""What a run did before: read from its records, once, in the order it happened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from pydantic_core import to_json

Record = Mapping[str, Any]

ENDS = ("node_finished", "node_failed", "node_cancelled")


@dataclass(slots=True)
class Outcome:
    """How a call ended.

    Attributes:
        step: Of the call.
        turn: Which others ended at the same moment.
        value: Its value as JSON; empty if it has none, or none that was kept.
        typed: The value is to be read by the type that its tool declares.
        error: What is kept of its failure, or None.
        cancelled: Somebody cancelled it by name.
        lost: Why what it gave was not kept; empty if it was.
        forgotten: Its failure ended the run, and it is tried again.
        loose: It came after such a failure: the program may not come to it any more.
        seconds: It took.
        began: Seconds into the run.
        nested: It was a run, which is run again; what it comes to is told by its own calls.
    """

    step: str
    turn: tuple[int, int]
    value: bytes = b""
    typed: bool = False
    error: Mapping[str, Any] | None = None
    cancelled: bool = False
    lost: str = ""
    forgotten: bool = False
    loose: bool = False
    seconds: float = 0.0
    began: float = 0.0
    nested: bool = False

    @property
    def again(self) -> bool:
        """Whether the call is made again."""
        return self.forgotten or bool(self.lost)


@dataclass(slots=True)
class Intent:
    """A call that may write was about to be made, and it is not known whether it was.

    Attributes:
        tool: Its name.
        count: How often it was about to be made.
        why: Why it may have been made.
    """

    tool: str
    count: int = 0
    why: str = "the run broke off when it was about to be made, or was under way"


@dataclass(slots=True)
class RecordedReply:
    """A model's reply to a strategy, as far as it came.

    Attributes:
        pieces: As they came.
        end: What is known of a whole one, or None: it broke off.
        attempt: How often it was asked for.
    """

    pieces: list[Any] = field(default_factory=list)
    end: Mapping[str, Any] | None = None
    attempt: int = 1


@dataclass(slots=True)
class Made:
    """A call that joined a plan.

    Attributes:
        line: As it is printed.
        at: Seconds into the run.
        loose: It came after a failure that is tried again: it may not be made any more.
    """

    line: str
    at: float = 0.0
    loose: bool = False


@dataclass(slots=True)
class History:
    """What one outermost run did, in all its executions.

    Attributes:
        sessions: How many executions there were.
        made: By step every call that joined a plan, in order.
        outcomes: By step, in the order in which calls ended.
        intents: By step, calls that were about to be made and may write.
        replies: Of models to strategies, by what asked.
        usd: Spent, what was under way at the end included.
        tokens: Likewise.
        seconds: That the executions took.
        mended: Something that had failed was tried again.
    """

    sessions: int = 0
    made: dict[str, Made] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    intents: dict[str, Intent] = field(default_factory=dict)
    replies: dict[str, RecordedReply] = field(default_factory=dict)
    usd: Decimal = Decimal(0)
    tokens: int = 0
    seconds: float = 0.0
    mended: bool = False

    def in_doubt(self, step: str) -> Intent | None:
        """A call that may have been made, and whose value is not known; else None."""
        intent, outcome = self.intents.get(step), self.outcomes.get(step)
        if intent is None or (outcome is not None and not outcome.again):
            return None
        if outcome is None or outcome.forgotten:
            return intent
        return Intent(intent.tool, intent.count, outcome.lost)

    def within(self, step: str) -> History:
        """What the run did that a call was."""
        below = f"{step}/"
        made = {name: made for name, made in self.made.items() if name.startswith(below)}
        ends = {name: end for name, end in self.outcomes.items() if name.startswith(below)}
        return replace(self, made=made, outcomes=ends, replies={})


class Reading:
    """Makes a `History` of records.

    Args:
        run: Id of the outermost run.
        blob: Gives a large value by its digest.
        whole: Keep what nested runs did, and what ended because the run was stopped: it is to be
            seen again, not to go on.
    """

    def __init__(self, run: str, blob: Callable[[str], bytes], *, whole: bool = False) -> None:
        self._run = run
        self._blob = blob
        self._whole = whole
        self._stopped = False
        self._began = self._last = 0.0
        self._blame: dict[str, list[str]] = {}  # by path of a run, the calls for which it failed
        self._path = ""  # of the outermost run
        self._runs: set[str] = set()  # steps of calls that are runs of their own
        self._late: set[str] = set()  # steps of calls made while the run was being stopped
        self._number = 0  # of records
        self._earlier: dict[str, Intent | None] = {}  # of what was announced in this execution
        self._made_at: dict[str, int] = {}
        self._ended_at: dict[str, int] = {}
        self.history = History()

    def read(self, records: Iterable[Record], *, again: bool = False) -> History:
        """Read all records of a run.

        Args:
            records: In the order they were written.
            again: What failed is to be tried again.
        """
        for record in records:
            self._take(record)
        self._close()
        if again:
            self._forget_failures()
        history = self.history
        if self._whole:
            return history
        for kept in (history.outcomes, history.made, history.intents):
            for step in [step for step in kept if _within(step, history.outcomes)]:
                del kept[step]
        for step, made in history.made.items():
            made.loose = made.loose or self._in_a_tool(step)
        for step, outcome in history.outcomes.items():
            outcome.loose = outcome.loose or self._in_a_tool(step)
        return history

    def _in_a_tool(self, step: str) -> bool:
        """Whether a step belongs to a run that a tool's body started, and will when it is made."""
        return any(_whole_call(above) not in self._runs for above in _above(step))

    def _take(self, record: Record) -> None:
        kind, history = record["event"], self.history
        self._number += 1
        if kind == "session":
            self._begin(record)
            return
        self._last = max(self._last, record.get("at", 0.0))
        if kind == "plan_extended":
            self._made(record)
        elif kind in ENDS:
            self._ended(kind, record)
        elif kind == "intent":
            self._intent(record["step"], record["tool"])
        elif kind == "waited":
            self._began += record["seconds"]
        elif kind == "stopping":
            self._stopped = self._stopped or record["run"] == self._run
        elif kind == "run_failed":
            self._failed(record)
        elif kind == "spent":
            history.usd = Decimal(record["usd"]) + Decimal(record["held_usd"])
            history.tokens = record["tokens"] + record["held_tokens"]
        elif kind == "reply":
            self._reply(record).pieces.extend(record["pieces"])
        elif kind == "reply_ended":
            self._reply(record).end = record

    def _begin(self, record: Record) -> None:
        self._close()
        self._began = self._last = record["at"]
        self._stopped = False
        self._earlier.clear()
        self.history.sessions += 1
        if record.get("again"):
            self._forget_failures()
        self._blame.clear()

    def _into(self, at: float) -> float:
        """Seconds into the run."""
        return self.history.seconds + at - self._began

    def _made(self, record: Record) -> None:
        if self._stopped and not self._whole:
            self._late.update(record["steps"])  # they clean up, and will again
            return
        for step, line in zip(record["steps"], record["lines"], strict=True):
            self._late.discard(step)
            self.history.made[step] = Made(line, self._into(record["at"]))
            self._made_at[step] = self._number
        self._runs.update(record.get("runs", ()))

    def _intent(self, step: str, tool: str) -> None:
        known = self.history.intents.get(step)
        self._earlier.setdefault(step, known)
        self.history.intents[step] = Intent(tool, 1 if known is None else known.count + 1)

    def _explain(self, kind: str, record: Record) -> None:
        """A call ended without a value: whether it may have been made, and why."""
        step, intents = record["step"], self.history.intents
        if record.get("called", True):
            if step in intents and kind == "node_failed":
                intents[step].why = _after(record["error"])
        elif step in self._earlier:
            earlier = self._earlier.pop(step)
            if earlier is None:
                intents.pop(step, None)
            else:
                intents[step] = earlier

    def _ended(self, kind: str, record: Record) -> None:
        step, turn = record["step"], (self.history.sessions, record["turn"])
        if _whole_call(step) in self._late:
            self.history.intents.pop(step, None)
            return
        if kind != "node_finished":
            self._explain(kind, record)
        outcome = Outcome(step, turn, lost=record.get("lost", ""))
        if kind == "node_finished":
            outcome.value, outcome.typed = self._value(record), bool(record.get("typed"))
        elif self._stopped and not self._whole:
            return  # it would go on
        elif kind == "node_failed":
            outcome.error = record["error"]
        elif not record.get("asked"):
            return  # its program cancelled it, and will again
        else:
            outcome.cancelled = True
        began = record.get("began", record["at"])
        outcome.seconds, outcome.began = max(0.0, record["at"] - began), self._into(began)
        outcome.nested = bool(record.get("nested")) and (self._whole or outcome.again)
        self._place(outcome)

    def _place(self, outcome: Outcome) -> None:
        """Put an end behind the others, or where the call had ended that was made again."""
        step, outcomes = outcome.step, self.history.outcomes
        known = outcomes.get(step)
        if known is not None and known.lost and outcome.error is not None:
            return  # it had been well once, and may be again
        if known is not None and known.again and not self._whole:
            outcome.turn, outcome.loose = known.turn, known.loose
        else:
            outcomes.pop(step, None)
            self._ended_at[step] = self._number
        outcomes[step] = outcome

    def _failed(self, record: Record) -> None:
        """A run failed, nested or not."""
        path, blame = record.get("path", ""), record.get("blame", [])
        self._blame[path] = blame
        if record["run"] == self._run:
            self._path = path

    def _value(self, record: Record) -> bytes:
        value = record.get("value")
        if isinstance(value, dict) and set(value) == {"$blob"}:
            return self._blob(value["$blob"])
        if isinstance(value, dict) and set(value) == {"$json"}:
            value = value["$json"]
        return to_json(value)

    def _reply(self, record: Record) -> RecordedReply:
        known = self.history.replies.setdefault(record["ask"], RecordedReply())
        if record["attempt"] > known.attempt:  # what came before is void
            known.pieces.clear()
            known.attempt = record["attempt"]
        return known

    def _forget_failures(self) -> None:
        """Have what the run failed for tried again; what came after may come differently now."""
        outcomes, blamed = self.history.outcomes, self._blamed()
        if not blamed:
            return
        self.history.mended = True
        for step in blamed:
            outcome = outcomes[step]
            outcome.forgotten, outcome.nested = True, _whole_call(step) in self._runs
        first = min(self._ended_at[step] for step in blamed)
        for step, outcome in outcomes.items():
            outcome.loose = outcome.loose or self._ended_at[step] > first
        for step, made in self.history.made.items():
            made.loose = made.loose or self._made_at[step] > first

    def _blamed(self) -> set[str]:
        """The calls for which the outermost run failed, those within nested runs too.

        Their failures are what its error came of, or what nothing was called after. Where neither
        is to be found, the run failed by what it made of failures, so all of them are tried again.
        """
        outcomes, found = self.history.outcomes, set[str]()
        ahead = list(self._blame.get(self._path, ()))
        while ahead:
            step = ahead.pop()
            if step in outcomes and step not in found:
                found.add(step)
                ahead += self._blame.get(step, ())
        failed = [step for step, outcome in outcomes.items() if outcome.error is not None]
        last = max(self._made_at.values(), default=0)
        found.update(step for step in failed if self._ended_at[step] > last)
        return found or set(failed)

    def _close(self) -> None:
        self.history.seconds += self._last - self._began


def _after(error: Mapping[str, Any]) -> str:
    """Why a call that failed so may have been made."""
    return f"it failed ({error.get('message', '')}), and may have been done all the same"


def _within(step: str, ended: Mapping[str, Outcome]) -> bool:
    """Whether a step belongs to a nested run whose call has ended, and is not made again."""
    return any(above in ended and not ended[above].again for above in _above(step))


def _whole_call(step: str) -> str:
    """The step of the map that an element belongs to; of any other call its own."""
    return step[: step.rindex("[")] if step.endswith("]") else step


def _above(step: str) -> Iterator[str]:
    """The calls that led to the run that a step belongs to, the nearest first."""
    path, _, _ = step.rpartition("/")
    while "/" in path:
        yield path
        path, _, _ = path.rpartition("/")
