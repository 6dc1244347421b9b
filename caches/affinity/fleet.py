"""The replicas as a policy sees them: what they hold, what runs there, how fast they are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass, field

from agentflow.caches.affinity.jobs import Job, Pause, Pauses
from agentflow.caches.affinity.load import NOTHING, OLD, Busy, Load
from agentflow.caches.affinity.prompts import Prompt, alike
from agentflow.caches.affinity.rates import Rates
from agentflow.caches.affinity.residency import Residency
from agentflow.caches.affinity.returns import Returns
from agentflow.caches.affinity.shares import Shares


@dataclass(slots=True, eq=False)
class Flight:
    """A job that was sent.

    Attributes:
        job: The job.
        sent: When.
        depth: Leading blocks of its prompt that were thought to be resident.
        touched: As `Residency.touch` said.
        uncached: Tokens of its prompt that are probably computed for it.
        ahead: Such tokens of what was there and had not begun.
        others: Requests that ran beside it when it began.
        first: When its first token came, or None.
    """

    job: Job
    sent: float
    depth: int
    touched: int
    uncached: float
    ahead: float
    others: int = 0
    first: float | None = None


@dataclass(slots=True, eq=False)
class Session:
    """A conversation as the dispatcher knows it.

    Attributes:
        id: Its name.
        program: When its program began.
        tenant: Whose it is.
        home: The replica that served it last, or None.
        asked: Tokens of its last prompt.
        depth: Blocks of that.
        last: The last of them, which stands for all of them.
        tokens: Length of that prompt and of its reply.
        output: Tokens that its replies take in the mean; None before the first.
        pause: What is known of when it will be back; None if nothing is.
        since: When it was answered last.
        keep_until: Until when its place at home is kept for it, though nothing of it runs.
        busy: Its requests that wait or run.
        service: Tokens that were computed for it.
        kind: What it is about; see `Returns`.
        turns: Replies that it was given.
        over: It asks nothing more.
    """

    id: str
    program: float
    tenant: str = ""
    home: str | None = None
    asked: int = 0
    depth: int = 0
    last: Hashable = None
    tokens: int = 0
    output: float | None = None
    pause: Pause | None = None
    since: float = 0.0
    keep_until: float = -math.inf
    busy: int = 0
    service: float = 0.0
    kind: str = ""
    turns: int = 0
    over: bool = False


GROWTH = 500.0
"""Tokens by which a session grows with each turn, until that is known."""

GROWTH_SEEN = 50
"""Turns that count in the mean of that."""

_EMPTY = Prompt((), 0)


class Pins:
    """The blocks that live sessions stand on, each counted once however many share it."""

    __slots__ = ("_counts", "_held", "growth")

    def __init__(self) -> None:
        self._counts: Counter[Hashable] = Counter()
        self._held: dict[Hashable, tuple[Prompt, float]] = {}
        self.growth = 0.0  # tokens that the owners write beyond their prompts

    def __len__(self) -> int:
        """Blocks that are pinned."""
        return len(self._counts)

    def __contains__(self, owner: Hashable) -> bool:
        return owner in self._held

    @property
    def owners(self) -> Collection[Hashable]:
        """Whoever pins something."""
        return self._held.keys()

    def held(self, owner: Hashable) -> tuple[Prompt, float]:
        """On what an owner stands, and the tokens it writes beyond that."""
        return self._held[owner]

    def missing(self, prompt: Prompt) -> int:
        """How many blocks of a prompt are not pinned."""
        return len(prompt.blocks) - prompt.within(self._counts)

    def hold(self, owner: Hashable, prompt: Prompt, growth: float) -> None:
        """An owner stands on this prompt, and will write so many tokens more."""
        before, written = self._held.get(owner, (_EMPTY, 0.0))
        self._held[owner] = (prompt, growth)
        self.growth += growth - written
        old = before.blocks
        same = alike(old, prompt.blocks)
        self._count(prompt.blocks[same:], 1)
        self._count(old[same:], -1)

    def release(self, owner: Hashable) -> None:
        """An owner needs nothing any more."""
        if (held := self._held.pop(owner, None)) is not None:
            self._count(held[0].blocks, -1)
            self.growth -= held[1]

    def _count(self, blocks: Iterable[Hashable], change: int) -> None:
        counts = self._counts
        for block in blocks:
            count = counts[block] + change
            if count:
                counts[block] = count
            else:
                del counts[block]


@dataclass(slots=True, eq=False)
class Replica:
    """One replica as policies see it.

    Attributes:
        name: Its name.
        residency: What it probably still holds.
        rates: How fast it is.
        usable: Whether it may be sent anything.
        trial: It may be sent one request at a time, until it is seen whether it works again.
        slots: Requests that it runs at once; None if that is not known.
        flights: What was sent and has not ended, by number.
        pins: What its live sessions stand on: those whose requests run there, and those that
            are away and worth keeping.
        beginning: Flights that have given no token.
        homes: Sessions that were served here last.
        busy_until: Until when the prompts that were sent there will probably delay another request.
        prompts: What share of its time goes into computing prompts.
        page: Tokens that it caches together: of a prompt's end that fills no page, it keeps none.
        others: What others have sent there, as its server told last.
        others_until: Until when that is believed.
        asked: The flights that were there when its server was asked last.
    """

    name: str
    residency: Residency
    rates: Rates
    usable: bool = True
    trial: bool = False
    slots: int | None = None
    flights: dict[int, Flight] = field(default_factory=dict)
    pins: Pins = field(default_factory=Pins)
    beginning: int = 0
    homes: int = 0
    busy_until: float = 0.0
    prompts: Busy = field(default_factory=Busy)
    page: int = 1
    others: Load = NOTHING
    others_until: float = math.inf
    asked: dict[int, Flight] = field(default_factory=dict)

    @property
    def able(self) -> bool:
        """Whether it may be sent something now."""
        return self.usable and not (self.trial and self.flights)

    def serves(self, session: str) -> bool:
        """Whether a request of a session is there."""
        return any(flight.job.session == session for flight in self.flights.values())

    @property
    def running(self) -> int:
        """Requests that were sent and have not ended."""
        return len(self.flights)

    @property
    def load(self) -> int:
        """Requests that are there, also those of others as far as its server tells."""
        return len(self.flights) + self.others.requests

    def own(self) -> Load:
        """What of its load is this pool's: also what has ended since its server was asked."""
        flights = {**self.asked, **self.flights}.values()
        waiting = sum(flight.first is None for flight in flights)
        tokens = sum(flight.job.prompt.tokens + flight.job.output for flight in flights)
        return Load(len(flights), waiting, tokens)


