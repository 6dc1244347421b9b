"""The default policy: a job goes where it is probably answered first, and waits where that pays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from heapq import nsmallest
from itertools import islice
from statistics import fmean
from typing import TypeAlias

from agentflow.caches.affinity.admission import fits, make_room
from agentflow.caches.affinity.fleet import Fleet, Replica
from agentflow.caches.affinity.jobs import Job
from agentflow.caches.affinity.ordering import rank
from agentflow.caches.affinity.policies import Choice

STAY = 3.0
"""By what factor a session's replica may be slower than the best other one before it is left."""

PATIENCE = 2.0
"""By what factor the same, the time it has waited counted in, where it has no room for a job."""

AHEAD = 0.5
"""Seconds for which requests may certainly wait at a replica for the prompts of others: the rest
waits here, where it can still go elsewhere."""

BEGINNING = 2
"""Requests that may always wait at a replica for their first token, so that it is never idle."""

TURNS = 24
"""Turns that a session probably has, over which the price of its first place is spread."""

STARVED = 30.0
"""Seconds for which a job lets others pass that find room where it does not."""

QUIET = 0.65
"""Share of the KV that may be in use by what runs, if more is to be used than is free."""

STILL_THERE = 0.8
"""Share of a session that has to be resident, if it is to go on where it has no place."""

SPARE = 0.4
"""Share of its time that a replica computes prompts, below which sessions need not wait for room."""

CROWD = 0.2
"""Share of a reply's time that each session adds to it which lives, or runs, there as well."""

SPREAD = 0.02
"""Share by which each request at a replica has a single one rather go elsewhere: what is learnt of
replicas that are alike differs by chance, and one of them would get everything."""

UNLIKE = 2.0
"""By what factor a replica has to be faster or slower than the others to be told from them."""

TYPICAL = 4
"""Requests beside which replicas are compared."""

LOOKED_AT = 12
"""Jobs that are looked at, those apart whose own replica has room for something."""

QUANTUM = 250_000
"""Tokens that one tenant may be ahead of another where no capacity is known."""

Settling: TypeAlias = "tuple[float, int, int]"
"""Seconds, requests of others, and blocks that are in use: the least wins."""


class EarliestCompletion:
    """Expected completion: the wait, what is to be computed of the prompt, and the reply.

    A session's own replica is kept while it is not slower than `STAY` times the best other. A
    job that no replica has room for waits, and with it its whole session; see `admission`.
    """

    period: float | None = 0.1

    def __init__(self) -> None:
        self._open: list[Replica] = []
        self._starving = False
        self._quickest = 0.0  # seconds a token at the best

    def order(self, waiting: Sequence[Job], fleet: Fleet, now: float) -> Iterable[Job]:
        """The jobs that could go somewhere, by `rank`."""
        self._starving = False
        shut = fleet.replicas.keys() - {replica.name for replica in self._open}
        self._open = [r for r in fleet.replicas.values() if r.able and _accepts(r, now)]
        fleet.changed.update(replica.name for replica in self._open if replica.name in shut)
        if not self._open:
            return ()
        self._quickest = min(r.rates.decode(1) for r in self._open)
        changed = {r.name for r in self._open if r.name in fleet.changed or not r.flights}
        if len(waiting) == 1:
            return waiting
        if not changed:
            return () if fleet.fresh is None else (fleet.fresh,)
        tenants = {job.tenant for job in waiting}
        ahead = fleet.shares.ahead(tenants, fleet.capacity or QUANTUM)
        ranks = {job: rank(job, ahead[job.tenant], fleet, now) for job in waiting}
        key = ranks.__getitem__
        homes = {job: fleet.home(job) for job in waiting}
        theirs = [j for j, home in homes.items() if home is not None and home.name in changed]
        homeless = [j for j, home in homes.items() if home is None]
        first = nsmallest(LOOKED_AT, waiting, key) + nsmallest(LOOKED_AT, homeless, key)
        return sorted({*first, *theirs}, key=key)

    def choose(self, job: Job, fleet: Fleet, now: float) -> Choice:
        """Where a job goes now."""
        if job.optional:
            return self._idle(job, fleet, now)
        home = fleet.home(job)
        if home is None:
            return self._settle(job, fleet, now)
        at_home = home.able and _accepts(home, now) and self._stays(job, home, fleet, now)
        at_once = cost(job, home, fleet, now)
        if at_home and at_once <= STAY * self._quickest * job.output:
            return home, "home"  # nowhere is it so much faster
        room = at_home or fits(job, home, fleet, now)
        if takers := self._takers(job, fleet, now, home):
            best = min(takers, key=lambda r: (cost(job, r, fleet, now), len(r.pins)))
            there = cost(job, best, fleet, now)
            if at_once > STAY * there:
                return best, "load"
            if not room and now - job.arrived + at_once > PATIENCE * there:
                return best, "room"
        if not room and now - job.arrived > STARVED:
            self._starving = True
        return (home, "home") if at_home else None

    def _stays(self, job: Job, home: Replica, fleet: Fleet, now: float) -> bool:
        """Whether its own replica has room for a job.

        Where not much runs, what is resident may be used though its place was given up: whoever
        is evicted for it is computed again beside few.
        """
        if fits(job, home, fleet, now) or make_room(job, home, fleet, now):
            return True
        session = fleet.sessions[job.session]
        if fleet.cached(job, home) < STILL_THERE * session.tokens:
            return False
        running = sum(f.job.prompt.tokens + f.job.output for f in home.flights.values())
        capacity = (home.residency.capacity or 0.0) * fleet.block
        return running + job.prompt.tokens + job.output <= QUIET * capacity

    def _settle(self, job: Job, fleet: Fleet, now: float) -> Choice:
        """A place for a job whose session has none."""
        takers = self._takers(job, fleet, now, None)
        if not takers:
            idle = (r for r in self._open if not r.flights and make_room(job, r, fleet, now))
            takers = list(islice(idle, 1))
        if not takers:
            self._starving = self._starving or now - job.arrived > STARVED
            return None
        session = fleet.sessions.get(job.session)
        why = "new" if session is None or session.home is None else "lost"
        usual = _Pace(self._open)
        return min(takers, key=partial(_settling, job, fleet, now, usual)), why

    def _idle(self, job: Job, fleet: Fleet, now: float) -> Choice:
        """A place where a job is in nobody's way: at home, or where there is none, anywhere."""
        home = fleet.home(job)
        places = self._open if home is None else [home]
        free = (r for r in places if r.able and not r.load and fits(job, r, fleet, now))
        return next(((r, "home" if r is home else "new") for r in free), None)

    def _takers(self, job: Job, fleet: Fleet, now: float, home: Replica | None) -> list[Replica]:
        """Where a job fits but for its home; where it did not fit before it does not now.

        One that has no home may go where it does not fit, if prompts take little time there.
        """
        if self._starving:
            return []
        known = job is not fleet.fresh
        allowed = fleet.usable(job) if job.avoid else None
        return [
            replica
            for replica in self._open
            if not (known and replica.flights and replica.name not in fleet.changed)
            and replica is not home
            and (allowed is None or replica in allowed)
            and replica.able
            and _accepts(replica, now)
            and (
                fits(job, replica, fleet, now)
                or (home is None and _spares(job, replica, fleet, now))
            )
        ]


