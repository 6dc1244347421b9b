"""One replica of a pool: where it is, how it fares, and what runs there."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from agentflow import _http
from agentflow.caches.affinity.fleet import Replica
from agentflow.caches.affinity.health import Breaker, Doubt
from agentflow.errors import BackendBusy, BackendError, BackendTimeout, DefinitionError
from agentflow.executor.affinity.dialects import Speaks
from agentflow.executor.affinity.manners import Manners
from agentflow.executor.models.base import Usage
from agentflow.executor.models.client import OpenAIBackend, checked_url, split_credentials

if TYPE_CHECKING:
    from agentflow.executor.affinity.stream import PooledStream

Condition: TypeAlias = Literal["up", "down", "trying", "resting", "draining"]
"""``up``: takes requests; ``down``: left alone after failures; ``trying``: one request finds out
whether it is back; ``resting``: it asked to be left alone (``Retry-After``); ``draining``: nothing
new goes there."""


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """A replica as it joins a pool.

    Attributes:
        url: Base URL, such as ``http://10.0.0.7:8000/v1``. A user and a password in it are sent
            instead of a key, and shown nowhere.
        name: How reports call it; by default host and port.
        slots: Requests that it runs at once, if that is known.
        capacity: Tokens of KV that it holds, if that is known.
        headers: Sent with every request, beside those of the pool.
        api_key: Instead of the pool's.
        dialect: Instead of the pool's.
    """

    url: str
    name: str = ""
    slots: int | None = None
    capacity: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    api_key: str | None = None
    dialect: Speaks | str | None = None


def as_spec(replica: str | ReplicaSpec) -> ReplicaSpec:
    """A replica as it joins: what its URL says of a user becomes a header, as it would be sent.

    Raises:
        DefinitionError: The URL is none, or it would have room for nothing.
    """
    spec = ReplicaSpec(replica) if isinstance(replica, str) else replica
    for what, room in (("slots", spec.slots), ("capacity", spec.capacity)):
        if room is not None and room < 1:
            raise DefinitionError(f"{spec.url}: {what}={room!r} must be 1 or more, or left out")
    url, given = split_credentials(checked_url(spec.url))
    if not given:
        return replace(spec, url=url)
    return replace(spec, url=url, headers={**spec.headers, **given}, api_key="")


def as_specs(replicas: Iterable[str | ReplicaSpec]) -> list[ReplicaSpec]:
    """The replicas that a pool begins with.

    Raises:
        DefinitionError: There is none, one is there twice, or one is wrong in itself.
    """
    if isinstance(replicas, str):
        raise DefinitionError(f"a pool has a list of replicas: Pool([{replicas!r}])")
    specs = [as_spec(replica) for replica in replicas]
    if not specs:
        raise DefinitionError("a pool needs replicas: Pool(['http://a:8000/v1', ...])")
    for url, times in Counter(spec.url for spec in specs).items():
        if times > 1:
            raise DefinitionError(f"{url} is in the list of replicas {times} times: give it once")
    return specs


class Member:
    """A replica while it belongs to a pool.

    Args:
        name: Its name in the pool.
        spec: As it joined.
        chance: Spreads the moments at which it is tried again after failures.

    Attributes:
        name: As given.
        spec: As given.
        breaker: Whether it is left alone.
        doubt: What is thought of its silences.
        down_since: When it was seen to be down, on the loop's clock; None while it is not.
        draining: Nothing new is to go there.
        streams: What runs there.
        idle: Set while nothing does.
        alive_at: When it last gave a sign of life, on the loop's clock.
        answered_at: When it last began to answer a request, on the loop's clock.
        error: What it failed with last; empty if it has answered since.
        tally: What came of its requests.
    """

    def __init__(self, name: str, spec: ReplicaSpec, chance: random.Random) -> None:
        self.name = name
        self.spec = spec
        self._backend: OpenAIBackend | None = None
        self._manners: Manners | None = None
        self.breaker = Breaker(chance)
        self.doubt = Doubt()
        self.down_since: float | None = None
        self.draining = False
        self.streams: set[PooledStream] = set()
        self.idle = asyncio.Event()
        self.idle.set()
        self.alive_at = 0.0
        self.answered_at = -math.inf
        self.error = ""
        self.tally = Tally()

    @property
    def backend(self) -> OpenAIBackend:
        """The client of its endpoint."""
        assert self._backend is not None, "connect() comes first"
        return self._backend

    @property
    def manners(self) -> Manners:
        """How it wants to be spoken to."""
        assert self._manners is not None, "connect() comes first"
        return self._manners

    @property
    def connected(self) -> bool:
        """Whether it can be reached, and has been given a client."""
        return self._backend is not None

    def connect(self, backend: OpenAIBackend, manners: Manners) -> None:
        """It can be reached from now on."""
        self._backend, self._manners = backend, manners

    def enter(self, stream: PooledStream) -> None:
        """A request is sent there."""
        self.tally.requests += 1
        self.streams.add(stream)
        self.idle.clear()

    def leave(self, stream: PooledStream) -> None:
        """A request has ended, in whatever way."""
        self.streams.discard(stream)
        if not self.streams:
            self.idle.set()
            self.doubt.end()

    def allows(self, now: float) -> bool:
        """Whether it may be sent requests."""
        return not self.draining and self.breaker.allows(now)

    def condition(self, now: float) -> Condition:
        """How it fares."""
        if self.draining:
            return "draining"
        if self.breaker.state == "open":
            return "down"
        if self.breaker.rested > now:
            return "resting"
        return "trying" if self.breaker.state == "half-open" else "up"

    def complaint(self, now: float) -> str:
        """Why it may not be sent anything."""
        if self.draining:
            return "it is being drained"
        if self.breaker.state == "open":
            return self.breaker.why
        return self.breaker.why if self.breaker.rested > now else ""

    def report(self, replica: Replica, now: float) -> ReplicaReport:
        """How it fares; `replica` is what the dispatcher knows of it."""
        tally, rates = self.tally, replica.rates
        return ReplicaReport(
            name=self.name,
            url=self.spec.url,
            server="unknown" if self._manners is None else self._manners.server,
            condition=self.condition(now),
            complaint=self.complaint(now),
            error=self.error,
            running=replica.running,
            waiting=replica.beginning,
            requests=tally.requests,
            failures=tally.failures,
            moved=dict(tally.moved),
            prompt_tokens=tally.prompt,
            reported_tokens=tally.reported,
            cached_tokens=tally.cached,
            completion_tokens=tally.completion,
            prefill=1.0 / rates.prefill_seconds,
            decode=rates.decode(1),
        )


@dataclass(slots=True)
class Tally:
    """What came of the requests to a replica.

    Attributes:
        requests: How many were sent.
        answered: How many gave at least one piece of a reply.
        failures: How many failed. Refused ones count only if another member was up and might
            have taken them.
        moved: Sessions that came there from another replica, by reason.
        prompt: Tokens of prompts, as the server counted them.
        reported: Of these, those of replies that said how much had been cached.
        cached: Of those, the cached ones.
        completion: Tokens of replies.
    """

    requests: int = 0
    answered: int = 0
    failures: int = 0
    moved: Counter[str] = field(default_factory=Counter)
    prompt: int = 0
    reported: int = 0
    cached: int = 0
    completion: int = 0

    def count(self, used: Usage) -> None:
        """A reply came to its end."""
        self.completion += used.completion_tokens
        if used.estimated:
            return
        self.prompt += used.prompt_tokens
        if used.cached_tokens is not None:
            self.reported += used.prompt_tokens
            self.cached += used.cached_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReport:
    """How one replica of a pool fares, and what it has done.

    Attributes:
        name: Its name.
        url: Its base URL.
        server: What it is, as far as is known; see `probe.Endpoint`.
        condition: See `Condition`.
        complaint: What it failed with last; empty while it is up.
        error: What it failed with last, also while it is up; empty if it has answered since.
        running: Requests that are there.
        waiting: Of these, those that have given no token.
        requests: Requests that were sent there so far.
        failures: Of these, those that failed.
        moved: Sessions that came there from another replica, by reason.
        prompt_tokens: Tokens of prompts.
        reported_tokens: Of these, those of replies that said how much had been cached.
        cached_tokens: Of those, the cached ones.
        completion_tokens: Tokens of replies.
        prefill: Prompt tokens that it seems to compute in a second.
        decode: Seconds that it seems to need for a token of one reply alone.
    """

    name: str
    url: str
    server: str
    condition: Condition
    complaint: str
    error: str
    running: int
    waiting: int
    requests: int
    failures: int
    moved: Mapping[str, int]
    prompt_tokens: int
    reported_tokens: int
    cached_tokens: int
    completion_tokens: int
    prefill: float
    decode: float

    @property
    def hit_share(self) -> float | None:
        """Share of the prompts' tokens that was cached; None if no reply said so."""
        return self.cached_tokens / self.reported_tokens if self.reported_tokens else None


def was_unreachable(error: BaseException) -> bool:
    """Whether no connection could be opened: there is no such process, or no way to it."""
    cause: BaseException | None = error
    while cause is not None:
        if _http.error_kind(cause) in ("unreachable", "connect_timeout"):
            return True
        cause = cause.__cause__
    return False


_OWN = (401, 403, 404, 408, 421, 425)


def is_its_fault(error: BackendError) -> bool:
    """Whether an error says something of the replica, and not of the request or of its load."""
    if isinstance(error, BackendTimeout):
        return error.retryable  # else the caller's own time was over
    if isinstance(error, BackendBusy):
        return False
    rejected = error.status is not None and 400 <= error.status < 500
    return not rejected or is_its_own_refusal(error)


def is_its_own_refusal(error: BackendError) -> bool:
    """Whether a request was refused for what the replica is, and another might take it.

    It may have another key, not have the model, or not have it yet.
    """
    return error.status in _OWN
