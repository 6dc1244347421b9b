"""What partial execution can save at most, by arithmetic over what happened in a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Fragment:
    """A part of a call's work that can be done once a part of its arguments is there.

    Attributes:
        ready: Seconds from the reply's first token until that part had arrived; 0 for work that
            needs only the tool's name.
        cost: Seconds of the work.
    """

    ready: float
    cost: float


@dataclass(frozen=True)
class Timing:
    """One turn of a model that called one tool; seconds from the reply's first token.

    Attributes:
        latency: Until the result had been taken in: the next request, or the answer.
        decoded: Until the arguments were complete.
        ended: Until the reply was.
        fragments: The tool's work, in the order in which it is done.
    """

    latency: float
    decoded: float
    ended: float
    fragments: Sequence[Fragment]

    @property
    def work(self) -> float:
        """Seconds the tool works."""
        return sum(fragment.cost for fragment in self.fragments)

    @property
    def earliest(self) -> float:
        """When the work can be done: F_i = max(F_(i-1), t_i) + e_i, and no turn ends early."""
        done = 0.0
        for fragment in self.fragments:
            done = max(done, fragment.ready) + fragment.cost
        return max(done, self.ended)

    @property
    def in_turn(self) -> float:
        """When the work is done if it begins with the end of the arguments."""
        return max(self.decoded + self.work, self.ended)

    @property
    def bound(self) -> float:
        """The share of the latency that partial execution can save."""
        return 1 - self.earliest / self.in_turn

    @property
    def ceiling(self) -> float:
        """The same if all of the work could be done at any time: min(D, E) / (D + E)."""
        return min(self.decoded, self.work) / (self.decoded + self.work)


@dataclass(frozen=True)
class Pair:
    """The same turn with partial execution and without, one after the other.

    Attributes:
        on: With.
        off: Without.
    """

    on: Timing
    off: Timing

    @property
    def saving(self) -> float:
        """The share of the latency that was saved."""
        return 1 - self.on.latency / self.off.latency

    @property
    def share(self) -> float:
        """Of what could be saved, how much was."""
        return self.saving / self.on.bound


@dataclass(frozen=True)
class Stopped:
    """A reply that was stopped at an argument.

    Attributes:
        after: Tokens that follow the argument in the whole reply.
        decoded: How many of them the server decoded all the same.
        in_flight: How many of these it had sent before the argument had reached the client.
    """

    after: int
    decoded: int
    in_flight: int


def spared(replies: Iterable[Stopped]) -> float:
    """The share of the tokens that could be spared, which leaves out those in flight."""
    replies = list(replies)
    could = sum(reply.after - reply.in_flight for reply in replies)
    return sum(reply.after - reply.decoded for reply in replies) / could
