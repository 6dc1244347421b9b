"""What happens in a run: one flat stream of typed events, the same at every depth.

Progress, logs, traces and the journal are readers of this stream. An event is built only
when somebody reads it. Every run has exactly one terminal event, and it is its last.
"""

from __future__ import annotations

import re
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
    """Lines joined the plan; `lines` are in the notation, `nodes` their ids."""

    nodes: tuple[int, ...]
    lines: tuple[str, ...]


@dataclass(slots=True)
class NodeStarted(Event):
    """An attempt of a call began (attempts count from 1)."""

    node: int
    tool: str
    attempt: int = 1


@dataclass(slots=True)
class NodeRetrying(Event):
    """An attempt failed and another will begin after `delay` seconds."""

    node: int
    tool: str
    attempt: int
    delay: float
    error: BaseException


@dataclass(slots=True)
class NodeEmitted(Event):
    """A tool reported something while it works (`ctx.emit`, or an item of a generator)."""

    node: int
    tool: str
    data: Any


@dataclass(slots=True)
class NodeFinished(Event):
    """A call gave its value."""

    node: int
    tool: str
    value: Any


@dataclass(slots=True)
class NodeFailed(Event):
    """A call failed for good."""

    node: int
    tool: str
    error: BaseException


@dataclass(slots=True)
class NodeSkipped(Event):
    """A call was not made; `reason` says which guard or dependency was why."""

    node: int
    tool: str
    reason: str


@dataclass(slots=True)
class NodeCancelled(Event):
    """A call was stopped before it gave a value."""

    node: int
    tool: str


@dataclass(slots=True)
class TextDelta(Event):
    """More text of a model's reply. `role` is ``plan``, ``answer``, ``thought`` or ``call``."""

    text: str
    role: str
    node: int | None = None


@dataclass(slots=True)
class ModelReplied(Event):
    """A model call ended. Tokens and USD; `estimated` when the backend did not say."""

    model: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None
    usd: str
    seconds: float
    first_token_seconds: float | None
    estimated: bool = False
    node: int | None = None


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
