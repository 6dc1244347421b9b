"""The decisions of a pool: what happened goes in, what is to be sent where comes out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from heapq import heappush

from agentflow.caches.affinity.admission import keep_until, release_expired
from agentflow.caches.affinity.fleet import Fleet, Flight, Replica, Session
from agentflow.caches.affinity.jobs import Job, Pause, Send
from agentflow.caches.affinity.load import NOTHING, Load
from agentflow.caches.affinity.policies import Policy
from agentflow.caches.affinity.rates import Rates
from agentflow.caches.affinity.residency import Residency

FORGET = 10_000
"""Sessions that are remembered at most; whoever was not heard of for longest is forgotten."""

OUTPUT_MEMORY = 0.7
"""Weight of a session's earlier replies in what its next one is expected to take."""


class Dispatcher:
    """Places jobs on replicas, without I/O and without a clock.

    Every method that can make room, or ask for it, returns what is to be sent now.

    Args:
        policy: Chooses.
        block: Tokens in a block of a prompt.

    Attributes:
        fleet: The replicas and sessions.
        policy: As given.
        on_error: Told of a job that the policy failed at, which is nowhere any more, and of what
            it raised; by default that is raised.
    """

    def __init__(self, policy: Policy, *, block: float = 64) -> None:
        self.policy = policy
        self.on_error: Callable[[Job, Exception], object] = _raise
        self.fleet = Fleet(block)
        self._waiting: dict[int, Job] = {}
        self._sent: dict[int, Replica] = {}
        self._look_at: float | None = None

    @property
    def waiting(self) -> Mapping[int, Job]:
        """The jobs that were not sent yet, by number."""
        return self._waiting

    @property
    def wake_at(self) -> float | None:
        """When `tick` is to be called if nothing happens before; None for never."""
        return self._look_at if self._waiting else None

    # Replicas

    def join(
        self,
        name: str,
        now: float,
        *,
        slots: int | None = None,
        capacity: float | None = None,
        rates: Rates | None = None,
    ) -> list[Send]:
        """A replica joins.

        Args:
            name: Its name.
            now: Seconds on the loop's clock.
            slots: Requests that it runs at once, if that is known.
            capacity: Tokens of KV that it holds, if that is known.
            rates: How fast it is, if that is known.
        """
        blocks = None if capacity is None else capacity / self.fleet.block
        homes = sum(session.home == name for session in self.fleet.sessions.values())
        self.fleet.replicas[name] = Replica(
            name, Residency(blocks), rates or Rates(), slots=slots, homes=homes
        )
        self.fleet.changed.add(name)
        return self._look(now)

    def leave(self, name: str, now: float) -> list[Job]:
        """A replica is gone.

        Returns:
            The jobs that were there; they are to `arrive` again.
        """
        replica = self.fleet.replicas.pop(name)
        jobs = [flight.job for flight in replica.flights.values()]
        for job in jobs:
            self._sent.pop(job.number)
            session = self.fleet.sessions[job.session]
            session.busy -= 1
            self._settle(session, now)
        return jobs

    def usable(self, name: str, usable: bool, now: float, *, trial: bool = False) -> list[Send]:
        """A replica may, or may not, be sent anything: its health, or it is being drained.

        With `trial` it gets one request at a time.
        """
        replica = self.fleet.replicas[name]
        replica.usable, replica.trial = usable, trial
        self.fleet.changed.add(name)
        return self._look(now)

    def observed(
        self,
        name: str,
        now: float,
        *,
        capacity: float | None = None,
        slots: int | None = None,
        page: int | None = None,
        load: Load | None = None,
    ) -> list[Send]:
        """A replica said how many tokens of KV it holds, how many requests it runs at once, how many
        tokens it caches together, or what is there, whoever has sent it (see `Fleet.asks`)."""
        replica = self.fleet.replicas[name]
        if capacity is not None:
            replica.residency.limit(capacity / self.fleet.block)
        replica.slots = replica.slots if slots is None else slots
        replica.page = page or replica.page
        if load is not None:
            self.fleet.told(replica, load, now)
        self.fleet.changed.add(name)
        return self._look(now)

    def restarted(self, name: str, now: float) -> list[Send]:
        """A replica is there again: what was learnt of its memory, and of others, is forgotten."""
        replica = self.fleet.replicas[name]
        self.fleet.share(replica, NOTHING)
        replica.residency.relearn()
        return self._look(now)

    def resize(self, block: float) -> None:
        """It was learnt how many tokens a block has."""
        scale, self.fleet.block = self.fleet.block / block, block
        for replica in self.fleet.replicas.values():
            replica.residency.rescale(scale)

    # Jobs

    def arrive(self, job: Job, now: float) -> list[Send]:
        """A job is to be placed."""
        session = self._session(job)
        if session.asked and not (session.busy or job.optional):
            self.fleet.grew(job.prompt.tokens - session.asked)
            if session.pause is None:
                self.fleet.pauses.observe(now - session.since)
        session.busy += 1
        self.fleet.shares.active(job.tenant, {other.tenant for other in self._waiting.values()})
        self._waiting[job.number] = self.fleet.fresh = job
        return self._look(now)

    def began(self, number: int, now: float) -> list[Send]:
        """The first token of a reply came."""
        replica = self._sent[number]
        flight = replica.flights[number]
        if flight.first is None:
            flight.first, flight.others = now, replica.load
            replica.beginning -= 1
            self.fleet.changed.add(replica.name)
            if not replica.others.waiting:  # else it is not known what it waited for
                replica.rates.began(flight.uncached, flight.ahead, now - flight.sent)
            self._recount(replica, now)
        return self._look(now)

    def finished(
        self,
        number: int,
        now: float,
        *,
        prompt: int | None = None,
        cached: int | None = None,
        made: int = 0,
    ) -> list[Send]:
        """A reply is complete.

        Args:
            number: Of its job.
            now: Seconds on the loop's clock.
            prompt: Tokens of its prompt as the server counted them, if it did.
            cached: Of these, what it had; None if it does not say, which is not the same as 0.
            made: Tokens of the reply.
        """
        replica, flight = self._land(number, now)
        job = flight.job
        prompt = job.prompt.tokens if prompt is None else prompt
        computed = flight.uncached if cached is None else max(0.0, prompt - cached)
        if cached is not None:
            self._confirm(replica, flight, cached, prompt)
        if flight.first is not None and made > 1:
            beside = (flight.others + replica.load + 1) / 2
            replica.rates.wrote(made - 1, now - flight.first, beside)
        self.fleet.shares.count(job.tenant, computed, made)
        session = self.fleet.sessions[job.session]
        if not job.optional:
            session.tokens, session.since = prompt + made, now
            session.service += computed + made
            session.turns += 1
            kept = made if session.output is None else session.output
            session.output = OUTPUT_MEMORY * kept + (1 - OUTPUT_MEMORY) * made
        stays = job.returns and not job.optional
        self._rest(replica, flight, made if stays else None, now)
        return self._look(now)

    def failed(self, number: int, now: float) -> list[Send]:
        """An attempt ended without a whole answer; the job is no longer anywhere."""
        replica, flight = self._land(number, now)
        self._rest(replica, flight, None, now)
        return self._look(now)

    def withdrawn(self, number: int, now: float) -> list[Send]:
        """Nobody wants the answer any more, whether the job waits or was sent."""
        if (job := self._waiting.get(number)) is not None:
            self._drop(job, now)
            return self._look(now)
        return self.failed(number, now) if number in self._sent else []  # its replica may be gone

    # Sessions

    def away(self, session: str, pause: Pause | None, now: float) -> list[Send]:
        """A session's program is busy with something else, and will be back after it."""
        if (known := self.fleet.sessions.get(session)) is not None:
            known.pause, known.since = pause, now
            self._settle(known, now)
        return self._look(now)

    def ended(self, session: str, now: float) -> list[Send]:
        """A session asks nothing more."""
        if (known := self.fleet.sessions.get(session)) is not None:
            if known.turns and not known.over:
                self.fleet.returns.ended(known.kind, known.turns)
            known.over = True
            self._settle(known, now)
        return self._look(now)

    def tick(self, now: float) -> list[Send]:
        """Time has passed; see `wake_at`."""
        return self._look(now)

    # Placing

    def _look(self, now: float) -> list[Send]:
        """Place what can be placed."""
        release_expired(self.fleet, now)
        self.fleet.forget_loads(now)
        sends: list[Send] = []
        if not self._waiting:
            return sends
        for job in self._ordered(now):
            if (choice := self._chosen(job, now)) is not None:
                sends.append(self._send(job, *choice, now))
        self.fleet.changed.clear()
        self.fleet.fresh = None
        period = self.policy.period
        self._look_at = None if period is None else now + period
        return sends

    def _ordered(self, now: float) -> Iterator[Job]:
        """The jobs that wait, as the policy orders them."""
        try:
            yield from self.policy.order(list(self._waiting.values()), self.fleet, now)
        except Exception as error:  # noqa: BLE001  # a policy is anybody's: nobody waits for ever
            for job in list(self._waiting.values()):
                self._fail(job, error, now)

    def _chosen(self, job: Job, now: float) -> tuple[Replica, str] | None:
        try:
            return self.policy.choose(job, self.fleet, now)
        except Exception as error:  # noqa: BLE001  # a policy is anybody's: the others go on
            self._fail(job, error, now)
            return None

    def _fail(self, job: Job, error: Exception, now: float) -> None:
        """The policy failed at a job that waits."""
        self._drop(job, now)
        self.on_error(job, error)

    def _drop(self, job: Job, now: float) -> None:
        """A job waits no more."""
        del self._waiting[job.number]
        session = self.fleet.sessions[job.session]
        session.busy -= 1
        self._settle(session, now)

    def _send(self, job: Job, replica: Replica, why: str, now: float) -> Send:
        del self._waiting[job.number]
        session = self.fleet.sessions[job.session]
        uncached = job.prompt.tokens - self.fleet.cached(job, replica)
        depth = replica.residency.depth(job.prompt)
        touched = replica.residency.touch(job.prompt)
        ahead = sum(f.uncached for f in replica.flights.values() if f.first is None)
        replica.flights[job.number] = Flight(job, now, depth, touched, uncached, ahead)
        replica.beginning += 1
        replica.busy_until = max(now, replica.busy_until) + replica.rates.wait(uncached)
        replica.prompts.note(uncached * replica.rates.prefill_seconds, now)
        self._sent[job.number] = replica
        replica.pins.hold(_owner(job), job.prompt, job.output)
        if not job.optional:
            blocks = job.prompt.blocks
            self.fleet.settle(session, replica)
            session.asked = job.prompt.tokens
            session.depth, session.last = len(blocks), blocks[-1] if blocks else None
        return Send(job, replica.name, why)

    def _land(self, number: int, now: float) -> tuple[Replica, Flight]:
        """A flight has ended, in whatever way."""
        replica = self._sent.pop(number)
        flight = replica.flights.pop(number)
        replica.beginning -= flight.first is None
        self.fleet.sessions[flight.job.session].busy -= 1
        self.fleet.changed.add(replica.name)
        self._recount(replica, now)
        return replica, flight

    def _rest(self, replica: Replica, flight: Flight, made: int | None, now: float) -> None:
        """A flight has ended: what it stood on is kept if its session goes on from there.

        Args:
            replica: Where it was.
            flight: The flight.
            made: Tokens that it added to its prompt; None if nothing goes on from it.
            now: Seconds on the loop's clock.
        """
        job, session = flight.job, self.fleet.sessions[flight.job.session]
        owner = _owner(job)
        if not any(_owner(other.job) == owner for other in replica.flights.values()):
            if made is not None and session.home == replica.name:
                replica.pins.hold(owner, job.prompt, made)
                session.pause = None
            else:
                self.fleet.unpin(replica, owner)
        self._settle(session, now)

    def _settle(self, session: Session, now: float) -> None:
        """Something about a session has changed: until when is its place kept, if it has one."""
        if session.busy:
            return
        if session.over:
            self._forget(session)
            return
        home = self.fleet.replicas.get(session.home or "")
        if home is not None and session.id in home.pins:
            session.keep_until = keep_until(session, home, self.fleet, now)
            heappush(self.fleet.expiring, (session.keep_until, session.id))

    def _recount(self, replica: Replica, now: float) -> None:
        """When a replica will have computed what it was sent, from what has not begun."""
        left = sum(f.uncached for f in replica.flights.values() if f.first is None)
        replica.busy_until = now + replica.rates.wait(left)

    def _confirm(self, replica: Replica, flight: Flight, cached: int, prompt: int) -> None:
        """Correct the model of what a replica holds by what it said it had."""
        if not prompt:
            return
        scale = flight.job.prompt.tokens / prompt  # its tokens are not exactly ours
        blocks = len(flight.job.prompt.blocks)
        actual = min(blocks, round(cached * scale / self.fleet.block))
        slack = 1 + round(max(64, replica.page) / self.fleet.block)
        if abs(actual - flight.depth) > slack:
            replica.residency.confirm(flight.depth, actual, flight.touched)

    def _session(self, job: Job) -> Session:
        sessions = self.fleet.sessions
        if (known := sessions.pop(job.session, None)) is None:
            known = Session(job.session, job.program, job.tenant, kind=job.kind)
            while len(sessions) >= FORGET and self._forget_one():
                pass
        sessions[job.session] = known  # the last to be forgotten
        return known

    def _forget_one(self) -> bool:
        sessions = self.fleet.sessions
        idle = next((s for s in sessions.values() if not s.busy), None)
        if idle is not None:
            self._forget(idle)
        return idle is not None

    def _forget(self, session: Session) -> None:
        del self.fleet.sessions[session.id]
        self.fleet.settle(session, None)
        for replica in self.fleet.replicas.values():
            if session.id in replica.pins:
                self.fleet.unpin(replica, session.id)


def _raise(_job: Job, error: Exception) -> None:
    raise error


def _owner(job: Job) -> Hashable:
    """Whose place a job takes: its session's, unless it only prepares something."""
    return job.number if job.optional else job.session