def cost(job: Job, replica: Replica, fleet: Fleet, now: float, usual: _Pace | None = None) -> float:
    """Seconds until a job would be answered by a replica, at its own pace or the usual one."""
    wait = max(0.0, replica.busy_until - now) + _behind_others(job, replica)
    uncached = job.prompt.tokens - fleet.cached(job, replica)
    beside = replica.load + 1
    token = replica.rates.decode(beside) if usual is None else usual.token(replica, beside)
    write = job.output * token
    return wait + replica.rates.prefill(uncached) + write


def _behind_others(job: Job, replica: Replica) -> float:
    """Seconds for which others' requests are before a job; they are taken to be like it."""
    if not replica.others.requests:
        return 0.0
    rates = replica.rates
    wait = rates.wait(replica.others.waiting * job.prompt.tokens)
    over = 0 if replica.slots is None else replica.load + 1 - replica.slots
    if replica.slots and over > 0:
        wait += over / replica.slots * job.output * rates.decode(replica.slots)
    return wait


def _settling(job: Job, fleet: Fleet, now: float, usual: _Pace, replica: Replica) -> Settling:
    """What it takes a session to live at a replica: this turn's answer, or all that will follow."""
    first = cost(job, replica, fleet, now, usual)
    others = replica.others.requests
    if not job.returns:
        return first * (1.0 + SPREAD * replica.load), others, len(replica.pins)
    living = (replica.homes + replica.running) / 2 + others
    write = job.output * usual.token(replica, replica.homes + others + 1)
    meetings = living * (replica.rates.wait(fleet.growth) + CROWD * write)
    return first / TURNS + write + meetings, others, len(replica.pins)


class _Pace:
    """How fast the replicas write that a job may go to.

    What is learnt of each is noisy, and mostly they are alike: they are taken to be, but for
    those that clearly are not.
    """

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self._alone = fmean(replica.rates.decode(1) for replica in replicas)
        self._each = fmean(replica.rates.decode(2) for replica in replicas) - self._alone

    def decode(self, running: int) -> float:
        """Seconds a token while so many requests run, in the mean of the replicas."""
        return self._alone + self._each * (running - 1)

    def token(self, replica: Replica, running: int) -> float:
        """The same at a replica: another time only where it is clearly another."""
        ratio = replica.rates.decode(TYPICAL) / self.decode(TYPICAL)
        return self.decode(running) * (1.0 if 1 / UNLIKE < ratio < UNLIKE else ratio)


def _spares(job: Job, replica: Replica, fleet: Fleet, now: float) -> bool:
    """Whether a replica has time to compute again what a session pushes out for want of room.

    That is about as much as it brings, now and with the turns for which it will live there.
    """
    brings = job.prompt.tokens - fleet.cached(job, replica) + job.returns * TURNS * fleet.growth
    return replica.prompts.share(now, brings * replica.rates.prefill_seconds) < SPARE


def _accepts(replica: Replica, now: float) -> bool:
    """Whether a replica is sent more.

    As long as it is not certain that requests delay each other there, they are not held back: what
    comes of it shows whether they do.
    """
    if replica.slots is not None and replica.running >= replica.slots:
        return False
    queue = (replica.busy_until - now) * replica.rates.certain
    return replica.beginning < BEGINNING or queue < AHEAD
