"""What all events have: see `agentflow.events`."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any

from agentflow.redaction import redacted


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
        """The event as plain data without known secrets, with its name under ``event``."""
        data: dict[str, Any] = {"event": event_name(type(self))}
        for field in fields(self):
            value = getattr(self, field.name)
            data[field.name] = redacted(repr(value) if isinstance(value, BaseException) else value)
        return data


@dataclass(slots=True)
class NodeEvent(Event):
    """Something that happened to a call. `element` is its index when it is part of a map."""

    node: int
    tool: str
    element: int | None


def event_name(kind: type[Event]) -> str:
    """The name of a kind of event in JSON: ``NodeStarted`` is ``node_started``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
