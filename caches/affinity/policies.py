"""How a replica is chosen: the interface, and the two simplest answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias

from agentflow.caches.affinity.digests import digest
from agentflow.caches.affinity.fleet import Fleet, Replica
from agentflow.caches.affinity.jobs import Job

Choice: TypeAlias = "tuple[Replica, str] | None"
"""A replica, and why (see `Send`); None: the job waits."""


class Policy(Protocol):
    """Says what is sent where, and in which order what waits is looked at.

    Attributes:
        period: Seconds after which it wants to look again although nothing happened; None if
            it does not.
    """

    period: float | None

    def order(self, waiting: Sequence[Job], fleet: Fleet, now: float) -> Iterable[Job]:
        """The jobs that wait, the first to be placed first."""
        ...

    def choose(self, job: Job, fleet: Fleet, now: float) -> Choice:
        """Where a job goes now."""
        ...


class Routing:
    """A policy that sends everything at once; servers have queues of their own."""

    period: float | None = None

    def order(self, waiting: Sequence[Job], fleet: Fleet, now: float) -> Iterable[Job]:
        """As they came."""
        return waiting


class LeastLoaded(Routing):
    """The replica with the fewest requests, whoever has sent them."""

    def choose(self, job: Job, fleet: Fleet, now: float) -> Choice:
        """Where a job goes now."""
        usable = fleet.usable(job)
        if not usable:
            return None
        replica = min(usable, key=lambda replica: replica.load)
        return replica, why(job, replica, fleet, "load")


class Sticky(Routing):
    """The replica that a hash of the session names: the same after a restart, and for everybody.

    Rendezvous hashing (Thaler and Ravishankar, 1998): if a replica leaves, only its own sessions
    move.
    """

    def choose(self, job: Job, fleet: Fleet, now: float) -> Choice:
        """Where a job goes now."""
        usable = fleet.usable(job)
        if not usable:
            return None
        replica = max(usable, key=lambda replica: score(job.session, replica.name))
        return replica, why(job, replica, fleet, "lost")


def score(session: str, replica: str) -> bytes:
    """What a session gives a replica; it goes where this is highest."""
    return digest(session, replica, size=8)


def why(job: Job, replica: Replica, fleet: Fleet, moved: str) -> str:
    """The reason of a choice: `moved` if the session was elsewhere."""
    session = fleet.sessions.get(job.session)
    if session is None or session.home is None:
        return "new"
    if session.home == replica.name:
        return "home"
    return moved if fleet.home(job) is not None else "lost"
