"""Policies that the package does not keep: what other routers do."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from random import Random as Generator

from affinity_simulator import Maker, Servers

from agentflow.caches.affinity.completion import EarliestCompletion
from agentflow.caches.affinity.fleet import Fleet, Replica
from agentflow.caches.affinity.jobs import Job
from agentflow.caches.affinity.policies import Choice, LeastLoaded, Routing, Sticky, why

OURS, LEAST, SAGA = "ours", "least loaded", "SAGA"
HASH, TABLE = "sticky, by a hash", "sticky, by a table"
TURNS, CHANCE = "round robin", "random"


class RoundRobin(Routing):
    """The replicas in turn."""

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, job: Job, fleet: Fleet, now: float) -> Choice:
        """Where a job goes now."""
        usable = fleet.usable(job)
        self._turn += 1
        replica = usable[self._turn % len(usable)]
        return replica, why(job, replica, fleet, "turn")


class Random(Routing):
    """Any replica."""

    def __init__(self) -> None:
        self._random = Generator(1)

    def choose(self, job: Job, fleet: Fleet, now: float) -> Choice:
        """Where a job goes now."""
        replica = self._random.choice(fleet.usable(job))
        return replica, why(job, replica, fleet, "chance")


class Home(Routing):
    """A table: a session stays where it was, a new one goes where the fewest sessions live."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}
        self._table: dict[str, str] = {}

    def choose(self, job: Job, fleet: Fleet, now: float) -> Choice:
        """Where a job goes now."""
        if (home := self._table.get(job.session)) is None:
            least = min(fleet.usable(job), key=lambda r: (self._count.get(r.name, 0), r.running))
            home = self._table[job.session] = least.name
            self._count[home] = self._count.get(home, 0) + 1
        replica = fleet.replicas[home]
        return replica, why(job, replica, fleet, "lost")


class PrefixAware(Routing):
    """SGLang's gateway (``cache_aware``): the longest prefix it has sent there, unless the queues
    are uneven; what the servers evict it does not know.

    Constants are the defaults of its first releases; later ones let queues be more uneven.
    """

    RATIO = 0.5
    ABSOLUTE = 32
    RELATIVE = 1.0001

    def __init__(self) -> None:
        self._sent: dict[str, set[Hashable]] = {}

    def choose(self, job: Job, fleet: Fleet, now: float) -> Choice:
        """Where a job goes now."""
        usable = fleet.usable(job)
        loads = [replica.running for replica in usable]
        if max(loads) - min(loads) > self.ABSOLUTE and max(loads) > self.RELATIVE * min(loads):
            replica = min(usable, key=lambda replica: replica.running)
        else:
            replica = self._by_prefix(job, usable)
        self._sent.setdefault(replica.name, set()).update(job.prompt.blocks)
        return replica, why(job, replica, fleet, "prefix")

    def _by_prefix(self, job: Job, usable: list[Replica]) -> Replica:
        matches = {replica.name: self._match(job, replica) for replica in usable}
        best = max(usable, key=lambda replica: matches[replica.name])
        if matches[best.name] > self.RATIO * len(job.prompt.blocks):
            return best
        return min(usable, key=lambda replica: len(self._sent.get(replica.name, ())))

    def _match(self, job: Job, replica: Replica) -> int:
        """Leading blocks that were sent there before."""
        sent = self._sent.get(replica.name, set())
        low, high = 0, len(job.prompt.blocks)
        while low < high:
            middle = (low + high) // 2
            if job.prompt.blocks[middle] in sent:
                low = middle + 1
            else:
                high = middle
        return low


class Scored(Routing):
    """Red Hat's weights for llm-d: three parts what is really cached, two parts a short queue."""

    PREFIX, QUEUE = 3.0, 2.0

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    def choose(self, job: Job, fleet: Fleet, now: float) -> Choice:
        """Where a job goes now."""
        usable = fleet.usable(job)
        waiting = {replica.name: self._servers[replica.name].waiting for replica in usable}
        least, most = min(waiting.values()), max(waiting.values())
        blocks = max(1, len(job.prompt.blocks))

        def score(replica: Replica) -> float:
            found = self._servers[replica.name].found(job.prompt.blocks) / blocks
            free = (most - waiting[replica.name]) / (most - least) if most > least else 1.0
            return self.PREFIX * found + self.QUEUE * free

        best = max(score(replica) for replica in usable)
        alike = [replica for replica in usable if score(replica) == best]
        replica = min(alike, key=lambda replica: replica.running)
        return replica, why(job, replica, fleet, "prefix")


