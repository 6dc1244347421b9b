"""The order of what waits: fair among tenants, urgent before patient, old programs before young."""

from __future__ import annotations

import math

from agentflow.caches.affinity.fleet import Fleet, Session
from agentflow.caches.affinity.jobs import Job

Rank = tuple[bool, int, bool, float, float, float, str, int]
"""What jobs are sorted by; the least goes first."""

URGENT = 0.5
"""Share of the time until its deadline that a program still needs, from which it goes first."""

HOPELESS = 1.5
"""Share from which going first would not help any more."""


def rank(job: Job, ahead: int, fleet: Fleet, now: float) -> Rank:
    """Where a job stands among those that wait.

    Args:
        job: The job.
        ahead: By how many quanta its tenant is; see `Shares`.
        fleet: Knows what was done for its session.
        now: Seconds on the loop's clock.
    """
    session = fleet.sessions.get(job.session)
    program, further, name = seniority(session) if session else (job.program, 0.0, job.session)
    late = not urgent(job, now)
    return job.optional, ahead, late, program, -job.remaining, further, name, job.number


def seniority(session: Session) -> tuple[float, float, str]:
    """The older program before the younger; of those as old, what is further along goes on.

    Where all wait for memory, the least attained service first (Autellix) has all advance side by
    side and evict each other.
    """
    return session.program, -session.service, session.id


def urgent(job: Job, now: float) -> bool:
    """Whether a program needs much of the time that is left to it, and can still make it.

    Urgency is remaining work over remaining time (SAGA, equations 8 and 9).
    """
    if job.deadline is None:
        return False
    left = job.deadline - now
    need = job.remaining / left if left > 0 else math.inf
    return URGENT <= need <= HOPELESS


def patience(job: Job, now: float) -> float:
    """How much a program can wait for the sake of others: 1 as it begins, 0 from the middle of its
    time on; always 1 where it has no deadline."""
    if job.deadline is None:
        return 1.0
    middle = (job.program + job.deadline) / 2
    return min(1.0, max(0.0, (middle - now) / max(middle - job.program, 1e-9)))