class Fleet:
    """All replicas of a pool, and the sessions they serve.

    Args:
        block: Tokens in a block.

    Attributes:
        replicas: By name, in the order in which they joined.
        sessions: By id.
        block: As given.
        shares: What was computed for each tenant.
        pauses: How long sessions stay away of which nobody says so.
        growth: Tokens by which a session grows with each turn, in the mean.
        returns: Which sessions come back after a reply.
        changed: Names of replicas that may take something since the last look that they could
            not take before.
        fresh: The job that has not been looked at before, or None.
        expiring: When the places of sessions are perhaps no longer kept, a heap.
    """

    def __init__(self, block: float) -> None:
        self.replicas: dict[str, Replica] = {}
        self.sessions: dict[str, Session] = {}
        self.block = block
        self.shares = Shares()
        self.pauses = Pauses()
        self.growth = GROWTH
        self.returns = Returns()
        self._turns = 1  # the first guess counts as one
        self.changed: set[str] = set()
        self.fresh: Job | None = None
        self.expiring: list[tuple[float, str]] = []

    @property
    def capacity(self) -> float | None:
        """Tokens of KV that all replicas hold together; None if that is not known."""
        known = [r.residency.capacity for r in self.replicas.values()]
        return sum(blocks or 0.0 for blocks in known) * self.block or None

    def usable(self, job: Job) -> list[Replica]:
        """Where a job may go: rather not to a replica that has failed it."""
        able = [replica for replica in self.replicas.values() if replica.able]
        return [replica for replica in able if replica.name not in job.avoid] or able

    def home(self, job: Job) -> Replica | None:
        """The replica that served the job's session last, if it is usable."""
        session = self.sessions.get(job.session)
        replica = self.replicas.get(session.home or "") if session is not None else None
        able = replica is not None and replica.able and replica.name not in job.avoid
        return replica if able else None

    def asks(self, name: str) -> None:
        """A replica's server is asked how it is: what is there may have ended when it answers."""
        if (replica := self.replicas.get(name)) is not None:
            replica.asked = dict(replica.flights)

    def share(self, replica: Replica, others: Load, until: float = math.inf) -> None:
        """Others have so much at a replica, as far as is known, and until then."""
        replica.others, replica.others_until = others, until
        replica.residency.share(others.tokens / self.block)
        self.changed.add(replica.name)

    def forget_loads(self, now: float) -> None:
        """What was told too long ago of what others have sent is not believed any more."""
        for replica in self.replicas.values():
            if replica.others_until <= now:
                self.share(replica, NOTHING)

    def told(self, replica: Replica, load: Load, now: float) -> None:
        """A replica's server told what is there, whoever has sent it."""
        self.share(replica, load.beyond(replica.own()), now + OLD)

    def grew(self, tokens: float) -> None:
        """A session came back with a prompt so much longer than its last."""
        self._turns = min(GROWTH_SEEN, self._turns + 1)
        self.growth += (max(0.0, tokens) - self.growth) / self._turns

    def unpin(self, replica: Replica, owner: Hashable) -> None:
        """A session, or a job on its own, no longer has a place at a replica."""
        replica.pins.release(owner)
        self.changed.add(replica.name)

    def settle(self, session: Session, replica: Replica | None) -> None:
        """A session lives at a replica now, or nowhere any more."""
        if (home := self.replicas.get(session.home or "")) is not None:
            home.homes -= 1
            if home is not replica and not home.serves(session.id):
                self.unpin(home, session.id)
        session.home = None if replica is None else replica.name
        if replica is not None:
            replica.homes += 1

    def cached(self, job: Job, replica: Replica) -> float:
        """Tokens of a job's prompt that a replica probably still holds."""
        depth = replica.residency.depth(job.prompt)
        tokens = depth * self.block
        session = self.sessions.get(job.session)
        if session is not None and session.home == replica.name and session.depth:
            goes_on = (
                depth >= session.depth and job.prompt.blocks[session.depth - 1] == session.last
            )
            if goes_on:
                tokens = max(tokens, session.tokens)  # its last reply is there as well
        tokens = min(tokens, job.prompt.tokens)
        return tokens - tokens % replica.page if replica.page > 1 else tokens
