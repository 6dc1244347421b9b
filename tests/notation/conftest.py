"""Reading in pieces, and tools to check against."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import pytest

from agentflow.errors import PlanError
from agentflow.planner.read_events import ArgumentGrew, ReadEvent
from agentflow.planner.reader import Reader

Outcome: TypeAlias = tuple[list[Any], Any]
"""The events, growth of one argument put together; and the script, or kind and text of the error."""


def read_pieces(pieces: Iterable[str], **options: Any) -> Outcome:
    """Everything that comes of reading a text in these pieces."""
    reader = Reader(**options)
    events: list[ReadEvent] = []
    try:
        for piece in pieces:
            events += reader.feed(piece)
        events += reader.finish()
    except PlanError as error:
        return merged(events), (error.kind, error.at, str(error))
    rows = [line.row for line in reader.script.lines]
    return merged(events), (repr(reader.script), reader.script.warnings, rows)


def merged(events: Iterable[ReadEvent]) -> list[Any]:
    """The events with the growth of each argument put together."""
    out: list[Any] = []
    for event in events:
        last = out[-1] if out else None
        if isinstance(event, ArgumentGrew) and isinstance(last, ArgumentGrew):
            assert (last.id, last.key) == (event.id, event.key)
            out[-1] = ArgumentGrew(last.id, last.key, last.text + event.text)
        else:
            out.append(event)
    return out


@pytest.fixture(scope="session")
def pieces() -> Callable[..., Outcome]:
    return read_pieces
