"""Whose KV is kept while its program runs tools, and whether there is room for one more.

Servers evict what was used longest ago. With more sessions than fit, each is evicted by the
others shortly before it comes back, and all compute their prompts again and again. So whole
sessions wait instead, as in ThunderAgent (section 5 of its router) and Continuum.
"""

from __future__ import annotations

from heapq import heappop

from agentflow.caches.affinity.fleet import Fleet, Replica, Session
from agentflow.caches.affinity.jobs import Job
from agentflow.caches.affinity.ordering import patience, seniority
from agentflow.caches.affinity.prompts import Prompt

TOLD = 0.1
"""Seconds for which a place is kept in any case, until it is told how long the pause will be."""

RESERVE = 4
"""Turns for which sessions that live on a replica keep room before another may join them, if it is
not pressed for time; see `patience`."""

MOST = 0.7
"""Share of a replica's KV that is kept for such turns at most."""

_GRID = tuple(0.25 * 1.5**power for power in range(14))
"""Moments at which it is asked again whether keeping pays, in units of the pause's 95 % quantile."""


def keep_until(session: Session, replica: Replica, fleet: Fleet, now: float) -> float:
    """Until when it pays to keep a session's KV for it.

    After InferCept (Abhyankar et al., 2024), which weighs the memory that is held for nothing
    against the time in which everybody waits for it to be computed again: it pays while the rest
    of the pause is shorter than that time for every session that lives on the replica.
    """
    pause = session.pause or fleet.pauses.expected()
    rates, living = replica.rates, max(1, len(replica.pins.owners))
    again = session.tokens * rates.prefill_seconds + (living - 1) * rates.wait(session.tokens)
    kept = now if session.pause else now + TOLD
    for part in (0.0, *_GRID):
        elapsed = part * pause.p95
        if pause.remaining(elapsed) > again:
            break
        kept = max(kept, session.since + elapsed)
    return kept


def release_expired(fleet: Fleet, now: float) -> None:
    """Give up the places of sessions for which it no longer pays to keep them."""
    due = fleet.expiring
    while due and due[0][0] <= now:
        _, name = heappop(due)
        session = fleet.sessions.get(name)
        if session is None or session.busy:
            continue
        if session.keep_until > now:
            continue  # there is a later entry for it
        if (home := fleet.replicas.get(session.home or "")) is not None:
            fleet.unpin(home, name)


def make_room(job: Job, replica: Replica, fleet: Fleet, now: float) -> bool:
    """Give up the places of younger programs of which nothing runs, until an older job can go on.

    Otherwise all sessions that have a place could wait for each other to grow. Nothing is given
    up in vain.
    """
    if job.session not in replica.pins and replica.flights:
        return False
    victims = _younger(job, replica, fleet)
    given: list[tuple[str, Prompt, float]] = []
    for session in victims:
        given.append((session.id, *replica.pins.held(session.id)))
        replica.pins.release(session.id)
        if fits(job, replica, fleet, now):
            return True
    for held in given:
        replica.pins.hold(*held)
    return False


def _younger(job: Job, replica: Replica, fleet: Fleet) -> list[Session]:
    """Sessions that live on a replica idly and make place for a job's, the youngest first."""
    own = fleet.sessions[job.session]
    found = [
        session
        for owner in replica.pins.owners
        if isinstance(owner, str)
        and (session := fleet.sessions.get(owner)) is not None
        and seniority(session) > seniority(own)
        and not replica.serves(owner)
    ]
    return sorted(found, key=seniority, reverse=True)


def room(replica: Replica, block: float) -> float:
    """Tokens of KV that neither run nor are kept."""
    capacity = replica.residency.capacity
    if capacity is None:
        return float("inf")
    return capacity * block - len(replica.pins) * block - replica.pins.growth


def fits(job: Job, replica: Replica, fleet: Fleet, now: float) -> bool:
    """Whether a job fits beside what lives on a replica; alone, everything does.

    Where it is not one of those that live there, they keep room for some turns to come: sessions
    grow, and one that has to make place for another is computed again. The less time its program
    has left, the less it cares.
    """
    free = room(replica, fleet.block) - job.output
    inside = job.session in replica.pins
    living = len(replica.pins.owners)
    if not inside:
        reserve = RESERVE * patience(job, now) * (living + job.returns) * fleet.growth
        free -= min(reserve, MOST * (replica.residency.capacity or 0.0) * fleet.block)
    if job.prompt.tokens <= free or replica.pins.missing(job.prompt) * fleet.block <= free:
        return True
    return not replica.flights and living == inside
