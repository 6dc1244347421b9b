"""Events of what begins before it is certain that it is wanted: see `agentflow.events`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agentflow.events_base import Event, NodeEvent


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
