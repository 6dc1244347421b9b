"""A pool of modelled replicas in virtual time: the package's dispatcher decides, models serve.

Nothing waits and nothing is sent: a run is a loop over what happens next at a server, at a client,
or when the dispatcher wants to look again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from agentflow.caches.affinity.dispatcher import Dispatcher
from agentflow.caches.affinity.jobs import Job, Pause, Send
from agentflow.caches.affinity.policies import Policy
from agentflow.caches.affinity.prompts import Prompt
from agentflow.testing.serving import Change, Serving, ServingModel

Servers = Mapping[str, ServingModel]
Maker = Callable[[Servers], Policy]
"""Makes a policy; what its original reads from the servers, it may read there."""

REPLY = 256.0
"""Tokens that a session's first reply is expected to take."""

STUCK = 600
"""Looks in a row, with nothing else to come, after which a policy has forgotten a request."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Attributes:
        session: Id of the conversation.
        prompt: What it begins with, and how long it is.
        output: Tokens that the model will write.
        written: Keys of the blocks that the prompt's rest and the reply fill.
        began: When the program began.
        tenant: Whose it is.
        returns: Whether the session will ask again.
    """

    session: str
    prompt: Prompt
    output: int
    written: tuple[Hashable, ...] = ()
    began: float = 0.0
    tenant: str = ""
    returns: bool = False


@dataclass(slots=True)
class Served:
    """How a request fared; times in seconds."""

    ask: Ask
    arrived: float
    replica: str = ""
    why: str = ""
    sent: float = 0.0
    first: float = 0.0
    finished: float = 0.0
    cached: int = 0


@dataclass(slots=True)
class Station:
    """One replica: its model, and for how long it has been busy."""

    model: ServingModel
    due: float | None = None
    busy: float = 0.0
    _seen: float = 0.0

    def passed(self, now: float) -> None:
        """Note the time since something happened here; to be called before anything does."""
        if self.model.running:
            self.busy += now - self._seen
        self._seen = now


@dataclass(slots=True)
class _Request:
    served: Served
    then: Callable[[Served], None]


@dataclass
class Simulation:
    """One run of one policy.

    Args:
        maker: Of the policy.
        serving: What each replica is.
        replicas: How many there are.

    Attributes:
        now: Seconds since the beginning.
        served: What was answered, in the order of the answers.
        stations: The replicas by name.
    """

    maker: Maker
    serving: Serving
    replicas: int
    now: float = 0.0
    served: list[Served] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Build the replicas, and tell the dispatcher what it could read from them."""
        names = [f"r{index}" for index in range(self.replicas)]
        self.stations = {name: Station(ServingModel(self.serving)) for name in names}
        policy = self.maker({name: station.model for name, station in self.stations.items()})
        self.dispatcher = Dispatcher(policy, block=self.serving.block)
        for name in names:
            self.dispatcher.join(
                name, 0.0, slots=self.serving.slots, capacity=self.serving.capacity
            )
        self._requests: dict[int, _Request] = {}
        self._numbers = count(1)
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []

    @property
    def busy(self) -> float:
        """Seconds in which replicas had something to do, all together."""
        return sum(station.busy for station in self.stations.values())

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Have something done later, or now if that is past."""
        heappush(self._agenda, (when, next(self._numbers), action))

    def ask(self, ask: Ask, then: Callable[[Served], None]) -> None:
        """A client asks; `then` is called when it has its answer."""
        number = next(self._numbers)
        known = self.dispatcher.fleet.sessions.get(ask.session)
        output = REPLY if known is None or known.output is None else known.output
        job = Job(
            number, ask.session, ask.prompt, output, self.now, ask.began, ask.tenant,
            returns=ask.returns,
        )  # fmt: skip
        self._requests[number] = _Request(Served(ask, self.now), then)
        self._send(self.dispatcher.arrive(job, self.now))

    def away(self, session: str, pause: Pause) -> None:
        """A session runs a tool now."""
        self._send(self.dispatcher.away(session, pause, self.now))

    def ended(self, session: str) -> None:
        """A session has asked for the last time."""
        self._send(self.dispatcher.ended(session, self.now))

    def run(self) -> None:
        """Let everything happen."""
        looks = 0
        while True:
            due, station = self._next_station()
            agenda = self._agenda[0][0] if self._agenda else None
            wake = self.dispatcher.wake_at
            times = [when for when in (due, agenda, wake) if when is not None]
            if not times:
                return
            self.now = max(self.now, min(times))
            looks += agenda is None and due is None
            if due is not None and due <= self.now and station is not None:
                self._advance(station)
                looks = 0
            elif agenda is not None and agenda <= self.now:
                heappop(self._agenda)[2]()
                looks = 0
            elif self._send(self.dispatcher.tick(self.now)):
                looks = 0
            if looks > STUCK:
                raise RuntimeError(f"{len(self.dispatcher.waiting)} requests are never sent")

    def _next_station(self) -> tuple[float | None, Station | None]:
        first, found = None, None
        for station in self.stations.values():
            if station.due is not None and (first is None or station.due < first):
                first, found = station.due, station
        return first, found

    def _advance(self, station: Station) -> None:
        station.passed(self.now)
        changes = station.model.advance(self.now)
        station.due = station.model.next_change()
        for change in changes:
            self._changed(change)

    def _changed(self, change: Change) -> None:
        request = self._requests[change.number]
        if change.kind == "first":
            request.served.first = change.at
            self._send(self.dispatcher.began(change.number, change.at))
        elif change.kind == "finished":
            del self._requests[change.number]
            served = request.served
            served.finished, served.cached = change.at, change.cached
            self.served.append(served)
            self._send(
                self.dispatcher.finished(
                    change.number, change.at, prompt=served.ask.prompt.tokens,
                    cached=change.cached, made=change.made,
                )
            )  # fmt: skip
            request.then(served)

    def _send(self, sends: Iterable[Send]) -> bool:
        sent = False
        for send in sends:
            sent = True
            served = self._requests[send.job.number].served
            served.replica, served.why, served.sent = send.replica, send.why, self.now
            ask, station = served.ask, self.stations[send.replica]
            station.passed(self.now)
            station.model.submit(
                send.job.number, ask.prompt.blocks, ask.prompt.tokens, ask.output, self.now,
                written=ask.written,
            )  # fmt: skip
            station.due = station.model.next_change()
        return sent
