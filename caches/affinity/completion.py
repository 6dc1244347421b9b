"""The default policy: a job goes where it is probably answered first, and waits where that pays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agentflow.caches.affinity.admission import fits, make_room, release_expired
from agentflow.caches.affinity.fleet import Fleet, Replica
from agentflow.caches.affinity.jobs import Job
from agentflow.caches.affinity.policies import Choice

STAY = 2.0
"""By what factor a session's replica may be slower than the best other one before it is left."""

AHEAD = 0.5
"""Seconds of prompts that a replica is sent beyond what it computes: the rest waits here, where
it can still go elsewhere."""

TURNS = 24
"""Turns over which the price of a session's first place is spread."""

NEWS = 500
"""Tokens by which a prompt is longer than the one before it in the same session."""

BEGINNING = 2
"""Requests that may always wait at a replica for their first token, so that it is never idle."""


class EarliestCompletion:
    """Expected completion: the wait, what is to be computed of the prompt, and the reply."""

    period: float | None = 0.1

    def order(self, waiting: Sequence[Job], fleet: Fleet, now: float) -> Iterable[Job]:
        """The oldest program first."""
        release_expired(fleet, now)
        return sorted(waiting, key=lambda job: (job.optional, job.program, job.number))

    def choose(self, job: Job, fleet: Fleet, now: float) -> Choice:
        """Where a job goes now."""
        home = fleet.home(job)
        usable = fleet.usable(job)
        takers = [r for r in usable if _accepts(r, now) and _fits(job, r, fleet)]
        if not takers:
            return None
        costs = {r.name: cost(job, r, fleet, now) for r in takers}
        if home is None:
            if job.returns:
                best = min(takers, key=lambda r: costs[r.name] / TURNS + turn(job, r))
            else:
                best = min(takers, key=lambda r: (costs[r.name], len(r.pins)))
            session = fleet.sessions.get(job.session)
            return best, "new" if session is None or session.home is None else "lost"
        best = min(takers, key=lambda r: (costs[r.name], len(r.pins)))
        if cost(job, home, fleet, now) > STAY * costs[best.name]:
            return best, "load"
        if home in takers:
            return home, "home"
        if not fits(job, home, fleet.block):
            return best, "room"
        return None


def cost(job: Job, replica: Replica, fleet: Fleet, now: float) -> float:
    """Seconds until a job would be answered by a replica."""
    wait = max(0.0, replica.busy_until - now)
    uncached = job.prompt.tokens - fleet.cached(job, replica)
    write = job.output * replica.rates.decode(replica.running + 1)
    return wait + replica.rates.prefill(uncached) + write


def turn(job: Job, replica: Replica) -> float:
    """Seconds that each further turn of a session would take beside those that live there."""
    living = replica.homes
    write = job.output * replica.rates.decode(living + 1)
    return write + living * NEWS * replica.rates.prefill_seconds


def _fits(job: Job, replica: Replica, fleet: Fleet) -> bool:
    return fits(job, replica, fleet.block) or make_room(job, replica, fleet)


def _accepts(replica: Replica, now: float) -> bool:
    if replica.slots is not None and replica.running >= replica.slots:
        return False
    return replica.beginning < BEGINNING or replica.busy_until - now < AHEAD
