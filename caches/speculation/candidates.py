"""What may be called next, and who says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agentflow.caches.speculation.trail import Trail


@dataclass(frozen=True, slots=True)
class Candidate:
    """A call that may come next.

    Attributes:
        tool: Name of the tool.
        arguments: Value by parameter name.
        probability: That this very call is made in the turn that is about to begin.
        later: That it is made in that turn or in one of the turns that follow it.
        reason: Where the call and its arguments come from, for people.
    """

    tool: str
    arguments: Mapping[str, Any]
    probability: float
    later: float
    reason: str


class CandidateSource(Protocol):
    """Names calls that may come next; `Predictor` is one, a draft model can be another."""

    def candidates(self, trail: Trail, limit: int) -> Sequence[Candidate]:
        """The likeliest calls of the coming turn, best first, without I/O."""
        ...
