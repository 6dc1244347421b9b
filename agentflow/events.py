"""What happens in a run: one flat stream of typed events, the same at every depth.

Progress, logs, traces and the journal are readers of this stream. An event is built only
when somebody reads it. Every run has exactly one terminal event, and it is its last.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass(slots=True)
class Event:
    """Something that happened in a run.

    Attributes:
        run: Id of the run.
        at: Seconds on the loop's clock.
    """

    run: str
    at: float

    def as_dict(self) -> dict[str, Any]:
        """The event as plain data, with its name under ``event``."""
        data: dict[str, Any] = {"event": event_name(type(self))}
        for field in fields(self):
            value = getattr(self, field.name)
            data[field.name] = repr(value) if isinstance(value, BaseException) else value
        return data


@dataclass(slots=True)
class RunStarted(Event):
    """A run began. `parent` and `parent_node` name the call that started it, if any."""

    name: str
    parent: str | None = None
    parent_node: int | None = None


@dataclass(slots=True)
class PlanExtended(Event):
    """Lines joined the plan: `nodes` are their plan ids, `lines` the notation.

    Lines of a plan that a model wrote keep the ids it gave them.
    """

    nodes: Sequence[int]
    lines: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """The event as plain data."""
        known = {"event": event_name(type(self)), "run": self.run, "at": self.at}
        return {**known, "nodes": list(self.nodes), "lines": list(self.lines)}


@dataclass(slots=True)
class NodeEvent(Event):
    """Something that happened to a call. `element` is its index when it is part of a map."""

    node: int
    tool: str
    element: int | None


@dataclass(slots=True)
class NodeStarted(NodeEvent):
    """An attempt of a call began (attempts count from 1)."""

    attempt: int = 1


@dataclass(slots=True)
class NodeRetrying(NodeEvent):
    """An attempt failed and another will begin after `delay` seconds."""

    attempt: int
    delay: float
    error: BaseException


@dataclass(slots=True)
class NodeHedged(NodeEvent):
    """A second attempt of a call began beside one that had taken `after` seconds.

    Which of the two gave the value is not told.
    """

    after: float


@dataclass(slots=True)
class NodeReused(NodeEvent):
    """The value of a call was there, or on its way, and is used in place of calling again.

    `source` is ``memory``, ``disk``, ``shared`` (an equal call was under way) or ``speculated``;
    `saved` the seconds the call took when it was made. `NodeFinished` follows.
    """

    source: str
    saved: float


@dataclass(slots=True)
class NodeEmitted(NodeEvent):
    """A tool reported something while it works (`ctx.emit`, or an item of a generator)."""

    data: Any


@dataclass(slots=True)
class NodeFinished(NodeEvent):
    """A call gave its value."""

    value: Any


@dataclass(slots=True)
class NodeFailed(NodeEvent):
    """A call failed for good."""

    error: BaseException


@dataclass(slots=True)
class NodeSkipped(NodeEvent):
    """A call was not made; `reason` says which guard or dependency was why."""

    reason: str


@dataclass(slots=True)
class NodeCancelled(NodeEvent):
    """A call was stopped before it gave a value."""


@dataclass(slots=True)
class SpeculationEvent(Event):
    """Something about a call that nobody has asked for yet. `number` counts guesses in a run."""

    number: int
    tool: str


@dataclass(slots=True)
class CallPredicted(SpeculationEvent):
    """A call is likely enough to be started early; `reason` says why it is thought likely."""

    arguments: dict[str, Any]
    probability: float
    reason: str


@dataclass(slots=True)
class SpeculationStarted(SpeculationEvent):
    """A predicted call was started."""


@dataclass(slots=True)
class SpeculationUsed(SpeculationEvent):
    """A guess came true: the call was asked for, and `saved` seconds of it were over by then."""

    saved: float


@dataclass(slots=True)
class SpeculationWasted(SpeculationEvent):
    """A guess was in vain, after `seconds` of work and at a price of `usd`; `why` says how."""

    seconds: float
    usd: str
    why: str


@dataclass(slots=True)
class SpeculationOvertaken(SpeculationEvent):
    """A predicted call was asked for before there was room to start it."""


@dataclass(slots=True)
class PartialEvent(Event):
    """Something about a call that a model still writes. `number` counts such calls in a run."""

    number: int
    tool: str


@dataclass(slots=True)
class PartialWarmed(PartialEvent):
    """The name of a tool is known, and its warm-up began."""


@dataclass(slots=True)
class PartialStarted(PartialEvent):
    """A tool began with the arguments that are complete; the others come while it works."""

    arguments: dict[str, Any]


@dataclass(slots=True)
class PartialCommitted(PartialEvent):
    """The call is certain and is `node` of the plan; `hidden` seconds of its work were done."""

    node: int
    hidden: float


@dataclass(slots=True)
class PartialRetracted(PartialEvent):
    """What had begun was cancelled after `seconds`; `why` says what became of the call."""

    seconds: float
    why: str


@dataclass(slots=True)
class ReplyStopped(Event):
    """A model was stopped while it wrote, because a call in its reply could not be made.

    `tokens` had been written; it was allowed `spared` more.
    """

    why: str
    tokens: int
    spared: int


@dataclass(slots=True)
class Allocated(Event):
    """It was decided, in `seconds`, how many samples to begin for the jobs of a run.

    `probability` is the estimate that all is done within the limits, `usd` what is still expected
    to be spent; None where the allocator does not estimate them.
    """

    starts: int
    probability: float | None
    usd: float | None
    seconds: float


@dataclass(slots=True)
class SampleEvent(NodeEvent):
    """Something about one attempt of a model at a call that has several.

    `number` counts the samples of a run; `node` is -1 where the model was asked outside a call.
    """

    number: int
    model: str


@dataclass(slots=True)
class SampleStarted(SampleEvent):
    """A sample began."""


@dataclass(slots=True)
class SampleEnded(SampleEvent):
    """A sample ended: ``passed``, ``refused`` (by its check or type), ``failed`` or ``cancelled``.

    It cost `usd` and took `seconds`; `why` says what was wrong, or why it was cancelled. `saved`
    is what it would have cost beyond that, by the mean of its model, had it not been cancelled.
    """

    outcome: str
    why: str
    usd: str
    seconds: float
    saved: str = "0"


@dataclass(slots=True)
class TextDelta(Event):
    """More text of a model's reply. `role` is ``plan``, ``answer``, ``thought`` or ``call``."""

    text: str
    role: str
    node: int | None = None


