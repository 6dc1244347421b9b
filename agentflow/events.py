"""What happens in a run: one flat stream of typed events, the same at every depth.

Progress, logs, traces and the journal are readers of this stream. An event is built only
when somebody reads it. Every run has exactly one terminal event, and it is its last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentflow.events_base import Event, NodeEvent, event_name
from agentflow.events_early import (
    Allocated,
    CallPredicted,
    PartialCommitted,
    PartialEvent,
    PartialRetracted,
    PartialStarted,
    PartialWarmed,
    ReplyStopped,
    SampleEnded,
    SampleEvent,
    SampleStarted,
    SpeculationEvent,
    SpeculationOvertaken,
    SpeculationStarted,
    SpeculationUsed,
    SpeculationWasted,
)
from agentflow.redaction import redact

__all__ = [
    "TERMINAL",
    "Allocated",
    "CallPredicted",
    "ContextCompacted",
    "Event",
    "EventsDropped",
    "LoopBlocked",
    "ModelReplied",
    "NodeCancelled",
    "NodeEmitted",
    "NodeEvent",
    "NodeFailed",
    "NodeFinished",
    "NodeHedged",
    "NodeRetrying",
    "NodeReused",
    "NodeSkipped",
    "NodeStarted",
    "NodeWaited",
    "PartialCommitted",
    "PartialEvent",
    "PartialRetracted",
    "PartialStarted",
    "PartialWarmed",
    "PlanExtended",
    "PrefixBroken",
    "QuestionAnswered",
    "QuestionAsked",
    "ReplicaDown",
    "ReplicaUp",
    "ReplyStopped",
    "RoundStarted",
    "RunCancelled",
    "RunFailed",
    "RunFinished",
    "RunPaused",
    "RunStarted",
    "SampleEnded",
    "SampleEvent",
    "SampleStarted",
    "SpeculationEvent",
    "SpeculationOvertaken",
    "SpeculationStarted",
    "SpeculationUsed",
    "SpeculationWasted",
    "TextDelta",
    "TextRetracted",
    "event_name",
]


@dataclass(slots=True)
class RunStarted(Event):
    """A run began. `parent` and `parent_node` name the call that started it, if any."""

    name: str
    parent: str | None = None
    parent_node: int | None = None


@dataclass(slots=True)
class PlanExtended(Event):
    """Lines joined the plan: `nodes` are their plan ids, `lines` the notation.

    Lines of a plan that a model wrote keep the ids it gave them; `writing` says that it was still
    at it.
    """

    nodes: Sequence[int]
    lines: Sequence[str]
    writing: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The event as plain data."""
        known = {"event": event_name(type(self)), "run": self.run, "at": self.at}
        lines = list(map(redact, self.lines))
        return {**known, "nodes": list(self.nodes), "lines": lines, "writing": self.writing}


@dataclass(slots=True)
class NodeStarted(NodeEvent):
    """An attempt of a call began (attempts count from 1)."""

    attempt: int = 1


@dataclass(slots=True)
class NodeWaited(NodeEvent):
    """A call that needed nothing more had waited for `seconds`.

    `why` is ``tool`` (a place among the calls of its tool that may run at once), ``run`` (likewise
    of its run), ``rate`` (its turn, where so many a second may begin) or ``guest`` (optional work
    had to leave its place). Of the first two `NodeStarted` follows, of the others it has come.
    """

    why: str
    seconds: float


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

    `source` is ``memory``, ``disk``, ``shared`` (an equal call was under way), ``speculated``, or
    ``journal`` (an earlier execution of the run made it); `saved` the seconds the call took when it was made. `NodeFinished` follows.
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
    (``load``, ``room``, ``lost``), and `held` how many seconds the request waited in the pool (of a
    single backend: for one of its slots and its rate).
    With `warmed` it had a prompt computed ahead, and nobody reads its reply. `session` names the
    conversation it is of, and `saved` is by how many USD cached tokens made it cheaper.
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
    session: str = ""
    saved: str = "0"


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
class ContextCompacted(Event):
    """A session was too long for its model: less of it is shown from now on, its `epoch`.

    `outputs` of tools are shown by reference, and the first `summarised` messages are told by a
    summary. The prompt had about `before` tokens and has about `after` now.
    """

    session: str
    epoch: int
    outputs: int
    summarised: int
    before: int
    after: int


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
class QuestionAsked(NodeEvent):
    """Somebody is asked before a call is made; see `Question` for `kind`, `call` and `why`.

    `question` names it when it is answered.
    """

    question: str
    kind: str
    call: str
    why: str


@dataclass(slots=True)
class QuestionAnswered(NodeEvent):
    """A question has its answer, which `by` gave; `verdict` is as in `Answer`."""

    question: str
    verdict: str
    why: str
    by: str


@dataclass(slots=True)
class RoundStarted(Event):
    """A strategy began a round (`kind` is ``plan``, ``join`` or ``act``), and why."""

    kind: str
    number: int
    reason: str = ""


@dataclass(slots=True)
class LoopBlocked(Event):
    """The event loop was held for `seconds` by code at `where`: no run went on meanwhile.

    `tool`, `node` and `by`, the id of its run, say whose code it is; ``""`` and None where it is
    not known.
    """

    seconds: float
    where: str
    tool: str = ""
    node: int | None = None
    by: str = ""


@dataclass(slots=True)
class EventsDropped(Event):
    """A reader has fallen behind: `count` events are not told to it; `kinds` counts them by name.

    It comes where the first of them is missing.
    """

    count: int
    kinds: dict[str, int]


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


@dataclass(slots=True)
class RunPaused(Event):
    """Terminal: the run was set aside until somebody answers what it asks."""

    asks: list[dict[str, Any]]


TERMINAL = (RunFinished, RunFailed, RunCancelled, RunPaused)
"""The last event of every run is one of these."""
