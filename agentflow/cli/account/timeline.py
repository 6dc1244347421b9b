"""A run in time: its calls and replies, when they began and ended, and what they waited for.

Made from the events of a run that goes on, and from the records of one that is kept, which say
the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields

from agentflow import events
from agentflow.cli.account.spans import (
    ENDS,
    Record,
    Round,
    Span,
    Speech,
    Step,
    Wait,
    answered,
    message,
    number_of,
    step_of,
    uses_of,
)

OVER = ("run_finished", "run_failed", "run_cancelled", "run_paused")

PLACES = ("tool", "run", "rate", "guest")
"""What calls wait for that need nothing more; see `NodeWaited`."""


@dataclass(slots=True)
class Timeline:
    """A run and the runs it started, in time.

    Attributes:
        run: Id of the outermost run.
        steps: Its calls and those of runs within, by run and plan id.
        speeches: Replies of models.
        rounds: Of strategies.
        parents: Of runs within: the call that started each.
        names: Of runs.
        starts: When runs began.
        ahead: Work on guesses that came true: when it began, and when it was asked for.
        executions: How often it was begun or gone on with; 0 where records do not say.
        recorded: Whether records say what calls waited for besides what they need, and what a model
            still wrote.
        seconds: How long it has gone on.
        end: Its last word: the name of the record, or empty.
    """

    run: str = ""
    steps: dict[tuple[str, int], Step] = field(default_factory=dict)
    speeches: list[Speech] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    parents: dict[str, tuple[str, int]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)
    ahead: list[tuple[float, float]] = field(default_factory=list)
    executions: int = 0
    recorded: bool = True
    seconds: float = 0.0
    end: str = ""
    _zero: float | None = None  # the clock when the run had gone on for no time
    _named: dict[str, Step] = field(default_factory=dict)
    _stopping: bool = False

    def take(self, record: Record) -> None:
        """Take one more record; what says nothing of time is left out."""
        kind = record["event"]
        if kind == "session":
            self._session(record)
            return
        if (react := _REACTIONS.get(kind)) is None and kind not in OVER:
            return
        if self._zero is None:
            self._zero = record["at"]
        self.seconds = max(self.seconds, self.at(record))
        if react is not None:
            react(self, record)
        elif record["run"] == (self.run or record["run"]):
            self.end = kind

    def at(self, record: Record) -> float:
        """Seconds into the run."""
        return max(0.0, float(record["at"]) - (self._zero or 0.0))

    def of(self, run: str) -> Iterator[Step]:
        """The calls of one run, in the order they joined its plan."""
        return (step for step in self.steps.values() if step.run == run)

    def parent_of(self, run: str) -> Step | None:
        """The call that started a run."""
        return self.steps.get(self.parents[run]) if run in self.parents else None

    def round_at(self, run: str, at: float) -> Round | None:
        """The round that a strategy was in."""
        return next((r for r in reversed(self.rounds) if r.run == run and r.at <= at), None)

    def is_over(self, run: str) -> bool:
        """Whether a run is known to have got to its end."""
        if run == self.run:
            return self.end == "run_finished"
        above = self.parent_of(run)
        return above is not None and above.status == "done"

    # What happened

    def _session(self, record: Record) -> None:
        self._zero = record["at"] - self.seconds
        self.executions, self._stopping = self.executions + 1, False
        self.end = ""
        self.recorded = self.recorded and record.get("waits", False)

    def _run(self, record: Record) -> None:
        run = record["run"]
        self.run = self.run or run
        self.starts.setdefault(run, self.at(record))
        self.names[run] = record["name"]
        if (above := record.get("parent")) is not None:
            self.parents[run] = above, record["parent_node"]
            if (step := self.steps.get(self.parents[run])) is not None and run not in step.runs:
                step.runs.append(run)

    def _planned(self, record: Record) -> None:
        run, at = record["run"], self.at(record)
        names = record.get("steps") or [""] * len(record["nodes"])
        threads, writing = record.get("threads", ()), bool(record.get("writing"))
        for node, line, name in zip(record["nodes"], record["lines"], names, strict=True):
            uses, after = uses_of(line)
            known = self._named.get(name) if name else None
            step = Step(run, node, number_of(line, node), line, at, writing, uses, after, name=name)
            step.thread = node in threads
            if known is not None:
                step.spans, step.runs = known.spans, known.runs
            self.steps[run, node] = step
            if name:
                self._named[name] = step
        for place, line in enumerate(record.get("gathers", ()), 1):
            uses, after = uses_of(line)
            number = number_of(line, 0)
            gathered = Step(run, -number - place, number, line, at, writing, uses, after)
            self.steps[run, gathered.node] = gathered

    def _step(self, record: Record) -> Step | None:
        name = record.get("step") or record.get("question")
        if name and (step := self._named.get(step_of(name)[0])) is not None:
            return step
        return self.steps.get((record["run"], record["node"]))

    def _span(self, record: Record) -> Span:
        step = self._step(record)
        if step is None:
            return Span()  # of a call that is not known
        span = step.span(record.get("element"))
        span.execution = max(1, self.executions)
        return span

    def _started(self, record: Record) -> None:
        span = self._span(record)
        if record.get("attempt", 1) == 1:
            span.began, span.ended = self.at(record), None
        span.status = "running"

    def _intended(self, record: Record) -> None:
        if (step := self._step(record)) is not None:
            step.announced = True
            span = self._span(record)
            if span.status == "waiting":
                span.status, span.began, span.ended = "running", self.at(record), None

    def _waited(self, record: Record) -> None:
        self._wait(self._span(record), record["why"], self.at(record), record["seconds"])

    def _wait(self, span: Span, why: str, ended: float, seconds: float) -> None:
        span.waits.append(Wait(why, max(0.0, ended - seconds), ended))

    def _retrying(self, record: Record) -> None:
        at = self.at(record)
        told = f"attempt {record['attempt']} failed ({message(record['error'])})"
        self._span(record).waits.append(Wait("retry", at, at + record["delay"], told))

    def _asked(self, record: Record) -> None:
        span, at = self._span(record), self.at(record)
        span.status = "asked"
        span.waits.append(Wait("answer", at, at))

    def _answered(self, record: Record) -> None:
        span = self._span(record)
        span.status = "waiting" if span.began is None else "running"
        for wait in span.waits:
            if wait.why == "answer" and not wait.told:
                wait.ended = max(wait.began, self.at(record))
                wait.told = answered(record)

    def _reused(self, record: Record) -> None:
        span = self._span(record)
        span.source, span.saved = record["source"], record["saved"]
        if span.began is None:
            span.began = self.at(record)

    def _used(self, record: Record) -> None:
        at = self.at(record)
        self.ahead.append((max(0.0, at - record["saved"]), at))

    def _adopted(self, record: Record) -> None:
        self._span(record).hidden = record["hidden"]

    def _settled(self, record: Record) -> None:
        span, at, kind = self._span(record), self.at(record), record["event"]
        if kind == "node_cancelled" and self._stopping:
            self._set_aside(span, at)
            return
        if "began" in record:
            span.began = max(0.0, record["began"] - (self._zero or 0.0))
        elif span.began is None and kind == "node_finished" and "step" not in record:
            span.began = at
        span.ended, span.status = at, ENDS[kind]
        span.hidden = record.get("hidden", span.hidden)
        for why in PLACES:
            if (seconds := record.get(f"waited_{why}")) is not None:
                late = why in ("rate", "guest")  # while it had begun already
                ended = (span.began or at) + (seconds if late else 0.0)
                self._wait(span, why, ended, seconds)
        for wait in span.waits:
            if wait.why == "answer" and not wait.told:
                wait.ended = at
        told = record.get("reason", record.get("value"))
        span.told = message(record["error"]) if kind == "node_failed" else told

    def _set_aside(self, span: Span, at: float) -> None:
        """A call ended because its run did; it is made when the run goes on."""
        asks = span.waits[-1:] if span.status == "asked" else []
        for wait in asks:
            wait.ended = at
        span.status = "asked" if asks else "waiting"

    def _idled(self, record: Record) -> None:
        """The run only waited for an answer: that is no time of its own."""
        self._zero = (self._zero or 0.0) + record["seconds"]
        self.seconds = self.at(record)

    def _replied(self, record: Record) -> None:
        ended = self.at(record)
        began = max(0.0, ended - record["seconds"])
        found = None if record["node"] is not None else self.round_at(record["run"], began + 1e-6)
        role, number = ("", 0) if found is None else (found.kind, found.number)
        said = Speech(record["run"], record["node"], role, number, began, ended, record)
        self.speeches.append(said)

    def _round(self, record: Record) -> None:
        what = record["run"], record["kind"], record["number"], self.at(record)
        self.rounds.append(Round(*what, record.get("reason", "")))

    def _stops(self, record: Record) -> None:
        self._stopping = True


def record_of(event: events.Event) -> Record | None:
    """An event as a record, values as they are; None if it says nothing of time."""
    name = _NAMES.get(type(event))
    if name is None:
        return None
    return {"event": name, **{one.name: getattr(event, one.name) for one in fields(event)}}


_REACTIONS: Mapping[str, Callable[[Timeline, Record], None]] = {
    "run_started": Timeline._run,
    "plan_extended": Timeline._planned,
    "node_started": Timeline._started,
    "intent": Timeline._intended,
    "node_waited": Timeline._waited,
    "node_retrying": Timeline._retrying,
    "node_reused": Timeline._reused,
    "question_asked": Timeline._asked,
    "question_answered": Timeline._answered,
    "speculation_used": Timeline._used,
    "partial_committed": Timeline._adopted,
    "model_replied": Timeline._replied,
    "round_started": Timeline._round,
    "stopping": Timeline._stops,
    "waited": Timeline._idled,
    **dict.fromkeys(ENDS, Timeline._settled),
}

_NAMES = {
    kind: name
    for kind in map(vars(events).get, events.__all__)
    if isinstance(kind, type)
    and issubclass(kind, events.Event)
    and (name := events.event_name(kind)) in {*_REACTIONS, *OVER}
}
