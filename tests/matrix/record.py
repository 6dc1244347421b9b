"""What came of a case in one configuration: results, committed calls by step, the environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from agentflow import Engine, events
from agentflow.errors import AgentflowError
from agentflow.executor.naming import Naming
from agentflow.executor.run import Run
from tests.matrix.world import State


@dataclass
class Record:
    """What came of it.

    Attributes:
        results: By pass, what it gave, or how it failed.
        calls: By pass and step, how each committed call ended, and what it gave, encoded.
        lines: By pass and step, where the line of a call stands; for who reads a difference.
        state: Of the environment.
        wrong: What must not be, in any configuration.
        heard: How many events there were.
        used: How often something was used that is switched on.
    """

    results: dict[str, str] = field(default_factory=dict)
    calls: dict[str, str] = field(default_factory=dict)
    lines: dict[str, tuple[Sequence[str], int]] = field(default_factory=dict)
    state: State = field(default_factory=State)
    wrong: list[str] = field(default_factory=list)
    heard: int = 0
    used: dict[str, int] = field(default_factory=dict)

    def differences(self, plain: Record) -> Iterator[str]:
        """Where it is not what came of it with all switched off."""
        yield from _differing("the result of", self.results, plain.results)
        for what in _differing("the call", self.calls, plain.calls):
            yield "".join([what, *self._line(what), *plain._line(what)])
        leaves, wrote = self.state.leaves, self.state.wrote
        yield from _differing("the leaf", +leaves, +plain.state.leaves)
        yield from _differing("how often was made the write", wrote, plain.state.wrote)

    def _line(self, what: str) -> Iterator[str]:
        """The line of the call that a difference is about."""
        key = what.partition(":\n")[0].removeprefix("the call ")
        if key in self.lines:
            lines, place = self.lines[key]
            yield f"\n  as {lines[place]}"


def _differing(what: str, here: Mapping[Any, Any], plain: Mapping[Any, Any]) -> Iterator[str]:
    for key in [*plain, *(key for key in here if key not in plain)]:
        if here.get(key) != plain.get(key):
            yield f"{what} {key}:\n  here  {here.get(key)}\n  plain {plain.get(key)}"


class Watched(Engine):
    """An engine whose runs say which steps their calls are.

    Attributes:
        namings: By id of the run, what names its calls.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.namings: dict[str, Naming] = {}

    def _new(self, *args: Any, **options: Any) -> Run[Any]:
        run = super()._new(*args, **options)
        self.namings[run.id] = run.naming
        return run


class Stenographer:
    """Writes down the calls of an engine as they end.

    Args:
        engine: Says which steps they are.
        record: Where they are written.

    Attributes:
        owners: Passes by the id of their run; nested runs are of the pass of their parent.
    """

    def __init__(self, engine: Watched, record: Record) -> None:
        self._engine = engine
        self._record = record
        self._joined: dict[tuple[str, int], tuple[Sequence[str], int]] = {}
        self.owners: dict[str, str] = {}

    def __call__(self, event: events.Event) -> None:
        """Take one event."""
        if isinstance(event, events.RunStarted) and event.parent is not None:
            self.owners[event.run] = self.owners[event.parent]
        elif isinstance(event, events.PlanExtended):
            for place, node in enumerate(event.nodes):
                self._joined[event.run, node] = event.lines, place
        elif isinstance(event, events.NodeFinished):
            self._note(event, f"gave {encoded(event.value)}")
        elif isinstance(event, events.NodeFailed):
            self._note(event, f"failed: {failure(event.error)}")
        elif isinstance(event, events.NodeSkipped):
            self._note(event, "was skipped")

    def _note(self, event: events.NodeEvent, how: str) -> None:
        step = self._engine.namings[event.run].step(event.node, event.element)
        key = f"{self.owners[event.run]} {step}"
        self._record.calls[key] = how
        if line := self._joined.get((event.run, event.node)):
            self._record.lines[key] = line


def encoded(value: Any) -> str:
    """A value as JSON."""
    return to_json(value, fallback=repr).decode()


def failure(error: BaseException) -> str:
    """What an error is, without what depends on where its call stands in a plan."""
    cause = error.__cause__
    if isinstance(error, AgentflowError):
        return f"{type(error).__name__}" + (f" for {failure(cause)}" if cause else "")
    return f"{type(error).__name__}: {error}"
