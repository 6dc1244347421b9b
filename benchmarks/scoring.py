"""How well a source foretells calls: ranks of the calls that came, and calibration.

Two moments are looked at. Before a call: everything that precedes it is known, earlier calls of
the same reply and their results included, the reply's text not; the goals are about these. Before
a reply: what a speculator has when the model begins; every call of the reply is looked for among
the candidates of that moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sessions import Call, Said, Session, Turn, call_key

from agentflow.caches.speculation.candidates import CandidateSource
from agentflow.caches.speculation.trail import Trail

EVERY = 1_000
"""More candidates than a source has."""

BINS = 10

WORKFLOW = "agent"
"""Name of the workflow that plays sessions, under which its calls are learnt."""


@dataclass(slots=True)
class Ranks:
    """How often the call that came was the best candidate, or among the best three."""

    calls: int = 0
    first: int = 0
    three: int = 0

    def note(self, key: str, candidates: Sequence[str]) -> None:
        """A call came."""
        self.calls += 1
        self.first += key in candidates[:1]
        self.three += key in candidates[:3]

    def add(self, other: Ranks) -> None:
        """Count others' calls too."""
        self.calls += other.calls
        self.first += other.first
        self.three += other.three

    def as_dict(self) -> dict[str, float]:
        """The shares."""
        calls = max(1, self.calls)
        return {"calls": self.calls, "top1": self.first / calls, "top3": self.three / calls}


@dataclass(slots=True)
class Score:
    """What is known of a source.

    Attributes:
        before_call: Reads, foretold just before they were made.
        before_reply: Reads, foretold when the model began its reply.
        scored: Probability of every candidate, and whether it was the next call.
        best: The same of the best three of each moment.
    """

    before_call: Ranks = field(default_factory=Ranks)
    before_reply: Ranks = field(default_factory=Ranks)
    scored: list[tuple[float, bool]] = field(default_factory=list)
    best: list[tuple[float, bool]] = field(default_factory=list)

    def add(self, other: Score) -> None:
        """Add what was scored elsewhere."""
        self.before_call.add(other.before_call)
        self.before_reply.add(other.before_reply)
        self.scored += other.scored
        self.best += other.best

    def as_dict(self) -> dict[str, Any]:
        """The figures."""
        return {
            "before_call": self.before_call.as_dict(),
            "before_reply": self.before_reply.as_dict(),
            "candidates": len(self.scored),
            "ece": calibration_error(self.scored),
            "ece_best_three": calibration_error(self.best),
        }


def teach(source: CandidateSource, sessions: Iterable[Session]) -> None:
    """Let a source learn from sessions, one after the other."""
    for session in sessions:
        trail = Trail(WORKFLOW)
        source.learn(trail)
        for step in session.steps:
            if isinstance(step, Turn):
                for call in step.calls:
                    _call(trail, call)
                    source.learn(trail)
            if _speak(trail, step):
                source.learn(trail)
        source.close(trail)


def score(source: CandidateSource, sessions: Iterable[Session]) -> Score:
    """Score a source, which learns nothing from it."""
    found = Score()
    for session in sessions:
        trail = Trail(WORKFLOW)
        for step in session.steps:
            if isinstance(step, Turn):
                _score_reply(source, trail, step, found)
            _speak(trail, step)
    return found


def calibration_error(scored: Iterable[tuple[float, bool]]) -> float:
    """Expected calibration error over bins of equally many candidates."""
    ranked = sorted(scored, key=lambda item: item[0])
    total = 0.0
    for number in range(BINS):
        found = ranked[number * len(ranked) // BINS : (number + 1) * len(ranked) // BINS]
        total += abs(sum(probability - came for probability, came in found))
    return total / max(1, len(ranked))


def _score_reply(source: CandidateSource, trail: Trail, turn: Turn, found: Score) -> None:
    at_start: list[str] | None = None
    for call in turn.calls or (None,):
        candidates = source.candidates(trail, EVERY)
        keys = [call_key(candidate.tool, candidate.arguments) for candidate in candidates]
        at_start = keys if at_start is None else at_start
        key = None if call is None else call.key
        came = [
            (candidate.probability, its == key)
            for candidate, its in zip(candidates, keys, strict=True)
        ]
        found.scored += came
        found.best += came[:3]
        if call is not None:
            if call.kind == "read":
                found.before_call.note(call.key, keys)
                found.before_reply.note(call.key, at_start)
            _call(trail, call)


def _call(trail: Trail, call: Call) -> None:
    trail.called(call.tool, call.arguments, call.result, failed=call.failed, changes=call.changes)


def _speak(trail: Trail, step: object) -> bool:
    """Note what was said; whether anything was."""
    if not isinstance(step, Said | Turn) or not step.text:
        return False
    trail.said(step.text, by="user" if isinstance(step, Said) else "model")
    return True
