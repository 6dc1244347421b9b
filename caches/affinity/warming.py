"""Whether it pays to have a prompt computed before it is asked for.

While a session's tools run, the beginning of its next prompt is known: the history, the reply just
made, and the results that are there already. A server that has nothing else to do can compute that
now; where it has the prompt still, it is used again and so evicted later.
"""

from __future__ import annotations

from agentflow.caches.affinity.fleet import Fleet
from agentflow.caches.affinity.jobs import Job

LEAST = 64.0
"""Tokens below which nothing is gained by computing them early."""

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
    if home is None or home.flights:
        return False
    missing = job.prompt.tokens - fleet.cached(job, home)
    rest = session.pause.remaining(now - session.since)
    is_next = job.deadline is None or job.deadline - now > rest
    return is_next and missing >= LEAST and rest > LATE * home.rates.prefill(missing)
