"""Recorded tool-calling sessions: what was said, what was called, and what came back.

A file holds one JSON object a line, packed with gzip or not: ``id``, ``domain``, ``group`` and
``events``, which are ``user`` and ``llm`` texts and ``call``s with their results. Calls by the
user are out of the agent's sight: of them only the writes are kept, as changes by others.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias

CHANGES = ("write", "effect")


@dataclass(frozen=True, slots=True)
class Call:
    """A call that the agent made.

    Attributes:
        tool: Its name.
        kind: ``read``, ``pure``, ``write`` or ``effect``.
        arguments: Value by parameter name.
        result: What came back, as text.
        failed: Whether it failed; `result` then says why.
    """

    tool: str
    kind: str
    arguments: Mapping[str, Any]
    result: str
    failed: bool

    @property
    def changes(self) -> bool:
        """Whether it may change what others read."""
        return self.kind in CHANGES

    @property
    def key(self) -> str:
        """The call as text, equal for equal calls."""
        return call_key(self.tool, self.arguments)


@dataclass(frozen=True, slots=True)
class Said:
    """The user spoke, after so many seconds; None where the recording does not say."""

    text: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Turn:
    """The model replied, after so many seconds, with a text and calls made at once."""

    text: str
    seconds: float | None
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Outside:
    """Somebody else changed what the agent's tools read."""

    seconds: float | None = 0.0


Step: TypeAlias = Said | Turn | Outside


@dataclass(frozen=True, slots=True)
class Session:
    """One recorded session.

    Attributes:
        id: Its name.
        domain: What kind of work it is.
        group: Sessions about the same user or task; never both trained and scored on.
        steps: What happened, in order.
    """

    id: str
    domain: str
    group: str
    steps: tuple[Step, ...]

    @property
    def turns(self) -> Iterator[Turn]:
        """The replies of the model."""
        return (step for step in self.steps if isinstance(step, Turn))

    @property
    def calls(self) -> Iterator[Call]:
        """The agent's calls."""
        return (call for turn in self.turns for call in turn.calls)


def call_key(tool: str, arguments: Mapping[str, Any]) -> str:
    """A call as text; the order of the arguments does not matter."""
    return f"{tool}{json.dumps(arguments, sort_keys=True)}"


def chance(*names: object) -> float:
    """A number between 0 and 1 that depends on nothing but the names."""
    digest = blake2b("\0".join(map(str, names)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 0.5) / 2**64


def read(path: Path) -> list[Session]:
    """The sessions of a file, in its order."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        return [_session(json.loads(line)) for line in lines]


def _session(data: Mapping[str, Any]) -> Session:
    return Session(data["id"], data["domain"], data["group"], tuple(_steps(data["events"])))


def _steps(events: Sequence[Mapping[str, Any]]) -> Iterator[Step]:
    took = _durations(events)
    for number, event in enumerate(events):
        if event["e"] == "user":
            yield Said(event["text"], took[number])
        elif event["e"] == "llm":
            asked = events[number + 1 : number + 1 + event["n_calls"]]
            yield Turn(event["text"], took[number], tuple(map(_call, asked)))
        elif event["by"] == "user" and event["kind"] in CHANGES:
            yield Outside()


def _call(event: Mapping[str, Any]) -> Call:
    if event["e"] != "call" or event["by"] != "agent":
        raise ValueError(f"a reply of the model is not followed by its calls, but by {event}")
    failed = bool(event.get("error"))
    return Call(event["name"], event["kind"], event["args"], event["result"], failed)


def _durations(events: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Seconds since the event before, None without time stamps; the first takes no time."""
    ends = [event.get("t_res", event.get("t")) for event in events]
    starts = [event.get("t") for event in events]
    took: list[float | None] = [0.0]
    for before, at in zip(ends, starts[1:], strict=False):
        took.append(None if before is None or at is None else max(0.0, at - before))
    return took


def timed(sessions: Iterable[Session]) -> list[Session]:
    """The sessions with every duration known.

    One that was not recorded is drawn from those of the same domain and kind of step (the user
    speaks; the model replies, with or without calls) that were.
    """
    sessions = list(sessions)
    known: dict[tuple[str, str], list[float]] = {}
    for session in sessions:
        for step in session.steps[1:]:
            if step.seconds is not None:
                known.setdefault((session.domain, _kind(step)), []).append(step.seconds)
    for values in known.values():
        values.sort()
    return [_timed(session, known) for session in sessions]


def _kind(step: Step) -> str:
    if isinstance(step, Turn):
        return "calls" if step.calls else "text"
    return type(step).__name__


def _timed(session: Session, known: Mapping[tuple[str, str], Sequence[float]]) -> Session:
    steps = []
    for number, step in enumerate(session.steps):
        if step.seconds is None:
            values = known.get((session.domain, _kind(step)), (1.0,))
            drawn = values[int(chance(session.id, number) * len(values))]
            step = replace(step, seconds=drawn)
        steps.append(step)
    return replace(session, steps=tuple(steps))


def folds(sessions: Sequence[Session], count: int) -> list[tuple[list[Session], list[Session]]]:
    """Pairs of sessions to train and to score on, a group never in both; about equal parts.

    There are as many as there are groups, if those are fewer than `count`.
    """
    sizes = Counter(session.group for session in sessions)
    count = min(count, len(sizes))
    loads, part = [0] * count, {}
    for group in sorted(sizes, key=lambda group: (-sizes[group], group)):
        part[group] = loads.index(min(loads))
        loads[part[group]] += sizes[group]
    return [
        (
            [session for session in sessions if part[session.group] != number],
            [session for session in sessions if part[session.group] == number],
        )
        for number in range(count)
    ]