class Saga:
    """SAGA (Guo et al., 2026), as far as a client can do it with servers as they are.

    A session stays where it is while the load there is below a threshold; what is queued here,
    not at the server, can be stolen by idle replicas. KV cannot be moved between servers: what
    is stolen is computed again. Constants are as published.
    """

    period: float | None = 0.1
    THRESHOLD = 0.8
    RATIO = 2.0
    IDLE = 0.1
    STEALS = 4

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._queues: dict[int, str] = {}
        self._table: dict[str, str] = {}
        self._empty_since: dict[str, float | None] = dict.fromkeys(servers, 0.0)
        self._epoch = 0.0
        self._random = Generator(1)

    def order(self, waiting: Sequence[Job], fleet: Fleet, now: float) -> Iterable[Job]:
        """As they came; once in an epoch, idle replicas steal."""
        for job in waiting:
            if job.number not in self._queues:
                self._route(job)
        self._watch(now)
        if now >= self._epoch:
            self._steal(waiting, now)
            self._epoch = now + (self.period or 0.0)
        return waiting

    def choose(self, job: Job, fleet: Fleet, now: float) -> Choice:
        """Where a job goes now: from the queue of its replica, if that has room in its batch."""
        name = self._queues[job.number]
        if self._servers[name].waiting or fleet.replicas[name].beginning > 1:
            return None
        del self._queues[job.number]
        replica = fleet.replicas[name]
        return replica, why(job, replica, fleet, "load")

    def load(self, name: str) -> float:
        """Half utilisation, half memory, and the queue, as a server says of itself.

        The code that defines utilisation was not to be had; of three readings (some request runs,
        requests of 32, requests of what the server takes at most) the last serves it best.
        """
        server = self._servers[name]
        used = server.used / server.serving.capacity
        return 0.5 * server.running / server.serving.slots + 0.5 * used + 0.05 * server.waiting

    def _queued(self, name: str) -> int:
        return sum(queue == name for queue in self._queues.values()) + self._servers[name].waiting

    def _route(self, job: Job) -> None:
        home = self._table.get(job.session)
        if home is None or self.load(home) >= self.THRESHOLD:
            home = min(self._servers, key=self.load)
        self._queues[job.number] = self._table[job.session] = home

    def _watch(self, now: float) -> None:
        for name in self._servers:
            if self._queued(name):
                self._empty_since[name] = None
            elif self._empty_since[name] is None:
                self._empty_since[name] = now

    def _steal(self, waiting: Sequence[Job], now: float) -> None:
        loads = {name: self.load(name) for name in self._servers}
        least = min(loads.values())
        idle = [
            n
            for n, since in self._empty_since.items()
            if since is not None and now - since > self.IDLE
        ]
        if not idle and max(loads.values()) < self.RATIO * least:
            return
        thieves = idle or [min(loads, key=loads.__getitem__)]
        for thief in thieves[: self.STEALS]:
            victims = [
                n
                for n in loads
                if n != thief and (loads[n] > self.RATIO * least or self._queued(n) >= 2)
            ]
            if not victims:
                return
            victim = self._random.choice(victims)
            if (
                job := next((j for j in waiting if self._queues[j.number] == victim), None)
            ) is not None:
                self._queues[job.number] = self._table[job.session] = thief


POLICIES: dict[str, Maker] = {
    TURNS: lambda servers: RoundRobin(),
    CHANCE: lambda servers: Random(),
    LEAST: lambda servers: LeastLoaded(),
    HASH: lambda servers: Sticky(),
    TABLE: lambda servers: Home(),
    "prefix-aware": lambda servers: PrefixAware(),
    "prefix and queue": Scored,
    SAGA: Saga,
    OURS: lambda servers: EarliestCompletion(),
}
