"""What a run did before: read from its records, once, in the order it happened."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

Record = Mapping[str, Any]

NEVER_CALLED = frozenset(
    f"agentflow.errors.{name}"
    for name in ("ArgumentError", "MalformedArguments", "PathError", "UnknownArgument")
)
"""Failures of a tool's own call that say that it was not called."""

ENDS = ("node_finished", "node_failed", "node_cancelled")


@dataclass(slots=True)
class Outcome:
    """How a call ended.

    Attributes:
        step: Of the call.
        turn: Which others ended at the same moment.
        value: Its value as JSON; empty if it has none, or none that was kept.
        error: What is kept of its failure, or None.
        cancelled: It was cancelled.
        lost: Why its value was not kept; empty if it was.
        seconds: It took.
        nested: It was a run, which is run again; what it comes to is told by its own calls.
    """

    step: str
    turn: tuple[int, int]
    value: bytes = b""
    error: Mapping[str, Any] | None = None
    cancelled: bool = False
    lost: str = ""
    seconds: float = 0.0
    nested: bool = False


@dataclass(slots=True)
class Intent:
    """A call that may write was about to be made, and it is not known whether it was.

    Attributes:
        tool: Its name.
        count: How often it was about to be made.
        why: Why it may have been made; empty if it is clear that it was not.
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
class History:
    """What one outermost run did, in all its executions.

    Attributes:
        sessions: How many executions there were.
        made: Line by step of every call that joined a plan, in order.
        outcomes: By step, in the order in which calls ended.
        intents: By step, calls that were about to be made and may write.
        replies: Of models to strategies, by what asked.
        usd: Spent, what was under way at the end included.
        tokens: Likewise.
        seconds: That the executions took.
        answers: To its questions.
    """

    sessions: int = 0
    made: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    intents: dict[str, Intent] = field(default_factory=dict)
    replies: dict[str, RecordedReply] = field(default_factory=dict)
    usd: Decimal = Decimal(0)
    tokens: int = 0
    seconds: float = 0.0

    def in_doubt(self, step: str) -> Intent | None:
        """A call that may have been made, and whose value is not known; else None."""
        intent, outcome = self.intents.get(step), self.outcomes.get(step)
        if intent is None or not intent.why or (outcome is not None and not outcome.lost):
            return None
        return intent if outcome is None else Intent(intent.tool, intent.count, outcome.lost)

    @property
    def doubtful(self) -> list[str]:
        """Steps of calls that may have been made, and nobody knows."""
        return [step for step in self.intents if step not in self.outcomes]


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
        return history

    def _take(self, record: Record) -> None:
        kind, history = record["event"], self.history
        if kind == "session":
            self._close()
            self._began = self._last = record["at"]
            self._stopped = False
            history.sessions += 1
            if record.get("again"):
                self._forget_failures()
            return
        self._last = max(self._last, record.get("at", 0.0))
        if kind == "plan_extended":
            history.made.update(zip(record["steps"], record["lines"], strict=True))
        elif kind in ENDS:
            self._ended(kind, record)
        elif kind == "intent":
            self._intent(record["step"], record["tool"])
        elif kind == "waited":
            self._began += record["seconds"]
        elif kind == "stopping":
            self._stopped = self._stopped or record["run"] == self._run
        elif kind == "spent":
            history.usd = Decimal(record["usd"]) + Decimal(record["held_usd"])
            history.tokens = record["tokens"] + record["held_tokens"]
        elif kind == "reply":
            self._reply(record).pieces.extend(record["pieces"])
        elif kind == "reply_ended":
            self._reply(record).end = record

    def _intent(self, step: str, tool: str) -> None:
        known = self.history.intents.get(step)
        self.history.intents[step] = Intent(tool, 1 if known is None else known.count + 1)

    def _ended(self, kind: str, record: Record) -> None:
        step, turn = record["step"], (self.history.sessions, record["turn"])
        if kind == "node_finished":
            outcome = Outcome(step, turn, self._value(record), lost=record.get("lost", ""))
        elif self._stopped and not self._whole:
            return  # it would go on
        elif kind == "node_failed":
            outcome = Outcome(step, turn, error=record["error"])
        else:
            outcome = Outcome(step, turn, cancelled=True)
        outcome.seconds = max(0.0, record["at"] - record.get("began", record["at"]))
        outcome.nested = self._whole and bool(record.get("nested"))
        self.history.outcomes.pop(step, None)
        self.history.outcomes[step] = outcome

    def _value(self, record: Record) -> bytes:
        from pydantic_core import to_json

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
        outcomes = self.history.outcomes
        for step in [s for s, end in outcomes.items() if end.cancelled or end.error is not None]:
            error = outcomes.pop(step).error
            if (intent := self.history.intents.get(step)) is not None:
                intent.why = _after(intent.tool, error)

    def _close(self) -> None:
        self.history.seconds += self._last - self._began


def _after(tool: str, error: Mapping[str, Any] | None) -> str:
    """Why a call of a tool may have been made that ended so; empty if it was not."""
    if error is None:
        return "it was cancelled while it was under way"
    refused = error.get("type", "") in NEVER_CALLED
    if refused and error.get("attributes", {}).get("tool") == tool:
        return ""
    return f"it failed ({error.get('message', '')}), and may have been done all the same"


def _within(step: str, ended: Container[str]) -> bool:
    """Whether a step belongs to a nested run whose call has ended."""
    path, _, _ = step.rpartition("/")
    while "/" in path:
        if path in ended:
            return True
        path, _, _ = path.rpartition("/")
    return False