@dataclass(slots=True)
class TextRetracted(Event):
    """A reply broke off, and came differently when the model was asked again.

    What `TextDelta` told of it, in whatever role, is void; the new reply follows from its start.
    """

    node: int | None = None


@dataclass(slots=True)
class ModelReplied(Event):
    """A model call ended. Tokens and USD; `estimated` when the backend did not say.

    `pte` is what it cost the server, in tokens of prompt (see `prefill_equivalents`). Of a pool,
    `replica` names who answered, `moved` says why the session left the replica where it was
    (``load``, ``room``, ``lost``), and `held` how many seconds the request waited in the pool.
    With `warmed` it had a prompt computed ahead, and nobody reads its reply.
    """

    model: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None
    usd: str
    seconds: float
    estimated: bool = False
    node: int | None = None
    pte: float = 0.0
    replica: str = ""
    moved: str = ""
    held: float = 0.0
    warmed: bool = False


@dataclass(slots=True)
class PrefixBroken(Event):
    """A prompt does not begin as the one before in its session did: what was cached is lost.

    Byte `byte` is the first that differs; `before` and `after` show what stood around it in the
    one before, and what stands there now.
    """

    session: str
    byte: int
    before: str
    after: str


@dataclass(slots=True)
class ReplicaDown(Event):
    """A replica of a pool that the run uses has failed, and is left alone; `why` says how."""

    replica: str
    why: str


@dataclass(slots=True)
class ReplicaUp(Event):
    """A replica of a pool that the run uses answers again, `seconds` after it went down."""

    replica: str
    seconds: float


@dataclass(slots=True)
class RoundStarted(Event):
    """A strategy began a round (`kind` is ``plan``, ``join`` or ``act``), and why."""

    kind: str
    number: int
    reason: str = ""


@dataclass(slots=True)
class RunFinished(Event):
    """Terminal: the run gave its value."""

    value: Any


@dataclass(slots=True)
class RunFailed(Event):
    """Terminal: the run ended with an error (a passed deadline included)."""

    error: BaseException


@dataclass(slots=True)
class RunCancelled(Event):
    """Terminal: the run was cancelled."""

    reason: str = ""


TERMINAL = (RunFinished, RunFailed, RunCancelled)
"""The last event of every run is one of these."""


def event_name(kind: type[Event]) -> str:
    """The name of a kind of event in JSON: ``NodeStarted`` is ``node_started``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
