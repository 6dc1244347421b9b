"""Whether it pays to have a prompt computed before it is asked for.

While a session's tools run, the beginning of its next prompt is known: the history, the reply just
made, and the results that are there already. A server that has nothing else to do can compute that
now; where it has the prompt still, it is used again and so evicted later.
"""

from __future__ import annotations

import math

from agentflow.caches.affinity.fleet import Fleet, Replica, Session
from agentflow.caches.affinity.jobs import Job

LEAST = 128.0
"""Tokens below which little is gained by computing them early; and what is predicted of the end of
a prompt can be off by two blocks."""

LATE = 2.0
"""By what factor the rest of a pause has to be longer than the computation: a prompt that is asked
for in the middle of it waits for its end."""


def pays(job: Job, fleet: Fleet, now: float) -> bool:
    """Whether to have a prompt computed that will be the beginning of a session's next one.

    Nobody may have to wait for it: nothing runs where the session lives, and it will be done well
    before the session is back.
    """
    session, home = fleet.sessions.get(job.session), fleet.home(job)
    if session is None or session.busy or session.pause is None:
        return False
    if home is None or home.load:
        return False
    missing = job.prompt.tokens - fleet.cached(job, home)
    rest = session.pause.remaining(now - session.since)
    if job.deadline is not None and job.deadline - now <= rest:
        return False  # there is no next one
    if rest <= LATE * home.rates.prefill(missing):
        return False
    return missing >= LEAST or _fades(job, session, home, now, rest)


def in_time(job: Job, fleet: Fleet, now: float) -> bool:
    """Whether a prompt of which it is not known when it is asked for is computed early enough.

    There has to be time left for whoever asks for it: as much again.
    """
    if job.deadline is None:
        return True
    there = [replica for replica in fleet.replicas.values() if replica.usable]
    quickest = min((one.rates.prefill(job.prompt.tokens) for one in there), default=math.inf)
    return job.deadline - now > LATE * quickest


def _fades(job: Job, session: Session, home: Replica, now: float, rest: float) -> bool:
    """Whether a prompt that is there, and is to stay, will be evicted before it is asked for.

    It will if as much goes on being used as was since. What lives elsewhere, or is no longer worth
    its place, is not held against what others need.
    """
    capacity = home.residency.capacity
    if capacity is None or session.id not in home.pins:
        return False
    elapsed = now - session.since
    newer = home.residency.newer(job.prompt)
    until_then = newer * (elapsed + rest) / elapsed if elapsed > 0.0 else 0.0
    return until_then > capacity - len(job.prompt.blocks)
