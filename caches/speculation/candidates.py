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
        probability: That this very call is the next one, made before anybody but the model speaks.
        later: That it is made in this session before anything is changed; never less.
        reason: Where the call and its arguments come from, for people.
    """

    tool: str
    arguments: Mapping[str, Any]
    probability: float
    later: float
    reason: str


class CandidateSource(Protocol):
    """Names calls that may come next; `Predictor` is one, a draft model can be another.

    Its methods are called in the event loop, between the steps of runs: they should take no
    longer than a millisecond or so. A source that raises is not asked again.
    """

    def candidates(self, trail: Trail, limit: int) -> Sequence[Candidate]:
        """The likeliest next calls, best first, without I/O.

        Args:
            trail: What has happened, or a copy of it in which a call is supposed to have been
                made (its `original` is then the trail it was copied from).
            limit: Candidates at most.
        """
        ...

    def learn(self, trail: Trail) -> None:
        """Take note of the last step of a trail; called after each, and before the first.

        It is never called with a trail that only supposes.
        """
        ...

    def close(self, trail: Trail) -> None:
        """Take note that a session has ended."""
        ...
